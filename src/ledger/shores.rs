//! Several shores that share one ledger: which shore does which work, and the hints that shores send to each other.
//!
//! Each running shore has a lease, which it renews. A piece of work (a vessel, a directory, or housekeeping) belongs to
//! one shore with a valid lease at a time. The ledger only records which shore has which work. All shores compute the
//! same [`fair_share`](super::fair_share) from these records, and each shore acts only on its own part of the result.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::LedgerError;
use crate::names::{DirectoryName, VesselName};
use crate::records::FormerAssembly;

type Result<T> = std::result::Result<T, LedgerError>;

/// A piece of work. Only one shore at a time does it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Deliver to a vessel.
    Vessel(VesselName),
    /// Scan a directory, admit its files, and retire them.
    Directory(DirectoryName),
    /// Prune the ledger, and send notifications.
    Housekeeping,
}

impl Work {
    /// Parses the text that [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            Some(("vessel", name)) => Some(Self::Vessel(VesselName::new(name))),
            Some(("directory", name)) => Some(Self::Directory(DirectoryName::new(name))),
            None if text == "housekeeping" => Some(Self::Housekeeping),
            _ => None,
        }
    }

    /// Returns the vessel to which this work delivers.
    pub fn vessel(&self) -> Option<&VesselName> {
        match self {
            Self::Vessel(name) => Some(name),
            Self::Directory(_) | Self::Housekeeping => None,
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

/// A hint to the other shores. A lost hint delays work, but no work is lost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hint {
    /// A shore started or stopped, or a shore gave work back.
    Shares,
    /// There may be a new delivery to a vessel, or a file to retire in a directory.
    New(Work),
    /// The deliveries to this vessel must be retried now.
    Hurry(VesselName),
    /// Vessels or directories were paused or resumed.
    Pauses,
    /// Notices were recorded.
    Notices,
    /// A location changed from a file to a directory, or the reverse.
    Locations,
    /// Some hints may have been lost, so the receiver must check for all kinds of changes.
    Anything,
}

impl Hint {
    /// Parses the text that [`Display`](fmt::Display) writes.
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
    /// The work that this shore has, and whether the shore keeps it.
    pub held: BTreeMap<Work, Next>,
    /// Time until just after the next lease of another shore expires, unless that shore renews it; `None` if no other
    /// shore has a valid lease.
    pub look_in: Option<Duration>,
}

/// Whether a shore keeps a piece of work that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The shore keeps the work.
    Stays,
    /// The shore must give the work back, because another shore, or none, should have it.
    Goes,
}

/// A shore that has a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShoreSeen {
    /// The shore's `ShoreName`; empty for a program that uses the ledger alone.
    pub name: String,
    /// The shore's host and process.
    pub holder: String,
    /// When the shore started, in milliseconds since 1970 by the database's clock.
    pub since: i64,
    /// How long the shore's lease lasts unless it is renewed, in milliseconds; negative if the lease has expired.
    pub left: i64,
    /// How long the last renewal took, in microseconds.
    pub latency: Option<i64>,
    /// Whether the shore is drained: it gives its work to the other shores.
    pub is_drained: bool,
    /// The work that the shore has, and since when, in milliseconds since 1970.
    pub work: Vec<(Work, i64)>,
}

/// The ledger's interface for several shores. A ledger file has one shore, which does all the work.
#[async_trait]
pub trait Shores: Send + Sync {
    /// Returns the interval at which [`Self::share_out`] must be called; `None` if this shore uses the ledger alone and
    /// does all the work.
    fn share_interval(&self) -> Option<Duration> {
        None
    }

    /// Records the work that this shore may have (`serves`), acquires its share of the free work, and returns all work
    /// that it has. The work of a shore whose lease has expired is free.
    async fn share_out(&self, _serves: &[Work]) -> Result<Share> {
        Ok(Share::default())
    }

    /// Gives work back, so that another shore can have it. Must be called after all tasks of this work have ended.
    async fn give_back(&self, _work: &[Work]) -> Result<()> {
        Ok(())
    }

    /// Gives work back like [`Self::give_back`], and records that this shore serves nothing more, in one transaction.
    async fn leave(&self, _work: &[Work]) -> Result<()> {
        Ok(())
    }

    /// Returns the names that assemblies (unfinished files) on a vessel had before this shore took the vessel over, the
    /// latest first. When a vessel passes to another shore, the tokens of its unfinished deliveries change, and so do
    /// the names of their assemblies. Late requests of the earlier shore then find no file.
    async fn former_assemblies(&self, vessel: &VesselName) -> Result<Vec<FormerAssembly>>;

    /// Deletes these records of former assemblies, by number, because no files with their names exist on the vessels
    /// any more.
    async fn forget_former_assemblies(&self, numbers: &[i64]) -> Result<()>;

    /// Returns the vessels that have work: open deliveries, or parts to be removed. This is one query for a whole
    /// fleet, instead of several queries for each idle vessel.
    async fn with_work(&self, vessels: Vec<VesselName>) -> Result<Vec<VesselName>> {
        Ok(vessels)
    }

    /// Sends hints to the other shores.
    async fn send_hints(&self, _hints: &[Hint]) -> Result<()> {
        Ok(())
    }

    /// Waits for the next hint from another shore. Only one task may call this method. Never returns for a ledger file,
    /// which has only one shore.
    async fn next_hint(&self) -> Hint {
        std::future::pending().await
    }
}
