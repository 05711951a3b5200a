//! The connections to one vessel: a [`Session`] with its pool of channels, the spare connection, further connections
//! that are opened early, and TempDir.
//!
//! This module does not decide which data is transferred, in which order and why; the modules that use it do. The send
//! gate of a session follows the rules that those modules set.

mod allowance;
mod channel_pool;
mod command_batch;
mod compressor;
mod costs;
mod large_uploads;
mod late_files;
mod new_file;
mod pace;
mod pacer;
mod parallel_route;
mod path;
mod preconnect;
mod send_gate;
mod session;
mod small_files;
mod standby;
mod temp_dir;
mod tending;
mod unanswered_changes;
mod unequal_files;
mod usage;
mod way_load;

pub use allowance::{Allowance, Closed, Purse};
pub(crate) use channel_pool::{Coming, Job, WORTH_BYTES};
pub use compressor::Compressor;
pub(crate) use compressor::{Compressed, Memory};
pub(crate) use large_uploads::UploadTurn;
pub(crate) use late_files::{LateFile, ON_THE_WAY, Which};
pub(crate) use new_file::{OURS, loop_assembly, open_new, probe_beside};
pub(crate) use preconnect::begin as preconnect;
pub(crate) use send_gate::SendRules;
pub(crate) use session::{Limits, Link, Session};
pub(crate) use small_files::{LoopSlot, MOST_BYTES};
pub(crate) use standby::replacement;
pub(crate) use temp_dir::prepare as prepare_temp_dir;
pub use usage::{LinkUsage, Part, Payer};
