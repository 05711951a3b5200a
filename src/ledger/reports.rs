//! People's queries to the ledger, independent of the database: sums, a file's history, receipts. None of them changes
//! anything, and no sum takes longer as the queue or the history grows.

use async_trait::async_trait;

use super::LedgerError;
use crate::digest::Digest;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{DeliveryId, DeliveryState, Version};

type Result<T> = std::result::Result<T, LedgerError>;

/// Sums over the deliveries of one directory to one vessel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The vessel.
    pub vessel: VesselName,
    /// The directory.
    pub directory: DirectoryName,
    /// Number of deliveries that are neither acknowledged nor superseded.
    pub waiting: u64,
    /// Their size in bytes.
    pub waiting_bytes: u64,
    /// Number of them that are parked.
    pub parked: u64,
    /// Number of deliveries acknowledged so far.
    pub acknowledged: u64,
    /// Their size in bytes.
    pub acknowledged_bytes: u64,
    /// Time of the last acknowledgement, in milliseconds since 1970.
    pub acknowledged_at: Option<i64>,
}

/// Sums over the files of one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryTally {
    /// The directory.
    pub directory: DirectoryName,
    /// Number of files that at least one vessel lacks.
    pub waiting: u64,
    /// Their size in bytes.
    pub waiting_bytes: u64,
    /// Number of files retired since the requested time.
    pub retired: u64,
    /// Their size in bytes.
    pub retired_bytes: u64,
}

/// State of a vessel besides its deliveries. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VesselNote {
    /// The vessel.
    pub vessel: VesselName,
    /// When it was paused.
    pub paused_at: Option<i64>,
    /// Since when it can't be served, and the last known reason.
    pub away: Option<(i64, String)>,
    /// Why its shell is not used, if it was refused.
    pub shell_refusal: Option<String>,
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
    /// When it was admitted, in milliseconds since 1970.
    pub admitted_at: i64,
}

/// All sums at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Ordered by vessel, then directory.
    pub tallies: Vec<Tally>,
    /// Ordered by directory.
    pub directories: Vec<DirectoryTally>,
    /// Ordered by vessel; vessels without recorded state are left out.
    pub notes: Vec<VesselNote>,
    /// Ordered by vessel; vessels without open deliveries are left out.
    pub oldest: Vec<Oldest>,
    /// Size of the ledger in bytes.
    pub ledger_bytes: u64,
    /// Free space inside the ledger in bytes.
    pub ledger_free_bytes: u64,
}

/// A failed delivery that will be retried.
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
    /// The reason and the remedy.
    pub reason: String,
    /// Time of the next attempt, in milliseconds since 1970.
    pub due_at: i64,
}

/// One acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The vessel that holds it.
    pub vessel: VesselName,
    /// The file's directory.
    pub directory: DirectoryName,
    /// The file.
    pub path: RelPath,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub digest: Option<Digest>,
    /// Time of the acknowledgement, in milliseconds since 1970.
    pub acknowledged_at: i64,
    /// How the vessel's copy was verified.
    pub verified: String,
}

/// Why a path no longer holds a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A newer version replaced it.
    Superseded,
    /// The source disappeared before every vessel had it.
    Vanished,
    /// Every vessel had it.
    Retired,
}

/// A version and its history. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct VersionStory {
    /// The version.
    pub version: Version,
    /// When it was admitted.
    pub admitted_at: i64,
    /// Whether every vessel that takes it has acknowledged it.
    pub complete: bool,
    /// When and why it ended.
    pub ended: Option<(i64, Ending)>,
    /// When a person marked it as forgotten.
    pub forgotten_at: Option<i64>,
    /// Its path below `processed/`, where it differs from its own.
    pub processed: Option<RelPath>,
    /// Its deliveries, ordered by vessel.
    pub deliveries: Vec<DeliveryStory>,
}

/// A delivery and its state. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct DeliveryStory {
    /// Its number in the ledger.
    pub id: DeliveryId,
    /// The receiving vessel.
    pub vessel: VesselName,
    /// Its progress.
    pub state: DeliveryState,
    /// Number of consecutive failures.
    pub failures: u32,
    /// Earliest time of the next attempt.
    pub due_at: i64,
    /// Reason of the last failure, and the remedy.
    pub reason: Option<String>,
    /// Whether it is parked.
    pub parked: bool,
    /// When it was acknowledged, and how the copy was verified.
    pub acknowledged: Option<(i64, String)>,
}

/// The ledger's queries for people.
#[async_trait]
pub trait Reports: Send + Sync {
    /// Returns all sums; `today` is the start of today in milliseconds since 1970, to the quarter of an hour.
    async fn summary(&self, today: i64) -> Result<Summary>;

    /// Returns parked deliveries, oldest first, at most `limit`.
    async fn troubles(&self, limit: u32) -> Result<Vec<Trouble>>;

    /// Returns the last acknowledgements, newest first, at most `limit`.
    async fn last_receipts(&self, limit: u32) -> Result<Vec<Receipt>>;

    /// Returns acknowledgements in chronological order, at most `limit`: those after the delivery `after.1`, which was
    /// acknowledged at the time `after.0`.
    async fn receipts(&self, after: (i64, DeliveryId), limit: u32) -> Result<Vec<Receipt>>;

    /// Returns all recorded versions of a path, oldest first. Scans all versions.
    async fn history(&self, directory: &DirectoryName, path: &RelPath) -> Result<Vec<VersionStory>>;
}
