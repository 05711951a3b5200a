//! The shore's workflow: notice files, wait until they are finished, enter them in the ledger; and retire
//! them when every vessel has acknowledged.
//!
//! Each directory has two tasks. [`watch_over()`] turns hints and scans into ledger entries and rings the vessels' bells.
//! [`retire()`] is rung when something was acknowledged and moves what is complete to `processed/`. They share nothing but
//! the ledger, and they know nothing of how files get to vessels.

mod departures;
mod expiry;
mod gate;
mod intake;
mod rehearsal;
mod retire;
mod settle;
mod survey;
mod watch_over;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::clock::Clock;
use crate::fault::Fault;
use crate::ledger::Ledger;
use crate::local::{self, Feed};
use crate::monitor::Monitor;
use crate::names::{RemotePath, VesselName};
use crate::settings;

pub use rehearsal::rehearse;
pub use retire::{retire, retire_all};
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
    /// Where it goes on each of them.
    pub places: Vec<(VesselName, RemotePath)>,
    /// Rung when a file of it was acknowledged.
    pub retire_bell: Bell,
    /// Where small files are put by for the vessels.
    pub feed: Feed,
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
    /// Why no new files are taken in for now: there is no room for what the ledger has to remember of them.
    pub no_room: watch::Receiver<Option<String>>,
    /// Whether its location is another than when this program started: what is missing in it need not have been deleted.
    pub relocated: bool,
    /// Whether a person has allowed deletions that are otherwise held back.
    pub allow_deletes: bool,
    /// Stops the tasks.
    pub stop: CancellationToken,
}

impl Directory {
    /// Fits the ledger to the settings, and settles what a crash left in `processed/`. To be done for every directory
    /// before any task starts: until then the ledger may call complete what a vessel that was added still has to get.
    ///
    /// # Errors
    /// A [`Fault`] of the daemon's when the ledger can't be used.
    pub async fn prepare(&self) -> Result<(), Fault> {
        let name = &self.settings.name;
        self.ledger.locate(name, &self.places).await.map_err(|e| e.fault())?;
        self.ledger.reconcile(name, &self.vessel_names()).await.map_err(|e| e.fault())?;
        let location = self.settings.location.clone();
        let recursive = self.settings.recursive && !self.settings.is_mirror();
        let sweeping = tokio::task::spawn_blocking(move || local::sweep(&location, recursive)).await;
        if let Err(e) = sweeping.map_err(|e| Fault::daemon(format_args!("looking at the disk: {e}")))? {
            tracing::debug!(directory = %name, "nothing to tidy up: {e}");
        }
        Ok(())
    }

    fn vessel_names(&self) -> Vec<VesselName> {
        self.vessels.iter().map(|(name, _)| name.clone()).collect()
    }

    fn ring_vessels(&self) {
        self.vessels.iter().for_each(|(_, bell)| bell.ring());
    }
}
