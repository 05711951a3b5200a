//! The integration tests: the real program against real servers, on this machine, with nothing left behind.
//!
//! The servers need mount namespaces, so the tests need root; without, those that start servers say that they skip.

mod command_line;
mod delivery;
mod fleet;
mod fleet_itself;
mod layers;
mod outages;
mod refusals;
mod retire;
mod watching;
