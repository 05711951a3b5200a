//! The operator's configuration: the settings file, parsed, checked and typed.
//!
//! This module reads the settings file, the secrets that it names and the ssh config, and resolves each `Location` on
//! the disk. It uses no network and no ledger, and lists no directory.
//!
//! The text is processed in three steps. First each line is checked on its own: malformed lines are rejected, and
//! rust-ini returns sections, keys and values. Then each section is converted into its type, with values from the
//! section itself, from `[DEFAULT]`, or from the table of keys. Finally the sections are checked against each other. No
//! step stops at its first problem: all problems are collected with their lines and shown at once.

mod all_keys;
mod changes;
mod checks;
mod directory;
mod environment;
mod hints;
mod key;
mod lines;
mod link;
mod load;
mod local;
mod logging;
mod mirror;
mod monster;
mod overlap;
mod own_files;
mod patterns;
mod problems;
mod rate;
mod reach;
mod retention;
mod secrets;
mod ssh_config;
mod ssh_host;
mod ssh_route;
mod table;
mod telling;
mod units;
mod values;
mod vessel;
mod vessel_route;
mod view;

pub use all_keys::known_keys;
pub use directory::{Directory, OwnFiles};
pub use environment::Environment;
pub(crate) use hints::nearest;
pub use key::{KnownKey, Preset, Reload, Secrecy, SectionKind, Transport};
pub use link::{Assembly, Compression, CongestionControl, Connections, Dedup, Delta, Shell, SmallFiles, Verify};
pub use load::Settings;
pub use logging::{LogFormat, LogLevel, LogTarget, Logging};
pub use mirror::{Links, MaxDelete, Mode};
pub use monster::Monster;
pub use overlap::clash;
pub use patterns::{Globs, Patterns};
pub use problems::{Problem, SettingsError};
pub use rate::RateSchedule;
pub use retention::KeepProcessed;
pub use secrets::Secret;
#[cfg(any(test, fuzzing))]
pub use ssh_config::ssh_config_text;
pub use ssh_host::{AgentChoice, HostKeyPolicy, SshHost};
pub use telling::{Hooks, Telling, WebAddress};
pub use vessel::{LocalPlace, LocalTarget, Vessel};

/// A settings file to start from: every key with its meaning, unit, range and default.
pub const EXAMPLE: &str = include_str!("../../settings.example.ini");
