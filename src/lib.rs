//! contentmonster replicates files from one host (the *shore*) to many others (the *vessels*) over unreliable SSH
//! links, fast and without loss.
//!
//! # The map
//!
//! A module imports only modules further down in this list, never one beside it. `tests/it/layers.rs` enforces that,
//! and also that no two files of one directory depend on each other.
//!
//! - L6, the program: [`cli`], [`logging`]
//! - L5, builds everything and starts the tasks: [`daemon`]
//! - L4, output for people: [`status`] (the status document, the page, metrics, a file's history)
//! - L3, the workflows, which communicate only through the ledger: [`shore`] (scan, wait until files are finished,
//!   hash, retire), [`vessel`] (connect, schedule, retry), [`orders`] (of the operator), [`notifications`] (commands,
//!   webhooks, heartbeat), and [`housekeeping`] (disk space, old history)
//! - below `vessel`: `transfer` (one delivery: upload, join, verify, publish) and below that `link` (the connections to
//!   one vessel)
//! - L2, the ports: [`local`] (the shore's disk), [`ledger`] (the queue, on disk), [`transport`] (SSH and SFTP), and
//!   [`embedded_vessel`] (a vessel in this process, for the demo and for tests)
//! - L1, for all of them: [`settings`], [`monitor`], [`bell`], [`clock`], [`root`] (accesses paths below a directory
//!   safely), and [`rate_limit`] above them
//! - L0, pure values: [`records`] and [`signature`], below them [`digest`], [`names`], [`chunk`], [`fault`],
//!   [`backoff`] and [`rights`], and below those [`text`]
//! - `strangers`, entry points for fuzz targets, only in test and fuzz builds
//!
//! `DESIGN.md` describes how a file passes through the program, the promises and the states.

mod backoff;
mod bell;
pub mod chunk;
pub mod cli;
pub mod clock;
pub mod compression;
pub mod daemon;
pub mod digest;
#[cfg(feature = "demo")]
pub mod embedded_vessel;
pub mod fault;
mod housekeeping;
pub mod ledger;
mod link;
mod local;
pub mod logging;
pub mod monitor;
pub mod names;
mod notifications;
mod orders;
mod rate_limit;
pub mod records;
mod rights;
mod root;
pub mod settings;
mod shore;
mod signature;
mod status;
#[cfg(any(test, fuzzing))]
pub mod strangers;
mod text;
mod transfer;
pub mod transport;
mod vessel;

/// The version of the program, followed by the commit that it was built from if the build knew it (see `build.rs`).
pub const VERSION: &str = env!("CONTENTMONSTER_VERSION");
