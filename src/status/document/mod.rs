//! The status document, which `status --json`, `/api/status` and `/api/events` deliver. All other views of the status
//! are made from this document.
//!
//! The document's format has a version number. Fields may be added under the same number; changing or removing a field
//! requires a new number.

mod vessel;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use vessel::{Held, Link, LinkBytes, LinkState, Oldest, PutOff, QueueStatus, Transfer, VesselStatus, WayStatus};

/// The version of the document's format.
pub const FORM: u32 = 1;

/// The status of the program. Times are RFC 3339 in UTC, sizes are bytes, rates are bytes per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// The version of the document's format: 1.
    pub version: u32,
    /// When the document was assembled.
    pub at: Timestamp,
    /// The running program; `null` when it doesn't run, and the document is made from the ledger alone.
    pub daemon: Option<Daemon>,
    /// All configured vessels, in the order of the settings.
    pub vessels: Vec<VesselStatus>,
    /// All configured directories, in the order of the settings, then other directories with open deliveries.
    pub directories: Vec<DirectoryStatus>,
    /// Parked deliveries, earliest recorded first, at most 50.
    pub parked: Vec<Trouble>,
    /// The latest acknowledged deliveries, newest first, at most 20.
    pub deliveries: Vec<Delivered>,
    /// The latest errors since the program started, newest first, at most 20.
    pub errors: Vec<ErrorStatus>,
    /// The commands, the webhooks and the heartbeat that have run since the program started.
    #[serde(default)]
    pub hooks: Vec<HookStatus>,
    /// The budgets of the settings.
    #[serde(default)]
    pub budgets: Vec<BudgetStatus>,
    /// The ledger.
    pub ledger: LedgerStatus,
    /// The disks that hold the ledger and the directories, each once, the ledger's disk first.
    #[serde(default)]
    pub disks: Vec<DiskStatus>,
    /// The shores that use the ledger, by name; empty if the ledger is a file.
    #[serde(default)]
    pub shores: Vec<ShoreStatus>,
}

impl Document {
    /// Returns whether there is at most one shore, and it is not drained.
    pub fn has_one_shore(&self) -> bool {
        self.shores.len() < 2 && self.shores.iter().all(|shore| !shore.drained)
    }
}

/// A shore that uses the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShoreStatus {
    /// The shore's `ShoreName`; empty for a program that uses the ledger alone.
    pub name: String,
    /// The shore's host and process.
    pub holder: String,
    /// When the shore started, by the database's clock.
    pub since: Timestamp,
    /// Time until the shore's lease expires, in milliseconds; negative if it has expired.
    pub lease_ms: i64,
    /// How long the last renewal of the lease took, in microseconds: the latency of the database.
    pub latency_us: Option<i64>,
    /// Whether the shore is drained: it serves no vessel and no directory.
    pub drained: bool,
    /// The vessels that the shore serves.
    pub vessels: Vec<ServedStatus>,
    /// The directories that the shore scans and retires.
    pub directories: Vec<ServedStatus>,
    /// Whether the shore prunes the ledger and sends notifications.
    pub housekeeping: bool,
}

/// A vessel or a directory of a shore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServedStatus {
    /// The name in the settings.
    pub name: String,
    /// Since when the shore serves the vessel or the directory.
    pub since: Timestamp,
}

/// A number of files and their total size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Number of files.
    pub files: u64,
    /// Total size of the files in bytes.
    pub bytes: u64,
}

/// The running program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    /// The program's release, as in `contentmonster --version`.
    pub release: String,
    /// When the program started.
    pub started: Timestamp,
    /// Whether all files that were in the directories when the program started are in the ledger.
    pub ready: bool,
    /// The last reload of the settings; `null` when there was no reload since the start.
    #[serde(default)]
    pub reload: Option<Reload>,
}

/// The result of a reload of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Time of the reload.
    pub at: Timestamp,
    /// Problems of the new settings, each with its place in the file. With any problem, the previous settings stay in
    /// force.
    pub problems: Vec<String>,
    /// Changed keys of `[MONSTER]` that require a restart.
    pub needs_restart: Vec<String>,
}

/// A budget of the settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// `vessel` or `link`.
    pub of: String,
    /// The name of the vessel or the link.
    pub name: String,
    /// `day` or `month`, in UTC.
    pub period: String,
    /// The budget in bytes.
    pub bytes: u64,
    /// The bytes on the link in the current period, as recorded in the ledger.
    pub used: u64,
    /// When the next period begins.
    pub ends: Timestamp,
    /// Number of bytes at the end of the budget that only the priorities in `reserve_for` may use; 0 without
    /// `BudgetReserve`.
    #[serde(default)]
    pub reserve_bytes: u64,
    /// The priorities that may use the reserve, separated by commas; `null` without `BudgetReserve`.
    #[serde(default)]
    pub reserve_for: Option<String>,
    /// The state of the budget: `open`, `reserve` (only the reserve is left) or `spent`.
    #[serde(default)]
    pub state: String,
}

/// The status of one directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectoryStatus {
    /// The directory's name in the settings.
    pub name: String,
    /// Whether the directory is in the settings.
    pub configured: bool,
    /// The shore that scans and retires the directory; `null` if the ledger is a file, or no shore serves the
    /// directory.
    #[serde(default)]
    pub shore: Option<String>,
    /// Files that at least one vessel lacks.
    pub waiting: Amount,
    /// Number of deliveries in progress.
    pub in_flight: u64,
    /// Number of parked deliveries.
    pub parked: u64,
    /// Number of deliveries that expired since the ledger was created.
    #[serde(default)]
    pub expired: u64,
    /// Files moved to `processed/` since midnight in local time.
    pub retired_today: Amount,
    /// Why the directory, or a file in it, can't be used.
    pub trouble: Option<String>,
    /// The directory's pause; `null` when it is not paused.
    #[serde(default)]
    pub pause: Option<DirectoryPause>,
}

/// The pause of a directory: its files are sent to no vessel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectoryPause {
    /// Since when the directory is paused.
    pub since: Timestamp,
    /// End of the pause; `null` if a person must end it.
    pub until: Option<Timestamp>,
    /// The note of the person who paused it.
    pub note: Option<String>,
}

/// A command, a webhook or the heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookStatus {
    /// `command` and the program, or `webhook` or `heartbeat` and the address without secrets.
    pub name: String,
    /// Number of failures since the program started.
    pub failures: u64,
    /// The last failure; `null` if the last use succeeded.
    pub failing: Option<String>,
    /// When the first of the current run of failures happened; `null` if the last use succeeded.
    pub since: Option<Timestamp>,
}

/// A parked delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// The vessel that lacks the file.
    pub vessel: String,
    /// The file's directory.
    pub directory: String,
    /// The file; unprintable characters are escaped.
    pub path: String,
    /// The reason of the last failure, and the remedy.
    pub reason: String,
    /// Time of the next attempt.
    pub next_try: Timestamp,
    /// The delivery's number in the ledger.
    pub delivery: i64,
}

/// An acknowledged delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivered {
    /// The vessel that holds the file.
    pub vessel: String,
    /// The file's directory.
    pub directory: String,
    /// The file; unprintable characters are escaped.
    pub path: String,
    /// The file's size in bytes.
    pub bytes: u64,
    /// When the delivery was acknowledged.
    pub at: Timestamp,
    /// How the vessel's copy was verified.
    pub verified: String,
}

/// An error that the program reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorStatus {
    /// Time of the error.
    pub at: Timestamp,
    /// The vessel concerned, if any.
    pub vessel: Option<String>,
    /// The file or directory concerned, if any.
    pub file: Option<String>,
    /// The kind of error.
    pub kind: String,
    /// The error and the remedy.
    pub reason: String,
}

/// The ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// The path of the ledger's file, or the address of its database.
    pub file: String,
    /// Size of the file, or of the tables, in bytes.
    pub bytes: u64,
    /// Free space inside the file in bytes.
    #[serde(default)]
    pub free_bytes: u64,
    /// Why the ledger can't be used now; `null` if it can. While it can't, its figures are the last known ones.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// A disk of the shore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// The path by which the disk was found.
    pub path: String,
    /// Free space in bytes.
    pub free_bytes: u64,
    /// Whether `free_bytes` is less than `MinFree`. While the ledger's disk is low, no new files are admitted.
    pub low: bool,
    /// Whether the disk holds the ledger.
    #[serde(default)]
    pub holds_ledger: bool,
}
