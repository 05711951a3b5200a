//! The shore's workflow: notice files, wait until they are finished, hash them once, enter them in the ledger; and retire
//! them when every vessel has acknowledged.
//!
//! Each directory has two tasks. [`watch_over`] turns hints and scans into ledger entries and rings the vessels' bells.
//! [`retire`] is rung when something was acknowledged and moves what is complete to `processed/`. They share nothing but
//! the ledger, and they know nothing of how files get to vessels.

mod intake;
mod retire;
mod settle;
mod watch_over;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::monitor::Monitor;
use crate::names::VesselName;
use crate::settings;

pub use retire::retire;
pub use watch_over::watch_over;

/// One directory and what its tasks need.
#[derive(Clone)]
pub struct Directory {
    /// Its settings.
    pub settings: Arc<settings::Directory>,
    /// `ChunkSize` in bytes.
    pub chunk_size: u64,
    /// The vessels that take it, and what to ring when there is something for them.
    pub vessels: Vec<(VesselName, Bell)>,
    /// Rung when a file of it was acknowledged.
    pub retire_bell: Bell,
    /// The ledger.
    pub ledger: Ledger,
    /// Who listens.
    pub monitor: Arc<dyn Monitor>,
    /// The time of day.
    pub clock: Clock,
    /// Set once what was there at start is in the ledger, or couldn't be looked at.
    pub taken_in: watch::Sender<bool>,
    /// What keeps the directory, or something in it, from being used; `None` while all is well.
    pub trouble: watch::Sender<Option<String>>,
    /// Stops the tasks.
    pub stop: CancellationToken,
}

impl Directory {
    fn vessel_names(&self) -> Vec<VesselName> {
        self.vessels.iter().map(|(name, _)| name.clone()).collect()
    }

    fn ring_vessels(&self) {
        self.vessels.iter().for_each(|(_, bell)| bell.ring());
    }
}
