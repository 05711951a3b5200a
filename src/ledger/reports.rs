//! What people can ask of the ledger, whatever database keeps it: sums, a file's history, receipts. None of it changes
//! anything, and none of the sums takes longer when more is waiting or was delivered.

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
    /// Deliveries that are neither acknowledged nor superseded.
    pub waiting: u64,
    /// How many bytes those are.
    pub waiting_bytes: u64,
    /// How many of them are parked.
    pub parked: u64,
    /// Deliveries acknowledged so far.
    pub acknowledged: u64,
    /// How many bytes those were.
    pub acknowledged_bytes: u64,
    /// When the last one was acknowledged, in milliseconds since 1970.
    pub acknowledged_at: Option<i64>,
}

/// Sums over the files of one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryTally {
    /// The directory.
    pub directory: DirectoryName,
    /// Files that some vessel still lacks.
    pub waiting: u64,
    /// How many bytes those are.
    pub waiting_bytes: u64,
    /// Files retired since the moment that was asked for.
    pub retired: u64,
    /// How many bytes those were.
    pub retired_bytes: u64,
}

/// What is known of a vessel besides its deliveries. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VesselNote {
    /// The vessel.
    pub vessel: VesselName,
    /// Since when it is paused.
    pub paused_at: Option<i64>,
    /// Since when it can't be served, and why, as far as that was last heard.
    pub away: Option<(i64, String)>,
    /// Why its shell is not used, where that was found out.
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
    /// Since when, in milliseconds since 1970.
    pub admitted_at: i64,
}

/// All sums, of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// By vessel, then directory.
    pub tallies: Vec<Tally>,
    /// By directory.
    pub directories: Vec<DirectoryTally>,
    /// By vessel; vessels of which nothing is known are left out.
    pub notes: Vec<VesselNote>,
    /// By vessel; vessels for which nothing waits are left out.
    pub oldest: Vec<Oldest>,
    /// How large the ledger is, in bytes.
    pub ledger_bytes: u64,
    /// How much of that is free for what comes, in bytes.
    pub ledger_free_bytes: u64,
}

/// A delivery that failed and is to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// The vessel that doesn't get it.
    pub vessel: VesselName,
    /// The file's directory.
    pub directory: DirectoryName,
    /// The file.
    pub path: RelPath,
    /// Why, and what mends it.
    pub reason: String,
    /// When it is tried again, in milliseconds since 1970.
    pub due_at: i64,
}

/// One acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which delivery.
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
    /// When, in milliseconds since 1970.
    pub acknowledged_at: i64,
    /// How the vessel's copy was verified.
    pub verified: String,
}

/// Why a version is not what its path holds any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A newer version took its place.
    Superseded,
    /// The source went away before every vessel had it.
    Vanished,
    /// Every vessel had it.
    Retired,
}

/// A version and what became of it. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct VersionStory {
    /// The version.
    pub version: Version,
    /// When it was taken in.
    pub admitted_at: i64,
    /// Whether every vessel that takes it has acknowledged it.
    pub complete: bool,
    /// When and why it ended.
    pub ended: Option<(i64, Ending)>,
    /// When somebody had it forgotten.
    pub forgotten_at: Option<i64>,
    /// Its path below `processed/`, where that is not its own.
    pub processed: Option<RelPath>,
    /// Its deliveries, by vessel.
    pub deliveries: Vec<DeliveryStory>,
}

/// A delivery and how it stands. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct DeliveryStory {
    /// The ledger's number.
    pub id: DeliveryId,
    /// To this vessel.
    pub vessel: VesselName,
    /// How far it has come.
    pub state: DeliveryState,
    /// How often it failed in a row.
    pub failures: u32,
    /// When it may be tried next.
    pub due_at: i64,
    /// Why it failed last, and what mends it.
    pub reason: Option<String>,
    /// Whether it is set aside.
    pub parked: bool,
    /// When it was acknowledged, and how the copy was verified.
    pub acknowledged: Option<(i64, String)>,
}

/// The ledger's answers for people.
#[async_trait]
pub trait Reports: Send + Sync {
    /// All sums; `today` is when today began, in milliseconds since 1970 (to the quarter of an hour).
    async fn summary(&self, today: i64) -> Result<Summary>;

    /// Parked deliveries, oldest first, at most `limit`.
    async fn troubles(&self, limit: u32) -> Result<Vec<Trouble>>;

    /// The last acknowledgements, newest first, at most `limit`.
    async fn last_receipts(&self, limit: u32) -> Result<Vec<Receipt>>;

    /// Acknowledgements in the order they were made, at most `limit`: those after the one that was acknowledged at the
    /// time `after.0` and has the number `after.1`.
    async fn receipts(&self, after: (i64, DeliveryId), limit: u32) -> Result<Vec<Receipt>>;

    /// All versions of a path there ever were, oldest first. Reads through all versions.
    async fn history(&self, directory: &DirectoryName, path: &RelPath) -> Result<Vec<VersionStory>>;
}
