//! contentmonster gets files from one host (the *shore*) to many others (the *vessels*) over SSH links that can't be
//! trusted, fast, and loses nothing.
//!
//! # The map of the house
//!
//! A module imports only what stands below it; `tests/it/layers.rs` enforces that.
//!
//! - L2, the ports: [`ledger`], [`transport`]
//! - L1: [`settings`], [`monitor`], [`bell`], [`clock`]
//! - L0, pure values: [`digest`], [`names`], [`chunk`], [`records`], [`fault`], [`backoff`]

pub mod backoff;
pub mod bell;
pub mod chunk;
pub mod clock;
pub mod digest;
pub mod embedded_vessel;
pub mod fault;
pub mod ledger;
pub mod monitor;
pub mod names;
pub mod records;
pub mod settings;
pub mod transport;
