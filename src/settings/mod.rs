//! What the operator configured: the settings file, parsed, checked and typed.
//!
//! Reads the file and the secrets it names, nothing else: no network, no ledger, no directory is looked at.
//!
//! The text goes through three steps. First each line is looked at by itself, malformed ones are refused, and rust-ini
//! gives sections, keys and values. Then each section is typed, its values taken from itself, from `[DEFAULT]`, or from
//! the table of keys. Last come the checks between sections. No step stops at its first problem: all of them are
//! collected, each with its line, and shown at once.

mod checks;
mod environment;
mod keys;
mod lines;
mod load;
mod problems;
mod secrets;
mod sections;
mod units;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use globset::GlobSet;
use secrecy::SecretString;

use crate::names::{DirectoryName, RemotePath, VesselName};

pub use environment::Environment;
pub use keys::{KnownKey, Preset, SectionKind, known_keys};
pub use problems::{Problem, SettingsError};

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
#[derive(Clone, Debug)]
pub struct Monster {
    /// `ChunkSize`: size of the pieces that files are cut into, in bytes.
    pub chunk_size: u64,
    /// `Database`: the ledger's file, absolute.
    pub database: PathBuf,
}

/// `[Directory x]`.
#[derive(Clone, Debug)]
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
    pub ignore_names: GlobSet,
}

/// How a vessel's host key becomes known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Only keys that `known_hosts` or `HostKey` names are taken.
    Strict,
    /// The first key of a host that is not known yet is taken and recorded; a changed one never.
    AcceptNew,
}

/// `[Vessel y]`.
#[derive(Clone, Debug)]
pub struct Vessel {
    /// The `y`.
    pub name: VesselName,
    /// `Address`: host name or IP address, without brackets.
    pub address: String,
    /// `Port`.
    pub port: u16,
    /// `Username`.
    pub username: String,
    /// `TempDir`: where parts are kept on the vessel.
    pub temp_dir: RemotePath,
    /// `Timeout`: the deadline for connecting, logging in, and any answer.
    pub timeout: Duration,
    /// `IgnoreDirs`: the directories that don't go to this vessel.
    pub ignore_dirs: BTreeSet<DirectoryName>,
    /// `RemoteLocation.x`: where directory x goes on this vessel instead of its own `RemoteLocation`.
    pub remote_locations: BTreeMap<DirectoryName, RemotePath>,
    /// `IdentityFile`: private keys to log in with, absolute; empty: the default keys in `~/.ssh`.
    pub identity_files: Vec<PathBuf>,
    /// `Passphrase` or `PassphraseFile`: opens the private keys.
    pub passphrase: Option<SecretString>,
    /// `Password` or `PasswordFile`.
    pub password: Option<SecretString>,
    /// `HostKey`: the only host keys taken, as `SHA256:` fingerprints; empty: `known_hosts` decides.
    pub host_keys: Vec<String>,
    /// `HostKeyPolicy`.
    pub host_key_policy: HostKeyPolicy,
}

impl Vessel {
    /// Whether files of a directory go to this vessel.
    pub fn takes(&self, directory: &DirectoryName) -> bool {
        !self.ignore_dirs.contains(directory)
    }

    /// Where files of a directory go on this vessel.
    pub fn remote_location<'a>(&'a self, directory: &'a Directory) -> &'a RemotePath {
        self.remote_locations.get(&directory.name).unwrap_or(&directory.remote_location)
    }
}

impl Settings {
    /// The vessels that files of a directory go to.
    pub fn vessels_of(&self, directory: &DirectoryName) -> Vec<VesselName> {
        self.vessels.iter().filter(|v| v.takes(directory)).map(|v| v.name.clone()).collect()
    }
}
