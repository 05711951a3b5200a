//! What went wrong, sorted by what follows from it.
//!
//! Each port (disk, ledger, transport) has an error of its own and turns it into a [`Fault`]; the workflows look at the
//! scope alone. There is no crate-wide error enum.

use std::fmt;

use crate::text::visible;

/// What a fault concerns, and so what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// This attempt only: back off and try again, on a new connection where the old one is gone.
    Attempt,
    /// This file on this vessel: park the delivery, go on with the others.
    File,
    /// The place on the vessel that the file goes to (a file system that is full or read-only): hold back all that goes
    /// there, go on with the rest.
    Place,
    /// This vessel: park it, go on with the other vessels.
    Vessel,
    /// The daemon itself can't go on.
    Daemon,
}

/// How soon what is parked is tried again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Every few seconds for as long as it takes: what is cheap to look for and to be used at once when it is back, such as
    /// a link.
    AtOnce,
    /// Soon, and then less and less often: what mends itself.
    Soon,
    /// Within a minute or so: what a person mends without telling us, such as a full disk.
    Unhurried,
    /// Every few minutes: what locks accounts or trips penalties when tried often, such as a refused login.
    Slow,
}

/// What sort of trouble it is, for those who count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The network, or an end of it.
    Link,
    /// A host key that is not trusted.
    HostKey,
    /// A login that is refused.
    Login,
    /// No room left.
    Space,
    /// A read-only file system.
    ReadOnly,
    /// A missing permission.
    Denied,
    /// A name that is too long there.
    Name,
    /// Bytes that arrived as others.
    Damaged,
    /// A source that can't be read, or changed meanwhile.
    Source,
    /// Something that the settings don't name any more.
    Settings,
    /// Something else.
    Other,
}

impl Cause {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::HostKey => "host_key",
            Self::Login => "login",
            Self::Space => "space",
            Self::ReadOnly => "read_only",
            Self::Denied => "denied",
            Self::Name => "name",
            Self::Damaged => "damaged",
            Self::Source => "source",
            Self::Settings => "settings",
            Self::Other => "other",
        }
    }
}

/// A fault: its scope, the reason in plain words, and what a person can do about it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What it concerns.
    pub scope: Scope,
    /// How soon it is worth another try.
    pub pace: Pace,
    /// What sort of trouble it is.
    pub cause: Cause,
    /// What happened and where, in words for a person.
    pub reason: String,
    /// What a person can do; empty where nothing is to be done.
    pub remedy: String,
}

impl Fault {
    /// A fault of this attempt only.
    pub fn attempt(reason: impl fmt::Display) -> Self {
        Self {
            scope: Scope::Attempt,
            pace: Pace::Soon,
            cause: Cause::Other,
            reason: visible(&reason.to_string()).into_owned(),
            remedy: String::new(),
        }
    }

    /// A fault that parks one file's delivery to one vessel.
    pub fn file(reason: impl fmt::Display) -> Self {
        Self { scope: Scope::File, pace: Pace::Slow, ..Self::attempt(reason) }
    }

    /// A fault that holds back what goes to one place on a vessel.
    pub fn place(reason: impl fmt::Display) -> Self {
        Self { scope: Scope::Place, pace: Pace::Unhurried, ..Self::attempt(reason) }
    }

    /// A fault that parks one vessel.
    pub fn vessel(reason: impl fmt::Display) -> Self {
        Self { scope: Scope::Vessel, pace: Pace::Unhurried, ..Self::attempt(reason) }
    }

    /// A fault that stops the daemon.
    pub fn daemon(reason: impl fmt::Display) -> Self {
        Self { scope: Scope::Daemon, ..Self::attempt(reason) }
    }

    /// The same fault with what a person can do about it.
    pub fn mend(self, remedy: impl fmt::Display) -> Self {
        Self { remedy: remedy.to_string(), ..self }
    }

    /// The same fault, of this sort.
    pub fn of(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    /// The same fault, tried again at another pace.
    pub fn at(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

impl std::error::Error for Fault {}
