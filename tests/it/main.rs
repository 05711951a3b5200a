//! The integration tests: the real program against real servers, on this machine, with nothing left behind.
//!
//! The servers need mount namespaces, so the tests need root; without, those that start servers say that they skip.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed assumption is a failed test, and what it prints explains it"
)]

mod command_line;
mod delivery;
mod embedded_vessel;
mod fleet;
mod fleet_itself;
mod host_keys;
mod layers;
mod logins;
mod outages;
mod packaging;
mod refusals;
mod retire;
mod settings;
mod watching;
