//! What the operator configured: the settings file, parsed, checked and typed.
//!
//! Reads the file, the secrets it names and the ssh config, and asks the disk where each `Location` leads; nothing else: no
//! network, no ledger, no directory is listed.
//!
//! The text goes through three steps. First each line is looked at by itself, malformed ones are refused, and rust-ini
//! gives sections, keys and values. Then each section is typed, its values taken from itself, from `[DEFAULT]`, or from
//! the table of keys. Last come the checks between sections. No step stops at its first problem: all of them are
//! collected, each with its line, and shown at once.

mod changes;
mod checks;
mod environment;
mod keeping;
mod keys;
mod lines;
mod link;
mod load;
mod local;
mod logging;
mod mirror;
mod overlap;
mod own_files;
mod patterns;
mod problems;
mod rate;
mod reach;
mod secrets;
mod sections;
mod ssh_config;
mod ssh_host;
mod telling;
mod units;
mod values;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::names::{DirectoryName, RelPath, RemotePath, VesselName};

pub use environment::Environment;
pub use keeping::KeepProcessed;
pub(crate) use keys::nearest;
pub use keys::{KnownKey, Preset, SectionKind, known_keys};
pub use link::{Assembly, CongestionControl, Connections, Delta, Shell};
pub use local::{LocalPlace, LocalTarget};
pub use logging::{LogFormat, LogLevel, LogTarget, Logging};
pub use mirror::{Links, MaxDelete, Mode};
pub use overlap::clash;
pub use own_files::OwnFiles;
pub use patterns::{Globs, Patterns};
pub use problems::{Problem, SettingsError};
pub use rate::RateSchedule;
pub use secrets::Secret;
#[cfg(any(test, fuzzing))]
pub use ssh_config::ssh_config_text;
pub use ssh_host::{AgentChoice, HostKeyPolicy, SshHost};
pub use telling::{Hooks, Telling, WebAddress};

/// A settings file to start from: every key with its meaning, unit, range and default.
pub const EXAMPLE: &str = include_str!("../../settings.example.ini");

/// A whole settings file, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The settings file.
    pub file: PathBuf,
    /// `[MONSTER]`: the program as a whole.
    pub monster: Monster,
    /// Each `[Directory x]`, in the file's order.
    pub directories: Vec<Directory>,
    /// Each `[Vessel y]`, in the file's order.
    pub vessels: Vec<Vessel>,
    /// What is allowed but unwise, a line each, to be logged once.
    pub warnings: Vec<String>,
}

/// `[MONSTER]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Monster {
    /// `ChunkSize`: size of the pieces that files are cut into, in bytes.
    pub chunk_size: u64,
    /// `Cache`: how much of the sources is kept in memory at the most, in bytes.
    pub cache: u64,
    /// `Database`: the ledger's file, absolute.
    pub database: PathBuf,
    /// `Listen`: where the status page is served; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// `ListenToken` or `ListenTokenFile`: who has it may give orders on the page; `None`: nobody may.
    pub listen_token: Option<Secret>,
    /// `RateLimit`: how fast bytes of files may go out to all vessels together.
    pub rate_limit: RateSchedule,
    /// `LogLevel`, `LogFormat` and `LogFile`.
    pub logging: Logging,
    /// `Simulate`: whether it is only said what would be done.
    pub simulate: bool,
    /// `MinFree`: the room that must be left on the ledger's disk for new files to be taken in, in bytes.
    pub min_free: u64,
    /// `KeepHistory`: how long the ledger remembers what has ended; `None`: for ever.
    pub keep_history: Option<Duration>,
    /// `KeepProcessed`, of directories that don't say.
    pub keep_processed: KeepProcessed,
    /// `OnDelivered`, `OnRetired`, `OnParked`, of directories that don't say.
    pub hooks: Hooks,
    /// `Webhook`, `Heartbeat`, and what goes with them.
    pub telling: Telling,
}

/// `[Directory x]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Directory {
    /// The `x`.
    pub name: DirectoryName,
    /// `Location`: where it lies on the shore, absolute.
    pub location: PathBuf,
    /// `RemoteLocation`: where its files go on the vessels; default: the same path as on the shore.
    pub remote_location: RemotePath,
    /// `SettleTime`: how long a file that nobody was seen to close must stay unchanged before it counts as finished.
    pub settle_time: Duration,
    /// `RescanInterval`: how often the whole directory is looked through although the kernel reports changes.
    pub rescan_interval: Duration,
    /// `IgnoreNames`: file names that are left alone.
    pub ignore_names: Globs,
    /// `Delta`: whether of a changed file only the changes are sent.
    pub delta: Delta,
    /// `Mode`: whether sources retire or stay.
    pub mode: Mode,
    /// `Recursive`: whether what lies in directories below it is taken too.
    pub recursive: bool,
    /// `Delete`: whether a mirror's deletions are repeated on the vessels.
    pub delete: bool,
    /// `MaxDelete`: how many deletions are repeated in one go.
    pub max_delete: MaxDelete,
    /// `Consumed`: whether a file that is at neither of its names after a rename was delivered, where the answer was lost.
    pub consumed: bool,
    /// `Links`: what is done with symbolic links.
    pub links: Links,
    /// `Owner`: whether owner and group are set on the vessels.
    pub owner: bool,
    /// `Interval`: how often changes go out at the most; zero: at once.
    pub interval: Duration,
    /// `Include`: what is taken; empty: everything.
    pub include: Patterns,
    /// `Exclude`: what is left alone.
    pub exclude: Patterns,
    /// `MinSize` and `MaxSize`: how large a file is that is taken, in bytes.
    pub sizes: RangeInclusive<u64>,
    /// `MinAge`: how long ago a file must have changed last.
    pub min_age: Duration,
    /// `KeepProcessed`: what becomes of delivered sources.
    pub keep_processed: KeepProcessed,
    /// `OnDelivered`, `OnRetired`, `OnParked`.
    pub hooks: Hooks,
    /// Where `Location` is one file: its name; `location` is then the directory that holds it, and the remote locations are
    /// the file's own. Nobody can know before looking at the disk: see [`Directory::of_one_file`].
    pub only: Option<RelPath>,
    /// The program's own files, which are never taken.
    pub own_files: Arc<OwnFiles>,
}

impl Directory {
    /// Whether sources stay where they are.
    pub fn is_mirror(&self) -> bool {
        self.mode == Mode::Mirror
    }

    /// The same directory, for a `Location` that turned out to be a file.
    #[must_use]
    pub fn of_one_file(self) -> Self {
        let name = self.location.file_name().and_then(|name| RelPath::new(name.as_bytes()).ok());
        match (name, self.location.parent()) {
            (Some(name), Some(parent)) => {
                Self { only: Some(name), location: parent.to_owned(), recursive: false, ..self }
            }
            _ => self,
        }
    }
}

/// `[Vessel y]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Vessel {
    /// The `y`.
    pub name: VesselName,
    /// `Transport = local`: it is this host, without SSH.
    pub local: Option<LocalTarget>,
    /// `Address`, `Port`, `Username`, keys and host keys, with what the ssh config says of them.
    pub ssh: SshHost,
    /// `ProxyJump`: the hops on the way to it, the nearest first.
    pub hops: Vec<SshHost>,
    /// `TempDir`: where parts are kept on the vessel.
    pub temp_dir: RemotePath,
    /// `Timeout`: the deadline for connecting, logging in, and any answer.
    pub timeout: Duration,
    /// `ReconnectWait`: the longest wait before it is connected to again after connections failed.
    pub reconnect_wait: Duration,
    /// `Dirs`: the only directories that go to this vessel; `None`: all.
    pub dirs: Option<BTreeSet<DirectoryName>>,
    /// `IgnoreDirs`: the directories that don't go to this vessel.
    pub ignore_dirs: BTreeSet<DirectoryName>,
    /// `RemoteLocation.x`: where directory x goes on this vessel instead of its own `RemoteLocation`.
    pub remote_locations: BTreeMap<DirectoryName, RemotePath>,
    /// `Connections`: how many connections are made to it.
    pub connections: Connections,
    /// `CongestionControl`: what its connections send with.
    pub congestion_control: CongestionControl,
    /// `Compression`: whether SSH compresses, where the vessel offers it.
    pub compression: bool,
    /// `RateLimit`: how fast bytes of files may go out to it, over all its connections together.
    pub rate_limit: RateSchedule,
    /// `Assembly`: how files of several chunks are put together on it.
    pub assembly: Assembly,
    /// `Shell`: whether commands are run on it.
    pub shell: Shell,
}

impl Vessel {
    /// Whether files of a directory go to this vessel.
    pub fn takes(&self, directory: &DirectoryName) -> bool {
        !self.ignore_dirs.contains(directory) && self.dirs.as_ref().is_none_or(|dirs| dirs.contains(directory))
    }

    /// Where files of a directory go on this vessel.
    pub fn remote_location<'a>(&'a self, directory: &'a Directory) -> &'a RemotePath {
        self.remote_locations.get(&directory.name).unwrap_or(&directory.remote_location)
    }

    /// Where one file of a directory goes on this vessel.
    pub fn destination(&self, directory: &Directory, path: &RelPath) -> RemotePath {
        let location = self.remote_location(directory);
        if directory.only.is_some() { location.clone() } else { location.join_rel(path) }
    }
}

impl Settings {
    /// The vessels that files of a directory go to.
    pub fn vessels_of(&self, directory: &DirectoryName) -> Vec<VesselName> {
        self.vessels.iter().filter(|v| v.takes(directory)).map(|v| v.name.clone()).collect()
    }

    /// Where a directory goes on the vessels that take it.
    pub fn places_of(&self, directory: &Directory) -> Vec<(VesselName, RemotePath)> {
        let takers = self.vessels.iter().filter(|vessel| vessel.takes(&directory.name));
        takers.map(|vessel| (vessel.name.clone(), vessel.remote_location(directory).clone())).collect()
    }
}
