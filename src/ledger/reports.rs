//! People's queries to the ledger, independent of the database: sums, a file's history, receipts. The queries change
//! nothing. The time to read the sums doesn't grow with the queue or the history.

use std::ops::RangeInclusive;

use async_trait::async_trait;

use super::{LedgerError, PausedDirectory, QueueCursor, QueueFilter, QueuePage, QueueStage, ShoreSeen};
use crate::digest::Digest;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{DeliveryCost, DeliveryId, DeliveryState, LinkBytes, UtcDay, Version, WayOf};

type Result<T> = std::result::Result<T, LedgerError>;

/// Sums over the deliveries of one directory to one vessel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The vessel.
    pub vessel: VesselName,
    /// The directory.
    pub directory: DirectoryName,
    /// Number of open deliveries: those that are neither acknowledged nor superseded.
    pub waiting: u64,
    /// Total size of the open deliveries in bytes.
    pub waiting_bytes: u64,
    /// Number of open deliveries that are parked.
    pub parked: u64,
    /// Number of open deliveries that failed and wait for the next attempt, not counting parked ones.
    pub postponed: u64,
    /// Number of acknowledged deliveries.
    pub acknowledged: u64,
    /// Number of expired deliveries.
    pub expired: u64,
    /// Total size of the acknowledged deliveries in bytes.
    pub acknowledged_bytes: u64,
    /// Time of the last acknowledgement, in milliseconds since 1970.
    pub acknowledged_at: Option<i64>,
}

/// Sums over the files of one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryTally {
    /// The directory.
    pub directory: DirectoryName,
    /// Number of files that are not yet delivered to every vessel that takes them.
    pub waiting: u64,
    /// Total size of the waiting files in bytes.
    pub waiting_bytes: u64,
    /// Number of files that were retired since the time passed to [`Reports::summary`].
    pub retired: u64,
    /// Total size of the retired files in bytes.
    pub retired_bytes: u64,
}

/// The recorded state of a vessel, apart from its deliveries. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VesselNote {
    /// The vessel.
    pub vessel: VesselName,
    /// When the vessel was paused; `None` when it is not paused.
    pub paused_at: Option<i64>,
    /// When the pause ends; `None` when it lasts until a person ends it.
    pub paused_until: Option<i64>,
    /// The note of the person who paused the vessel.
    pub pause_note: Option<String>,
    /// Since when the vessel can't be served, and the last known reason; `None` when it can be served.
    pub away: Option<(i64, String)>,
    /// Why the vessel's shell is not used; `None` when the shell was not refused.
    pub shell_refusal: Option<String>,
    /// The time of the last measurement of the network path to the vessel, and the measured rate in bytes per second.
    pub path: Option<(i64, u64)>,
}

/// The file that has waited longest for a vessel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oldest {
    /// The vessel.
    pub vessel: VesselName,
    /// The file's directory.
    pub directory: DirectoryName,
    /// The file.
    pub path: RelPath,
    /// When the file was admitted (recorded for delivery), in milliseconds since 1970.
    pub admitted_at: i64,
}

/// A delivery that failed and waits for the next attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postponed {
    /// The vessel.
    pub vessel: VesselName,
    /// The file's directory.
    pub directory: DirectoryName,
    /// The file.
    pub path: RelPath,
    /// The reason of the last failure, with its remedy.
    pub reason: String,
    /// Time of the next attempt, in milliseconds since 1970.
    pub due_at: i64,
}

/// All sums, computed in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sums by vessel and directory, ordered by vessel, then directory.
    pub tallies: Vec<Tally>,
    /// Sums by directory, ordered by directory.
    pub directories: Vec<DirectoryTally>,
    /// Recorded states of vessels, ordered by vessel; vessels without a recorded state are left out.
    pub notes: Vec<VesselNote>,
    /// The file that has waited longest for each vessel, ordered by vessel; vessels without open deliveries are left
    /// out.
    pub oldest: Vec<Oldest>,
    /// For each vessel with postponed deliveries, the one that is retried first, ordered by vessel.
    pub postponed: Vec<Postponed>,
    /// The paused directories, ordered by name. A pause that has ended is included until it is removed; `has_ended` is
    /// always `false` here.
    pub paused_directories: Vec<PausedDirectory>,
    /// Size of the ledger file, or of the ledger's tables in PostgreSQL, in bytes.
    pub ledger_bytes: u64,
    /// Free space inside the ledger file in bytes; 0 in PostgreSQL.
    pub ledger_free_bytes: u64,
}

/// A parked delivery. It will be retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The vessel that lacks the file.
    pub vessel: VesselName,
    /// The file's directory.
    pub directory: DirectoryName,
    /// The file.
    pub path: RelPath,
    /// The reason of the last failure, with its remedy.
    pub reason: String,
    /// Time of the next attempt, in milliseconds since 1970.
    pub due_at: i64,
}

/// A page of receipts, and the position after which the next page begins: the time and the delivery of an
/// acknowledgement.
pub type ReceiptPage = (Vec<Receipt>, Option<(i64, DeliveryId)>);

/// One acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The vessel that holds the file.
    pub vessel: VesselName,
    /// The file's directory.
    pub directory: DirectoryName,
    /// The file.
    pub path: RelPath,
    /// The file's size in bytes.
    pub size: u64,
    /// The file's SHA-256, if known.
    pub digest: Option<Digest>,
    /// Time of the acknowledgement, in milliseconds since 1970.
    pub acknowledged_at: i64,
    /// How the vessel's copy was verified.
    pub verified: String,
    /// The bytes that the delivery has cost; `None` if they were not counted.
    pub cost: Option<DeliveryCost>,
    /// The file on the vessel, as `directory/path`, that was moved or copied to make this file; `None` if the file was
    /// sent.
    pub made_from: Option<String>,
    /// Bytes of this file that were moved or copied from `made_from`; `None` if there were none, or if an older program
    /// recorded the delivery.
    pub saved_bytes: Option<u64>,
}

/// The reason why a path no longer holds a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A newer version of the path replaced it.
    Superseded,
    /// The source disappeared before every vessel had the version.
    Vanished,
    /// The version's delivery to each vessel that takes the file was acknowledged or had expired.
    Retired,
    /// The version expired before any vessel had it.
    Expired,
}

/// A version and its history. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct VersionHistory {
    /// The version.
    pub version: Version,
    /// When the version was admitted.
    pub admitted_at: i64,
    /// Whether the version's delivery to each vessel that takes the version was acknowledged or has expired.
    pub complete: bool,
    /// When and why the path stopped holding the version; `None` while the path holds it.
    pub ended: Option<(i64, Ending)>,
    /// When a person marked the version as forgotten.
    pub forgotten_at: Option<i64>,
    /// The source's path below `processed/`; `None` if it equals the version's path.
    pub processed: Option<RelPath>,
    /// The version's deliveries, ordered by vessel.
    pub deliveries: Vec<DeliveryHistory>,
}

/// A delivery and its state. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct DeliveryHistory {
    /// The delivery's number in the ledger.
    pub id: DeliveryId,
    /// The receiving vessel.
    pub vessel: VesselName,
    /// The delivery's progress.
    pub state: DeliveryState,
    /// Number of consecutive failures.
    pub failures: u32,
    /// Earliest time of the next attempt.
    pub due_at: i64,
    /// When the delivery expires; `None` if it never does.
    pub expires_at: Option<i64>,
    /// When the ledger recorded that the delivery expired.
    pub expired_at: Option<i64>,
    /// Reason of the last failure, with its remedy.
    pub reason: Option<String>,
    /// Whether the delivery is parked.
    pub parked: bool,
    /// When the delivery was acknowledged, and how the vessel's copy was verified.
    pub acknowledged: Option<(i64, String)>,
    /// The bytes that the delivery has cost so far; `None` if they were not counted.
    pub cost: Option<DeliveryCost>,
    /// The file on the vessel, as `directory/path`, that was moved or copied to make this file; `None` if the file was
    /// sent.
    pub made_from: Option<String>,
    /// Bytes of this file that were moved or copied from `made_from`; `None` if there were none, or if an older program
    /// recorded the delivery.
    pub saved_bytes: Option<u64>,
}

/// The ledger's interface for people's queries.
#[async_trait]
pub trait Reports: Send + Sync {
    /// Returns all sums. The sums of retired files begin at the time `today` (milliseconds since 1970), rounded down to
    /// 15 minutes.
    async fn summary(&self, today: i64) -> Result<Summary>;

    /// Returns the shores that have leases, ordered by name. A ledger file has none.
    async fn shores(&self) -> Result<Vec<ShoreSeen>> {
        Ok(Vec::new())
    }

    /// Returns parked deliveries, ordered by number, at most `limit`. Deliveries that were recorded earlier have lower
    /// numbers.
    async fn troubles(&self, limit: u32) -> Result<Vec<Trouble>>;

    /// Returns a page of a vessel's queue in the order of `stages`: at most `limit` deliveries, beginning at `from`, a
    /// cursor that an earlier page with the same stages returned. Deliveries in queues that belong to no stage come
    /// last. If the filter selects put-off or parked deliveries, or versions, the deliveries are ordered by due time
    /// instead.
    async fn queue(
        &self,
        vessel: &VesselName,
        stages: &[QueueStage],
        filter: &QueueFilter,
        from: Option<&QueueCursor>,
        limit: u32,
    ) -> Result<QueuePage>;

    /// Returns a page of at most `limit` acknowledgements, newest first, and where the next page begins; `None` at the
    /// end. `vessel` selects the acknowledgements of one vessel, and `search` the files whose path contains this text,
    /// as bytes. The page begins after `before`: the time and the delivery of an acknowledgement. A page before the end
    /// may be short, or even empty, because the number of examined deliveries is limited.
    async fn latest_receipts(
        &self,
        vessel: Option<&VesselName>,
        search: Option<&str>,
        before: Option<(i64, DeliveryId)>,
        limit: u32,
    ) -> Result<ReceiptPage>;

    /// Returns the latest acknowledgements, newest first, at most `limit`.
    async fn last_receipts(&self, limit: u32) -> Result<Vec<Receipt>>;

    /// Returns acknowledgements in chronological order, at most `limit`, starting after the acknowledgement of the
    /// delivery `after.1` at the time `after.0`.
    async fn receipts(&self, after: (i64, DeliveryId), limit: u32) -> Result<Vec<Receipt>>;

    /// Returns expired deliveries in the order of their expiry, at most `limit`. `after` is the time of expiry and the
    /// delivery of the last receipt of the previous call. In these receipts, `acknowledged_at` is the time at which the ledger
    /// recorded the expiry, and `verified` is empty.
    async fn expired(&self, after: (i64, DeliveryId), limit: u32) -> Result<Vec<Receipt>>;

    /// Returns the bytes on the link of each vessel, summed over `days`, ordered by vessel; without vessels that have
    /// no bytes.
    async fn link_bytes(&self, days: RangeInclusive<UtcDay>) -> Result<Vec<(VesselName, LinkBytes)>>;

    /// Returns the bytes on the link of each way, summed over `days`, ordered by vessel and way; without ways that have
    /// no bytes.
    async fn way_bytes(&self, days: RangeInclusive<UtcDay>) -> Result<Vec<(WayOf, LinkBytes)>>;

    /// Returns all recorded versions of a path, oldest first. The query scans all versions in the ledger.
    async fn history(&self, directory: &DirectoryName, path: &RelPath) -> Result<Vec<VersionHistory>>;
}
