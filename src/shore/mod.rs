//! The shore's workflow: notice files, wait until they are finished, enter them in the ledger; and retire
//! them when every vessel has acknowledged.
//!
//! Each directory has two tasks. [`ingest()`] turns hints and scans into ledger entries and rings the vessels' bells.
//! [`retire()`] is rung when something was acknowledged and moves what is complete to `processed/`. They share
//! the ledger and what was seen of those who write to the files, and they know nothing of how files get to vessels.

mod apply;
mod deletions;
mod diff;
mod disk_io;
mod dry_run;
mod expiry;
mod file_problems;
mod ingest;
mod intake;
mod interval;
mod mounts;
mod moved_files;
mod pending;
mod recheck;
mod retire;
mod retire_wait;
mod scans;
mod settle;
mod troubles;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::clock::Clock;
use crate::fault::Fault;
use crate::ledger::Ledger;
use crate::local::{self, SourceCache, Writers};
use crate::monitor::Monitor;
use crate::names::{RemotePath, VesselName};
use crate::settings;

pub use disk_io::{AtLocation, at_locations};
pub use dry_run::dry_run;
pub use ingest::ingest;
pub use recheck::Recheck;
pub use retire::{retire, retire_all};
pub use troubles::{Concern, Troubles};

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
    /// Who knows whether a file is still being written.
    pub writers: Writers,
    /// What retirement wants the watch to look at again.
    pub recheck: Recheck,
    /// Where small files are put by for the vessels.
    pub source_cache: SourceCache,
    /// The ledger.
    pub ledger: Ledger,
    /// Who listens.
    pub monitor: Arc<dyn Monitor>,
    /// The time of day.
    pub clock: Clock,
    /// Set once what was there at start is in the ledger, or couldn't be looked at.
    pub taken_in: watch::Sender<bool>,
    /// What keeps the directory, or something in it, from being used now.
    pub trouble: watch::Sender<Troubles>,
    /// Why no new files are taken in for now: there is no room for what the ledger has to remember of them.
    pub no_room: watch::Receiver<Option<String>>,
    /// Rung when `Location` is a file and its settings say directory, or the other way round: the tasks are to start anew.
    pub decide_again: Bell,
    /// Whether its location is another than when this program started: what is missing in it need not have been deleted.
    pub relocated: bool,
    /// Whether a person has allowed deletions that are otherwise held back.
    pub allow_deletes: bool,
    /// Stops the tasks.
    pub stop: CancellationToken,
}

impl Directory {
    /// Fits the ledger to the settings. To be done for every directory before any task starts: until then the ledger may call
    /// complete what a vessel that was added still has to get. Touches no disk but the ledger's.
    ///
    /// # Errors
    /// A [`Fault`] of the daemon's when the ledger can't be used.
    pub async fn prepare(&self) -> Result<(), Fault> {
        let name = &self.settings.name;
        self.ledger.locate(name, &self.places).await.map_err(|e| e.fault())?;
        self.ledger.reconcile(name, &self.vessel_names()).await.map_err(|e| e.fault())
    }

    /// Settles what a crash left in `processed/`. To be done before anything retires.
    async fn tidy_up(&self) -> Result<(), Fault> {
        let (location, name) = (self.settings.location.clone(), &self.settings.name);
        let recursive = self.settings.recursive && !self.settings.is_mirror();
        if let Err(e) = self.on_disk(move || local::sweep(&location, recursive)).await? {
            tracing::debug!(directory = %name, "Cannot tidy up processed/: {e}");
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
