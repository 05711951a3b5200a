//! What the ledger keeps for those who want to be told of what happens, until they were told.
//!
//! A notice is entered in the same transaction as what it tells of, so a crash loses none; it is removed after it was told,
//! so one may be told twice. Where nobody listens, nothing is entered.

use async_trait::async_trait;

use super::LedgerError;
use crate::bell::Bell;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{EventKind, Version};

type Result<T> = std::result::Result<T, LedgerError>;

/// Somebody who wants to be told.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What the ledger knows it by, also after a restart.
    pub channel: String,
    /// What it wants to be told of.
    pub wants: Vec<(DirectoryName, EventKind)>,
    /// Rung when there is something to tell.
    pub bell: Bell,
}

/// The ledger's number of a notice; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NoticeId(pub i64);

/// Something that is to be told.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The ledger's number.
    pub id: NoticeId,
    /// What happened.
    pub kind: EventKind,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// With which vessel; `None`: with all.
    pub vessel: Option<VesselName>,
    /// Why it is parked.
    pub reason: Option<String>,
    /// To which version.
    pub version: Version,
    /// What its source is called in `processed/`, where that is not the version's own path.
    pub processed: Option<RelPath>,
}

/// The ledger's notices.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// From now on, has notices entered for these and for nobody else. Those that wait for others are dropped; returns how
    /// many.
    async fn listen(&self, listeners: &[Listener]) -> Result<u64>;

    /// What a channel is still to be told, oldest first: those after `after`, at most `limit`.
    async fn notices(&self, channel: &str, after: NoticeId, limit: u32) -> Result<Vec<Notice>>;

    /// Enters that notices were told, or are to be told no more.
    async fn told(&self, notices: &[NoticeId]) -> Result<()>;
}
