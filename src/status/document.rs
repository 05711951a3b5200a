//! The status document: what `status --json`, `/api/status` and the page's events give, and what everything else shows.
//!
//! Its form has a number. Fields may be added under the same number; one that changes its meaning or goes takes a new one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Histogram;

/// The number of the document's form.
pub const FORM: u32 = 1;

/// How things stand. Times are RFC 3339 in UTC, sizes are bytes, rates bytes per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// The number of this form: 1.
    pub version: u32,
    /// When it was put together.
    pub at: Timestamp,
    /// The running program; `null`: it does not run, and the rest is what the ledger knows.
    pub daemon: Option<Daemon>,
    /// Every configured vessel, in the order of the settings.
    pub vessels: Vec<VesselStatus>,
    /// Every configured directory, in the order of the settings, then others for which something still waits.
    pub directories: Vec<DirectoryStatus>,
    /// Parked deliveries, oldest first, at most 50.
    pub parked: Vec<Trouble>,
    /// The last deliveries, newest first, at most 20.
    pub deliveries: Vec<Delivered>,
    /// The last errors since the program started, newest first, at most 20.
    pub errors: Vec<ErrorStatus>,
    /// The ledger.
    pub ledger: LedgerStatus,
    /// The disks of the shore that matter: the ledger's, then those of the directories, each once.
    #[serde(default)]
    pub disks: Vec<DiskStatus>,
}

/// A number of files and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// How many files.
    pub files: u64,
    /// How many bytes they have in all.
    pub bytes: u64,
}

/// The running program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    /// Its release, as `contentmonster --version` says it.
    pub release: String,
    /// When it started.
    pub started: Timestamp,
    /// Whether all that lay in the directories at the start is in the ledger.
    pub ready: bool,
    /// The last time that the settings were read anew; `null`: not since it started.
    #[serde(default)]
    pub reload: Option<Reload>,
}

/// What came of reading the settings anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// When.
    pub at: Timestamp,
    /// What is wrong with them, each with its place; empty: they hold. Otherwise those of before do.
    pub problems: Vec<String>,
    /// Keys of `[MONSTER]` that changed and wait for a restart.
    pub needs_restart: Vec<String>,
}

/// One vessel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VesselStatus {
    /// Its name in the settings.
    pub name: String,
    /// How it is connected.
    pub link: Link,
    /// What it still has to get, whole files; those on their way included.
    pub backlog: Amount,
    /// How many of those are parked.
    pub parked: u64,
    /// The file that has waited longest.
    pub oldest: Option<Oldest>,
    /// How many deliveries are under way.
    pub in_flight: u64,
    /// How many bytes of those it holds already.
    pub in_flight_bytes: u64,
    /// The largest of them, at most 10.
    pub transfers: Vec<Transfer>,
    /// Bytes per second that go out to it now.
    pub rate: u64,
    /// How many seconds the backlog takes at this rate; `null` where nothing waits or moves.
    pub eta_seconds: Option<u64>,
    /// What it acknowledged since the ledger was made.
    pub acknowledged: Amount,
    /// When it last acknowledged something.
    pub last_acknowledged: Option<Timestamp>,
    /// Bytes of files sent to it since the program started, those that were sent again included.
    pub sent_bytes: u64,
    /// Errors since the program started, by kind.
    pub errors: BTreeMap<String, u64>,
    /// How long deliveries took since the program started, in seconds.
    pub took: Histogram,
}

/// How a vessel is connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// In one word.
    pub state: LinkState,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Why it is away, and what mends that.
    pub reason: Option<String>,
    /// When it is tried again.
    pub next_try: Option<Timestamp>,
}

/// How a vessel is connected, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// It is being served.
    Connected,
    /// The first connection is being made.
    Connecting,
    /// It can't be served for now.
    Away,
    /// It is left alone until somebody resumes it.
    Paused,
    /// The program does not run.
    Off,
}

impl LinkState {
    /// The word.
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
    /// The file; what can't be printed is escaped.
    pub path: String,
    /// Since when it waits.
    pub since: Timestamp,
}

/// A delivery under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// The file's directory.
    pub directory: String,
    /// The file; what can't be printed is escaped.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// How many of them the vessel holds.
    pub taken: u64,
    /// When this attempt began.
    pub since: Timestamp,
}

/// One directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectoryStatus {
    /// Its name in the settings.
    pub name: String,
    /// Whether the settings name it.
    pub configured: bool,
    /// Files that some vessel still lacks.
    pub waiting: Amount,
    /// How many deliveries of its files are under way.
    pub in_flight: u64,
    /// How many deliveries of its files are parked.
    pub parked: u64,
    /// What was moved to `processed/` since midnight, local time.
    pub retired_today: Amount,
    /// What keeps it, or something in it, from being used.
    pub trouble: Option<String>,
}

/// A parked delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// The vessel that doesn't get it.
    pub vessel: String,
    /// The file's directory.
    pub directory: String,
    /// The file; what can't be printed is escaped.
    pub path: String,
    /// Why, and what mends it.
    pub reason: String,
    /// When it is tried again.
    pub next_try: Timestamp,
    /// The ledger's number of the delivery.
    pub delivery: i64,
}

/// A delivery that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivered {
    /// The vessel that holds it.
    pub vessel: String,
    /// The file's directory.
    pub directory: String,
    /// The file; what can't be printed is escaped.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was acknowledged.
    pub at: Timestamp,
    /// How the vessel's copy was verified.
    pub verified: String,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorStatus {
    /// When.
    pub at: Timestamp,
    /// With which vessel, if with one.
    pub vessel: Option<String>,
    /// With which file or directory, if with one.
    pub file: Option<String>,
    /// What sort of trouble it is.
    pub kind: String,
    /// What, and what mends it.
    pub reason: String,
}

/// The ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// Its file.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// How much of that is free for what comes.
    #[serde(default)]
    pub free_bytes: u64,
}

/// A disk of the shore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// What lies on it.
    pub path: String,
    /// How much room is left on it.
    pub free_bytes: u64,
    /// Whether that is less than `MinFree`. Where it is the ledger's disk, no new files are taken in.
    pub low: bool,
}
