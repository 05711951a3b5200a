//! The shore's workflow: detects files, waits until they are finished, records them in the ledger, and retires them
//! when every vessel has acknowledged.
//!
//! Each directory has up to three tasks. [`ingest()`] turns hints and scans into ledger entries and rings the vessels'
//! bells. [`retire()`] is woken when a vessel acknowledges a file, and moves files that every vessel has acknowledged
//! to `processed/`. [`expire()`] ends deliveries that have waited too long. The tasks share the ledger and the
//! detection of open writers, and do not depend on how files are sent to vessels.

mod admit;
mod apply;
mod clean_processed;
mod deletions;
mod diff;
mod disk_io;
mod dry_run;
mod expire;
mod file_problems;
mod ingest;
mod interval;
mod known;
mod mounts;
mod moves;
mod pending;
mod recheck;
mod recheck_retired;
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
use crate::ledger::{Ledger, QueueSettings};
use crate::local::{self, SourceCache, Writers};
use crate::monitor::Monitor;
use crate::names::{RemotePath, VesselName};
use crate::settings;

pub use disk_io::{AtLocation, at_locations};
pub use dry_run::dry_run;
pub use expire::{expire, expire_now};
pub use ingest::ingest;
pub use recheck::Recheck;
pub use retire::{retire, retire_all};
pub use troubles::{Concern, Troubles};

/// One directory and everything that its tasks need.
#[derive(Clone)]
pub struct Directory {
    /// The directory's settings.
    pub settings: Arc<settings::Directory>,
    /// `ChunkSize` in bytes.
    pub chunk_size: u64,
    /// The vessels that take the directory, each with the bell that is rung for new ledger entries.
    pub vessels: Vec<(VesselName, Bell)>,
    /// The directory's path on each vessel.
    pub places: Vec<(VesselName, RemotePath)>,
    /// Rung when a file of the directory was acknowledged.
    pub retire_bell: Bell,
    /// Detects files that are still being written.
    pub writers: Writers,
    /// Paths that retirement wants ingest to check again.
    pub recheck: Recheck,
    /// Cache of source files, shared with the vessels.
    pub source_cache: SourceCache,
    /// The ledger.
    pub ledger: Ledger,
    /// Receiver of events.
    pub monitor: Arc<dyn Monitor>,
    /// Clock for the time of day.
    pub clock: Clock,
    /// Set once all files present at start are in the ledger, or the wait for them has ended.
    pub taken_in: watch::Sender<bool>,
    /// Current troubles that keep the directory or an entry of it from being used.
    pub trouble: watch::Sender<Troubles>,
    /// The reason why there is no disk space for the ledger entries of new files; `None` if there is enough.
    pub low_space: watch::Receiver<Option<String>>,
    /// Rung when `Location` is a file but was treated as a directory, or the reverse. The tasks must then be restarted.
    pub decide_again: Bell,
    /// Whether a reload has changed `Location` since the program started. Then a path that is missing there was not
    /// necessarily deleted.
    pub relocated: bool,
    /// Whether the program was started with `--allow-deletes`, so that no deletions are held back.
    pub allow_deletes: bool,
    /// Stops the tasks.
    pub stop: CancellationToken,
}

impl Directory {
    /// Adapts the ledger to the settings. Must be called for every directory before any task starts: otherwise a
    /// version could count as complete although a vessel that was added to the settings has not received it. Accesses
    /// only the ledger's disk.
    ///
    /// # Errors
    /// Returns a daemon-wide [`Fault`] if the ledger can't be used.
    pub async fn prepare(&self) -> Result<(), Fault> {
        let name = &self.settings.name;
        let own = QueueSettings { order: self.settings.order, expire: self.settings.expire };
        let queue = self.settings.has_own_queue().then_some(own);
        self.ledger.set_queue(name, queue).await.map_err(|e| e.fault())?;
        self.ledger.locate(name, &self.places).await.map_err(|e| e.fault())?;
        self.ledger.reconcile(name, &self.vessel_names()).await.map_err(|e| e.fault())
    }

    /// Cleans up after retirements that a crash interrupted. Must run before any file retires.
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
