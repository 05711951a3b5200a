//! Notices for listeners. The ledger keeps a notice until it is delivered.
//!
//! A notice is recorded in the same transaction as its event, so a crash loses no notice. It is removed only after it
//! was delivered, so after a crash in between, the notice is delivered again. Without listeners, no notices are
//! recorded.

use async_trait::async_trait;

use super::LedgerError;
use crate::bell::Bell;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{EventKind, Version};

type Result<T> = std::result::Result<T, LedgerError>;

/// A subscriber to notices.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The listener's name in the ledger, stable across restarts.
    pub channel: String,
    /// The events that the listener subscribes to.
    pub wants: Vec<(DirectoryName, EventKind)>,
    /// Rung when the ledger may hold new notices.
    pub bell: Bell,
}

/// The number of a notice in the ledger; numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NoticeId(pub i64);

/// An event to be reported to a listener.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The notice's number in the ledger.
    pub id: NoticeId,
    /// The kind of event.
    pub kind: EventKind,
    /// Time of the event, in milliseconds since 1970.
    pub at: i64,
    /// The vessel concerned; `None` when the event concerns all vessels.
    pub vessel: Option<VesselName>,
    /// The reason why the delivery is parked; `None` for other events.
    pub reason: Option<String>,
    /// The version concerned.
    pub version: Version,
    /// The source's path below `processed/`; `None` if it equals the version's path.
    pub processed: Option<RelPath>,
}

/// The ledger's interface for notices.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Replaces the listeners: from now on, notices are recorded for `listeners` only. Deletes the pending notices of
    /// all other listeners, and returns their number.
    async fn listen(&self, listeners: &[Listener]) -> Result<u64>;

    /// Returns the pending notices of a channel with numbers above `after`, oldest first, at most `limit`.
    async fn notices(&self, channel: &str, after: NoticeId, limit: u32) -> Result<Vec<Notice>>;

    /// Records that notices were delivered, or that they will not be delivered any more.
    async fn told(&self, notices: &[NoticeId]) -> Result<()>;
}
