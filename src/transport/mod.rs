//! The network.

pub mod known_hosts;
