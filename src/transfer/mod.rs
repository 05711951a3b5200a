//! One delivery, from its current state to its acknowledgement.
//!
//! [`deliver()`] runs through these steps: query the vessel, plan (whole, resume or delta), upload, verify, publish,
//! acknowledge. It records the progress as a [`DeliveryState`](crate::records::DeliveryState). Each step queries the
//! current state of the vessel, so it may be repeated after a crash or a lost connection. A step is a function that
//! takes only what it needs: most take the session alone; those that query the ledger or the settings take
//! [`Transfers`].

mod acknowledge;
mod append;
mod attributes;
mod check_file;
mod clone_file;
mod compressing;
mod copy_source;
mod delta;
mod delta_plan;
mod end_in_shell;
mod existing;
mod former_assemblies;
mod growing_hash;
mod join_parts;
mod known_places;
mod move_file;
mod move_tree;
mod moved_files;
mod no_clones;
mod ownership;
mod pipeline;
mod place_clashes;
mod publish;
mod ranges;
mod ready_directories;
mod repair;
mod resume_state;
mod same_host;
mod secured;
mod send_to_loop;
mod signing;
mod similar_file;
mod space_check;
mod sweep;
mod transfers;
mod tree;
mod upload_direct;
mod upload_parts;
mod upload_state;
mod verdict;
mod verify;
mod write;

pub(crate) use acknowledge::Outcome;
pub(crate) use former_assemblies::take_over_assemblies;
pub(crate) use pipeline::deliver;
pub(crate) use place_clashes::{clashes, compare_places, located};
pub(crate) use same_host::fault as same_host_fault;
pub(crate) use send_to_loop::tend_loop;
pub(crate) use space_check::{discard, place_of, place_of_version, space_at};
pub(crate) use sweep::{RunningDeliveries, Sweeping, sweep_late};
pub use transfers::Directories;
pub(crate) use transfers::Transfers;
