//! Errors, classified by their consequences.
//!
//! Each port (disk, ledger, transport) has its own error type and converts it to a [`Fault`]; the workflows only use
//! the scope. There is no crate-wide error enum.

use std::fmt;

use crate::text::visible;

/// The part of the program's work that a fault affects, which decides how the program reacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// This attempt only: back off and retry, on a new connection if the old one is closed.
    Attempt,
    /// This file on this vessel: park the delivery, continue with other deliveries.
    File,
    /// The remote location of the file, for example because its file system is full or read-only: hold back all
    /// deliveries to this location, continue with other locations.
    Place,
    /// This vessel: park the vessel, continue with the other vessels.
    Vessel,
    /// The daemon itself can't continue.
    Daemon,
}

/// How soon a parked delivery or vessel is retried automatically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Retried every few seconds, without backing off: for faults that cost little to check and whose end should be
    /// noticed at once, such as an unreachable host.
    AtOnce,
    /// Retried soon, then at growing intervals: for faults that clear up by themselves.
    Soon,
    /// Retried within about 1 min: for faults that a person fixes without telling this program, such as a full disk.
    Unhurried,
    /// Retried at growing intervals of up to 15 min for a vessel and up to 6 h for a delivery. For attempts that lock
    /// accounts or cause penalties when repeated often, such as a refused login, and for files that a person must fix.
    Slow,
}

/// The category of a fault, for statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The network, or a host at one of its ends.
    Link,
    /// A host key that is not trusted.
    HostKey,
    /// A login that was refused.
    Login,
    /// No space left.
    Space,
    /// A read-only file system.
    ReadOnly,
    /// A missing permission.
    Denied,
    /// A name that is too long for the vessel.
    Name,
    /// Bytes that were corrupted in transit.
    Damaged,
    /// A source that can't be read, or that changed after it was taken in.
    Source,
    /// A delivery whose vessel or directory is no longer in the settings.
    Settings,
    /// A way (an address of a vessel, with its link) that may not be used now: its budget is spent, or its schedule is
    /// closed.
    Closed,
    /// Anything else.
    Other,
}

impl Cause {
    /// Returns the name of the category in logs and statistics.
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
            Self::Closed => "closed",
            Self::Other => "other",
        }
    }
}

/// A fault: its scope, the reason in plain words, and the remedy.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The part of the program's work that the fault affects.
    pub scope: Scope,
    /// How soon to retry.
    pub pace: Pace,
    /// The category of the fault.
    pub cause: Cause,
    /// What happened to which thing, in plain words.
    pub reason: String,
    /// The remedy for the operator; empty if nothing needs to be done.
    pub remedy: String,
}

impl Fault {
    /// Creates a fault that affects this attempt only.
    pub fn attempt(reason: impl fmt::Display) -> Self {
        Self {
            scope: Scope::Attempt,
            pace: Pace::Soon,
            cause: Cause::Other,
            reason: visible(&reason.to_string()).into_owned(),
            remedy: String::new(),
        }
    }

    /// Creates a fault that parks one file's delivery to one vessel.
    pub fn file(reason: impl fmt::Display) -> Self {
        Self { scope: Scope::File, pace: Pace::Slow, ..Self::attempt(reason) }
    }

    /// Creates a fault that holds back all deliveries to one remote location.
    pub fn place(reason: impl fmt::Display) -> Self {
        Self { scope: Scope::Place, pace: Pace::Unhurried, ..Self::attempt(reason) }
    }

    /// Creates a fault that parks one vessel.
    pub fn vessel(reason: impl fmt::Display) -> Self {
        Self { scope: Scope::Vessel, pace: Pace::Unhurried, ..Self::attempt(reason) }
    }

    /// Creates a fault that stops the daemon.
    pub fn daemon(reason: impl fmt::Display) -> Self {
        Self { scope: Scope::Daemon, ..Self::attempt(reason) }
    }

    /// Adds the remedy.
    pub fn mend(self, remedy: impl fmt::Display) -> Self {
        Self { remedy: remedy.to_string(), ..self }
    }

    /// Sets the category.
    pub fn of(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    /// Sets the pace of retries.
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
