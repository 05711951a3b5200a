//! contentmonster gets files from one host (the *shore*) to many others (the *vessels*) over SSH links that can't be
//! trusted, fast, and loses nothing.
//!
//! # The map of the house
//!
//! A module imports only what stands below it, never a sibling; a test (`tests/it/layers.rs`) enforces that.
//!
//! - L6, the program: [`cli`], [`logging`]
//! - L5, what puts it all together: [`daemon`]
//! - L4, what people see of it: [`status`] (the status document, the page, metrics, a file's story)
//! - L3, the two workflows, which meet in the ledger and nowhere else: [`shore`] (watch, take in, retire) and [`vessel`]
//!   (upload, assemble, verify, publish); [`orders`], what people tell
//!   them; [`notifications`], which tells others what happened; and [`housekeeping`]
//! - L2, the ports: [`local`] (the shore's disk), [`ledger`] (the queue, on disk), [`transport`] (SSH and SFTP), and
//!   [`embedded_vessel`] (a vessel in this process, for the demo and for tests)
//! - L1, what everybody may know: [`settings`], [`monitor`], [`bell`], [`clock`], [`root`] (one way to reach a path below a
//!   directory), and [`rate_limit`] above them
//! - what fuzz targets call: `strangers`, in test builds and theirs only
//! - L0, pure values: [`digest`], [`outline`], [`names`], [`text`], [`chunk`], [`records`], [`fault`], [`backoff`], [`rights`]
//!
//! The way of a file through it, the promises and the states stand in `DESIGN.md`.

pub mod backoff;
pub mod bell;
pub mod chunk;
pub mod cli;
pub mod clock;
pub mod daemon;
pub mod digest;
pub mod embedded_vessel;
pub mod fault;
pub mod housekeeping;
pub mod ledger;
mod link;
pub mod local;
pub mod logging;
pub mod monitor;
pub mod names;
pub mod notifications;
pub mod orders;
pub mod outline;
pub mod rate_limit;
pub mod records;
pub mod rights;
pub mod root;
pub mod settings;
pub mod shore;
pub mod status;
#[cfg(any(test, fuzzing))]
pub mod strangers;
pub mod text;
mod transfer;
pub mod transport;
pub mod vessel;
