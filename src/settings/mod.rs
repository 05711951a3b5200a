//! The operator's configuration: the settings file, parsed, checked and typed.
//!
//! This module reads the settings file, the secrets that it names and the ssh config, and resolves each `Location` on
//! the disk. It uses no network and no ledger.
//!
//! The text is processed in three steps. First each line is checked on its own: malformed lines are rejected, and
//! rust-ini returns sections, keys and values. Then each section is converted into its type, with values from the
//! section itself, its groups, `[DEFAULT]`, or the table of keys. Finally the sections are checked against each other.
//! No step stops at its first problem: all problems are collected with their lines and shown at once.

mod all_keys;
mod budget;
mod changes;
mod checks;
mod cost;
mod daily_hours;
mod database;
mod directory;
mod environment;
mod explain;
mod files;
mod format;
mod hints;
mod json_schema;
mod key;
mod lines;
mod link;
mod link_section;
mod load;
mod local;
mod logging;
mod mirror;
mod monster;
mod network_link;
mod notifications;
mod overlap;
mod own_files;
mod patterns;
mod placeholders;
mod priorities;
mod priority;
mod priority_keys;
mod problems;
mod ranges;
mod rate;
mod reach;
mod reserve;
mod retention;
mod schedule;
mod secrets;
mod section_view;
mod sections;
mod ssh_config;
mod ssh_host;
mod ssh_route;
mod table;
mod units;
mod values;
mod vessel;
mod vessel_route;
mod way;
mod windows;
mod written_value;

pub use all_keys::known_keys;
pub use budget::{Budget, Limit, Period};
pub use cost::Cost;
pub use database::{Database, PostgresAddress};
pub use directory::{Directory, OwnFiles};
pub use environment::Environment;
pub use explain::{Effective, Source};
pub use format::formatted;
pub(crate) use hints::nearest;
pub use json_schema::schema;
pub use key::{Filled, KnownKey, Preset, Reload, Secrecy, SectionKind, Transport};
pub use link::{Assembly, Compression, CongestionControl, Connections, Dedup, Delta, Shell, SmallFiles, Verify};
pub use load::{SectionNames, Settings};
pub use logging::{LogFormat, LogLevel, LogTarget, Logging};
pub use mirror::{Links, MaxDelete, Mode};
pub use monster::Monster;
pub use network_link::Link;
pub use notifications::{Hooks, Notifications, WebAddress};
pub use overlap::clash;
pub use patterns::{Globs, Patterns};
pub use placeholders::Placeholders;
pub use priorities::Priorities;
pub use priority::{Order, Priority};
pub use problems::{Problem, SettingsError};
pub use rate::RateSchedule;
pub use reserve::Reserve;
pub use retention::KeepProcessed;
pub use schedule::Schedule;
pub use secrets::Secret;
#[cfg(any(test, fuzzing))]
pub use ssh_config::ssh_config_text;
pub use ssh_host::{AgentChoice, HostKeyPolicy, SshHost};
pub(crate) use units::duration as parse_duration;
pub use vessel::{LocalPlace, LocalTarget, Vessel};
pub use way::Way;

/// A settings file to start from: every key with its meaning, unit, range and default.
pub const EXAMPLE: &str = include_str!("../../settings.example.ini");
