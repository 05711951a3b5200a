//! contentmonster gets files from one host (the *shore*) to many others (the *vessels*) over SSH links that can't be
//! trusted, fast, and loses nothing.
//!
//! # The map of the house
//!
//! A module imports only what stands below it; `tests/it/layers.rs` enforces that.
//!
//! - L2, ports: [`local`]
//! - L1: [`settings`], [`monitor`], [`bell`], [`clock`]
//! - L0, pure values: [`digest`], [`names`], [`chunk`], [`records`], [`fault`], [`backoff`]

pub mod backoff;
pub mod bell;
pub mod chunk;
pub mod clock;
pub mod digest;
pub mod fault;
pub mod local;
pub mod monitor;
pub mod names;
pub mod records;
pub mod settings;
