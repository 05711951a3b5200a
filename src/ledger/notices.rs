//! Notices for listeners, kept in the ledger until they were delivered.
//!
//! A notice is recorded in the same transaction as its event, so a crash loses none. It is removed after its delivery,
//! so one may be delivered twice. Without listeners, no notices are recorded.

use async_trait::async_trait;

use super::LedgerError;
use crate::bell::Bell;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{EventKind, Version};

type Result<T> = std::result::Result<T, LedgerError>;

/// A subscriber to notices.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in the ledger, stable across restarts.
    pub channel: String,
    /// The events that it subscribes to.
    pub wants: Vec<(DirectoryName, EventKind)>,
    /// Rung when there may be new notices.
    pub bell: Bell,
}

/// The ledger's number of a notice; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NoticeId(pub i64);

/// An event to be reported to a listener.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Its number in the ledger.
    pub id: NoticeId,
    /// The kind of event.
    pub kind: EventKind,
    /// Time of the event, in milliseconds since 1970.
    pub at: i64,
    /// The vessel concerned; `None`: all.
    pub vessel: Option<VesselName>,
    /// Why the delivery is parked.
    pub reason: Option<String>,
    /// The version concerned.
    pub version: Version,
    /// The source's path below `processed/`, where it differs from the version's own path.
    pub processed: Option<RelPath>,
}

/// The ledger's notices.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Replaces the listeners: from now on, notices are recorded for these only. Drops the pending notices of all
    /// others and returns their number.
    async fn listen(&self, listeners: &[Listener]) -> Result<u64>;

    /// Returns a channel's pending notices, oldest first: those after `after`, at most `limit`.
    async fn notices(&self, channel: &str, after: NoticeId, limit: u32) -> Result<Vec<Notice>>;

    /// Records that notices were delivered, or are no longer to be.
    async fn told(&self, notices: &[NoticeId]) -> Result<()>;
}
