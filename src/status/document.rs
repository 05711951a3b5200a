//! The status document, which `status --json`, `/api/status` and the page's events deliver, and from which all other
//! views are made.
//!
//! Its format has a version number. Fields may be added under the same number; changing or removing one requires a new
//! number.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Histogram;

/// The version of the document's format.
pub const FORM: u32 = 1;

/// The status. Times are RFC 3339 in UTC, sizes are bytes, rates bytes per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// The version of this format: 1.
    pub version: u32,
    /// When it was assembled.
    pub at: Timestamp,
    /// The running program; `null`: it doesn't run, and the rest comes from the ledger alone.
    pub daemon: Option<Daemon>,
    /// Every configured vessel, in the order of the settings.
    pub vessels: Vec<VesselStatus>,
    /// Every configured directory, in the order of the settings, then others with open deliveries.
    pub directories: Vec<DirectoryStatus>,
    /// Parked deliveries, oldest first, at most 50.
    pub parked: Vec<Trouble>,
    /// The last deliveries, newest first, at most 20.
    pub deliveries: Vec<Delivered>,
    /// The last errors since the program started, newest first, at most 20.
    pub errors: Vec<ErrorStatus>,
    /// The ledger.
    pub ledger: LedgerStatus,
    /// The relevant disks of the shore: the ledger's, then those of the directories, each once.
    #[serde(default)]
    pub disks: Vec<DiskStatus>,
}

/// A number of files and their total size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Number of files.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// The running program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    /// Its release, as in `contentmonster --version`.
    pub release: String,
    /// When it started.
    pub started: Timestamp,
    /// Whether all files that were in the directories at the start are in the ledger.
    pub ready: bool,
    /// The last reload of the settings; `null`: none since the start.
    #[serde(default)]
    pub reload: Option<Reload>,
}

/// The result of a reload of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Time of the reload.
    pub at: Timestamp,
    /// Problems of the new settings, each with its place. If there are any, the previous settings stay in force.
    pub problems: Vec<String>,
    /// Changed keys of `[MONSTER]` that require a restart.
    pub needs_restart: Vec<String>,
}

/// One vessel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VesselStatus {
    /// Its name in the settings.
    pub name: String,
    /// Its connection.
    pub link: Link,
    /// Whole files that it lacks, including those in progress.
    pub backlog: Amount,
    /// Number of those that are parked.
    pub parked: u64,
    /// The file that has waited longest.
    pub oldest: Option<Oldest>,
    /// Number of deliveries in progress.
    pub in_flight: u64,
    /// Bytes of those that it already holds.
    pub in_flight_bytes: u64,
    /// The largest of them, at most 10.
    pub transfers: Vec<Transfer>,
    /// Current rate to it in bytes per second.
    pub rate: u64,
    /// Seconds that the backlog takes at this rate; `null` where there is no backlog or no progress.
    pub eta_seconds: Option<u64>,
    /// Files acknowledged since the ledger was created.
    pub acknowledged: Amount,
    /// Time of the last acknowledgement.
    pub last_acknowledged: Option<Timestamp>,
    /// Bytes of files sent to it since the program started, including repeated ones.
    pub sent_bytes: u64,
    /// Errors since the program started, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Durations of deliveries since the program started, in seconds.
    pub took: Histogram,
}

/// The state of a vessel's connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The state.
    pub state: LinkState,
    /// Since when it is in this state.
    pub since: Option<Timestamp>,
    /// Why it is away, and the remedy.
    pub reason: Option<String>,
    /// Time of the next attempt to connect.
    pub next_try: Option<Timestamp>,
}

/// The kind of state of a vessel's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// It is being served.
    Connected,
    /// The first connection is being made.
    Connecting,
    /// It can't be served for now.
    Away,
    /// It is not served until a person resumes it.
    Paused,
    /// The program doesn't run.
    Off,
}

impl LinkState {
    /// Returns the state as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Connecting => "connecting",
            Self::Away => "away",
            Self::Paused => "paused",
            Self::Off => "off",
        }
    }
}

/// The file that has waited longest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Oldest {
    /// Its directory.
    pub directory: String,
    /// The file; unprintable characters are escaped.
    pub path: String,
    /// When it was admitted.
    pub since: Timestamp,
}

/// A delivery in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// The file's directory.
    pub directory: String,
    /// The file; unprintable characters are escaped.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Number of bytes that the vessel holds.
    pub taken: u64,
    /// Start of this attempt.
    pub since: Timestamp,
}

/// One directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectoryStatus {
    /// Its name in the settings.
    pub name: String,
    /// Whether it is in the settings.
    pub configured: bool,
    /// Files that at least one vessel lacks.
    pub waiting: Amount,
    /// Number of its deliveries in progress.
    pub in_flight: u64,
    /// Number of its parked deliveries.
    pub parked: u64,
    /// Files moved to `processed/` since midnight, local time.
    pub retired_today: Amount,
    /// Why it, or a file in it, can't be used.
    pub trouble: Option<String>,
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
    /// The reason and the remedy.
    pub reason: String,
    /// Time of the next attempt.
    pub next_try: Timestamp,
    /// The delivery's number in the ledger.
    pub delivery: i64,
}

/// An acknowledged delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivered {
    /// The vessel that holds it.
    pub vessel: String,
    /// The file's directory.
    pub directory: String,
    /// The file; unprintable characters are escaped.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was acknowledged.
    pub at: Timestamp,
    /// How the vessel's copy was verified.
    pub verified: String,
}

/// An error.
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
    /// Its file.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Free space inside the file.
    #[serde(default)]
    pub free_bytes: u64,
}

/// A disk of the shore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// The path by which it was found.
    pub path: String,
    /// Free space.
    pub free_bytes: u64,
    /// Whether `free_bytes` is less than `MinFree`. While this is so on the ledger's disk, no new files are admitted.
    pub low: bool,
}
