//! Queues of directories that have a priority, an order, a schedule or an expiry; all other directories share one
//! queue. The ledger stores the order of a queue and the time at which its deliveries expire. It does not know
//! priorities and schedules.

use std::time::Duration;

use async_trait::async_trait;

use super::LedgerError;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{Delivery, VersionId};
use crate::settings::Order;

type Result<T> = std::result::Result<T, LedgerError>;

/// The properties of a directory's own queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// The order of the queue's deliveries.
    pub order: Order,
    /// How long after its admission a version of a file may be sent; `None` if it may always be sent.
    pub expire: Option<Duration>,
}

/// The end of a queue from which deliveries are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueEnd {
    /// The deliveries that the queue's order sends first.
    Front,
    /// The deliveries that the queue's order sends last. With [`Order::Oldest`], the same as `Front`, because
    /// deliveries have no rank then.
    Back,
}

/// A delivery that has expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredDelivery {
    /// The vessel that did not receive the file.
    pub vessel: VesselName,
    /// The file.
    pub path: RelPath,
    /// The time at which the delivery expired, in milliseconds since 1970. The ledger may have recorded it later.
    pub expired_at: i64,
}

/// The ledger's interface for queues.
#[async_trait]
pub trait Queues: Send + Sync {
    /// Gives a directory a queue of its own, or with `None` the shared queue. The next
    /// [`reconcile`](super::Store::reconcile) moves the directory's open deliveries to this queue.
    async fn set_queue(&self, directory: &DirectoryName, settings: Option<QueueSettings>) -> Result<()>;

    /// Moves open deliveries to the shared queue: those of all directories that have a queue of their own and are not
    /// in `keep`.
    async fn release_queues(&self, keep: &[DirectoryName]) -> Result<()>;

    /// Returns the due deliveries in a directory's own queue, at most `limit`, beginning at `end`; `large` selects like
    /// in [`next_due`](super::Store::next_due). In the queue's order, deliveries that failed before come after all
    /// others. Leaves out deliveries that [`Self::expire`] has ended.
    async fn next_due_in(
        &self,
        vessel: &VesselName,
        queue: &DirectoryName,
        large: bool,
        limit: u32,
        end: QueueEnd,
    ) -> Result<Vec<Delivery>>;

    /// Returns when the next delivery in a directory's own queue is due, in milliseconds since 1970; `None` when no
    /// delivery in this queue is open.
    async fn next_due_at_in(&self, vessel: &VesselName, queue: &DirectoryName) -> Result<Option<i64>>;

    /// Ends and returns the open deliveries of a directory that expire at the time `until` (milliseconds since 1970) or
    /// before, at most `limit`. A delivery that is being published is left out until its outcome is known.
    async fn expire(&self, directory: &DirectoryName, until: i64, limit: u32) -> Result<Vec<ExpiredDelivery>>;

    /// Returns when the next open delivery of a directory expires, in milliseconds since 1970; `None` when no open
    /// delivery expires.
    async fn next_expiry(&self, directory: &DirectoryName) -> Result<Option<i64>>;

    /// Returns whether any delivery of a directory has expired.
    async fn has_expired(&self, directory: &DirectoryName) -> Result<bool>;

    /// Returns those of `versions` that no vessel has acknowledged.
    async fn unreceived(&self, versions: &[VersionId]) -> Result<Vec<VersionId>>;
}
