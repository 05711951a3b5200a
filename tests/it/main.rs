//! The integration tests: the real program against real servers, on this machine, with nothing left behind.
//!
//! The servers need mount namespaces, so the tests need root; without, those that start servers say that they skip.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed assumption is a failed test, and what it prints explains it"
)]

mod addresses;
mod backup;
mod book;
mod browser;
mod certificates;
mod channels;
mod checks;
mod churn;
mod command_line;
mod compressed;
mod delivery;
mod delta;
mod dial_in;
mod doors;
mod embedded_vessel;
mod faults;
mod fleet;
mod fleet_itself;
mod fleet_settings;
mod fleet_size;
mod full_places;
mod hops;
mod host_keys;
mod housekeeping;
mod hung_mount;
mod import;
mod incidents;
mod json;
mod large_files;
mod late_requests;
mod layers;
mod limited_ways;
mod limits_over_time;
mod link;
mod link_bytes;
mod links;
mod local_target;
mod logging;
mod logins;
mod manners;
mod meeting_places;
mod mirror;
mod mishaps;
mod mounts;
mod moves;
mod notifications;
mod older_ledgers;
mod outages;
mod overlap;
mod own_files;
mod packaging;
mod pipes;
mod places;
mod postgresql;
mod priorities;
mod queue;
mod read_once;
mod refusals;
mod reload;
mod renamed;
mod retire;
mod rights;
mod security_keys;
mod selection;
mod servers_in_trouble;
mod settings;
mod shores;
mod simulation;
mod single_file;
mod small_files;
mod ssh_config;
mod stampede;
mod status;
mod troubles;
mod verifying;
mod watching;
mod ways;
mod why;
mod writers;
