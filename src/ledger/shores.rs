//! Several shores over one ledger: who does which work, and hints between the shores.
//!
//! Each shore that runs has a lease, which it renews. Work (a vessel, a directory, housekeeping) is given to one of the
//! living shores at a time. The ledger only records who has what; the shores compute the same [`share`](super::share) of
//! the same records, and each acts on its own part of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::LedgerError;
use crate::names::{DirectoryName, VesselName};

type Result<T> = std::result::Result<T, LedgerError>;

/// What one shore at a time does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Delivers to a vessel.
    Vessel(VesselName),
    /// Scans a directory, admits its files, and retires them.
    Directory(DirectoryName),
    /// Prunes the ledger, and sends notifications.
    Housekeeping,
}

impl Work {
    /// Reads the text that [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            Some(("vessel", name)) => Some(Self::Vessel(VesselName::new(name))),
            Some(("directory", name)) => Some(Self::Directory(DirectoryName::new(name))),
            None if text == "housekeeping" => Some(Self::Housekeeping),
            _ => None,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vessel(name) => write!(f, "vessel {name}"),
            Self::Directory(name) => write!(f, "directory {name}"),
            Self::Housekeeping => f.write_str("housekeeping"),
        }
    }
}

/// A hint to other shores. A hint that is lost delays work, and loses none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hint {
    /// A shore came or went, or work was given back.
    Shares,
    /// There may be something to deliver to a vessel, or to retire in a directory.
    New(Work),
    /// Retry a vessel now.
    Hurry(VesselName),
    /// Vessels or directories were paused or resumed.
    Pauses,
    /// Notices were recorded.
    Notices,
    /// A location turned from a file into a directory, or the reverse.
    Locations,
    /// Hints may have been lost.
    Anything,
}

impl Hint {
    /// Reads the text that [`Display`](fmt::Display) writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "shares" => Self::Shares,
            "pauses" => Self::Pauses,
            "notices" => Self::Notices,
            "locations" => Self::Locations,
            "anything" => Self::Anything,
            _ => match text.split_once(' ')? {
                ("new", work) => Self::New(Work::parse(work)?),
                ("hurry", vessel) => Self::Hurry(VesselName::new(vessel)),
                _ => return None,
            },
        })
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shares => f.write_str("shares"),
            Self::New(work) => write!(f, "new {work}"),
            Self::Hurry(vessel) => write!(f, "hurry {vessel}"),
            Self::Pauses => f.write_str("pauses"),
            Self::Notices => f.write_str("notices"),
            Self::Locations => f.write_str("locations"),
            Self::Anything => f.write_str("anything"),
        }
    }
}

/// The part of the work that this shore has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The work that this shore has, with the shore that is to have it.
    pub held: BTreeMap<Work, Next>,
    /// When the first lease of another shore runs out unless it is renewed.
    pub look_in: Option<Duration>,
}

/// Which shore is to have work that this shore has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This one.
    Stays,
    /// Another shore, or none.
    Goes,
}

/// A shore that has a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShoreSeen {
    /// Its `ShoreName`; empty for a program that uses the ledger alone.
    pub name: String,
    /// Its host and process.
    pub holder: String,
    /// When it started, in milliseconds since 1970 by the database's clock.
    pub since: i64,
    /// How long its lease lasts unless it is renewed, in milliseconds; negative: it has run out.
    pub left: i64,
    /// How long the last renewal took, in microseconds.
    pub latency: Option<i64>,
    /// Whether it gives its work to the others.
    pub is_drained: bool,
    /// The work that it has, and since when.
    pub work: Vec<(Work, i64)>,
}

/// The ledger's interface for several shores. A ledger file has one shore, which does all the work.
#[async_trait]
pub trait Shores: Send + Sync {
    /// Returns how often [`Self::share_out`] is to be called; `None` if this shore has the ledger for itself and does all
    /// the work.
    fn share_interval(&self) -> Option<Duration> {
        None
    }

    /// Records which work this shore may be given, takes what is free and due to this shore, and returns what it has. Work
    /// of shores whose leases have run out is free.
    async fn share_out(&self, _serves: &[Work]) -> Result<Share> {
        Ok(Share::default())
    }

    /// Gives work back, so that another shore can have it. To be called after all tasks that did it have ended.
    async fn give_back(&self, _work: &[Work]) -> Result<()> {
        Ok(())
    }

    /// Sends hints to the other shores.
    async fn send_hints(&self, _hints: &[Hint]) -> Result<()> {
        Ok(())
    }

    /// Waits for the next hint of another shore. To be called by one task.
    async fn next_hint(&self) -> Hint {
        std::future::pending().await
    }
}
