//! The directories and vessels of the settings at run time: the resources and the tasks of each section, which can be
//! stopped without stopping other sections.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Daemon;
use crate::bell::Bell;
use crate::fault::Fault;
use crate::ledger::{Ledger, Work};
use crate::local;
use crate::names::DirectoryName;
use crate::orders::VesselControl;
use crate::rate_limit::RateLimiter;
use crate::settings;
use crate::shore::{self, AtLocation, Troubles};
use crate::vessel::{self, LateChanges};

/// All tasks of the shore's and the vessels' workflows.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) shore: JoinSet<Result<(), Fault>>,
    pub(super) vessels: JoinSet<Result<(), Fault>>,
}

/// The tasks of one section of the settings.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Creates an empty set of tasks; cancelling `stop` also stops these tasks.
    pub(super) fn within(stop: &CancellationToken) -> Self {
        Self { stop: stop.child_token(), tasks: TaskTracker::new() }
    }

    /// Stops the tasks, and waits until they have ended.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Returns the settings of a directory with the kind of its `Location` on the disk: one file or a directory.
///
/// When nothing is at the `Location`, the ledger decides: a single file that has retired is absent until it is written
/// again. A mirror always counts as a directory then, because in a mirror an absent file is a deletion. When the disk
/// doesn't respond (`None`), the `Location` counts as a directory until a later scan corrects this.
///
/// # Errors
/// A [`Fault`] of the daemon when the ledger can't be used.
pub(super) async fn as_found(
    settings: &settings::Directory,
    at: Option<AtLocation>,
    ledger: &Ledger,
) -> Result<settings::Directory, Fault> {
    let (found, file) = (settings.clone(), settings.clone().of_one_file());
    if at == Some(AtLocation::File) {
        return Ok(file);
    }
    let Some(only) = file.only.as_ref().filter(|_| at == Some(AtLocation::Nothing) && !found.is_mirror()) else {
        return Ok(found);
    };
    let others = ledger.current(&found.name).await.map_err(|e| e.fault())?;
    let was_there = ledger.view().history(&found.name, only).await.map_err(|e| e.fault())?;
    let is_only = others.iter().all(|version| version.path == *only);
    Ok(if is_only && !was_there.is_empty() { file } else { found })
}

/// A directory of the settings at run time.
pub(super) struct DirectoryAtWork {
    /// The directory's settings, with the kind of its `Location` on the disk.
    pub(super) settings: Arc<settings::Directory>,
    pub(super) retire_bell: Bell,
    pub(super) writers: local::Writers,
    pub(super) recheck: shore::Recheck,
    pub(super) taken_in: watch::Sender<bool>,
    pub(super) trouble: watch::Sender<Troubles>,
    /// Whether the directory's `Location` in the settings has changed since the program started.
    pub(super) relocated: bool,
    pub(super) running: Running,
}

impl DirectoryAtWork {
    /// Creates the state of a directory from settings that [`as_found`] returned.
    pub(super) fn new(settings: settings::Directory, stop: &CancellationToken) -> Self {
        Self {
            writers: local::Writers::new(settings.settle_time),
            recheck: shore::Recheck::default(),
            settings: Arc::new(settings),
            retire_bell: Bell::new(),
            taken_in: watch::Sender::new(false),
            trouble: watch::Sender::default(),
            relocated: false,
            running: Running::within(stop),
        }
    }
}

/// A vessel of the settings at run time.
pub(super) struct VesselAtWork {
    pub(super) controls: VesselControl,
    pub(super) limit: RateLimiter,
    pub(super) late: LateChanges,
    pub(super) running: Running,
}

impl Daemon {
    pub(super) fn new_vessel(&self, settings: &settings::Vessel, paused: bool) -> VesselAtWork {
        let limit = RateLimiter::new(settings.rate_limit.clone(), self.surroundings.clock.clone());
        VesselAtWork {
            controls: VesselControl { bell: Bell::new(), hurry: Bell::new(), paused: watch::Sender::new(paused) },
            limit: limit.within(&self.shore_limit),
            late: LateChanges::default(),
            running: Running::within(&self.surroundings.stop),
        }
    }

    /// Publishes the current directories and vessels to the tasks that look them up by name.
    pub(super) fn publish(&self) {
        let served = |(name, at_work): (&DirectoryName, &DirectoryAtWork)| {
            (name.clone(), (at_work.settings.clone(), at_work.retire_bell.clone()))
        };
        self.served.replace(self.directories.iter().map(served).collect());
        self.orders
            .replace(self.vessels.iter().map(|(name, vessel)| (name.clone(), vessel.controls.clone())).collect());
    }

    /// Returns a directory with everything that its tasks need.
    pub(super) fn directory(&self, name: &DirectoryName) -> shore::Directory {
        let at_work = &self.directories[name];
        let vessels = self.settings.vessels_of(name);
        shore::Directory {
            settings: at_work.settings.clone(),
            chunk_size: self.settings.monster.chunk_size,
            vessels: vessels.into_iter().map(|v| (v.clone(), self.vessels[&v].controls.bell.clone())).collect(),
            places: self.settings.places_of(&at_work.settings),
            retire_bell: at_work.retire_bell.clone(),
            writers: at_work.writers.clone(),
            recheck: at_work.recheck.clone(),
            ledger: self.ledger.of_work(&Work::Directory(name.clone())),
            source_cache: self.source_cache.clone(),
            monitor: self.monitor.clone(),
            clock: self.surroundings.clock.clone(),
            taken_in: at_work.taken_in.clone(),
            trouble: at_work.trouble.clone(),
            low_space: self.low_space.subscribe(),
            relocated: at_work.relocated,
            allow_deletes: self.surroundings.allow_deletes,
            decide_again: self.decide_again.clone(),
            stop: at_work.running.stop.clone(),
        }
    }

    pub(super) fn directories(&self) -> impl Iterator<Item = shore::Directory> {
        self.settings.directories.iter().map(|directory| self.directory(&directory.name))
    }

    /// Starts the tasks of a directory, if this shore has its work.
    pub(super) fn start_directory(&self, name: &DirectoryName, tasks: &mut Tasks) {
        if !self.holds(&Work::Directory(name.clone())) {
            return;
        }
        let (directory, running) = (self.directory(name), &self.directories[name].running);
        tasks.shore.spawn(running.tasks.track_future(shore::ingest(directory.clone())));
        if directory.settings.expire.is_some() {
            tasks.shore.spawn(running.tasks.track_future(shore::expire(directory.clone())));
        }
        if !directory.settings.is_mirror() {
            tasks.shore.spawn(running.tasks.track_future(shore::retire(directory)));
        }
    }

    /// Starts the task of a vessel, if this shore has its work.
    pub(super) fn start_vessel(&self, settings: &settings::Vessel, tasks: &mut Tasks) {
        let work = Work::Vessel(settings.name.clone());
        if !self.holds(&work) {
            return;
        }
        let at_work = &self.vessels[&settings.name];
        let VesselAtWork { controls, running, .. } = at_work;
        let all: Vec<&settings::Directory> = self.directories.values().map(|at_work| &*at_work.settings).collect();
        let taken = || self.directories.iter().filter(|(name, _)| settings.takes(name));
        let settings = Arc::new(settings.clone().find_places(all));
        let vessel = vessel::Vessel {
            ways: self.ways(&settings, at_work),
            settings: settings.clone(),
            directories: self.served.clone(),
            bell: controls.bell.clone(),
            hurry: controls.hurry.clone(),
            paused: controls.paused.subscribe(),
            ledger: self.ledger.of_work(&work),
            source_cache: self.source_cache.clone(),
            monitor: self.monitor.clone(),
            clock: self.surroundings.clock.clone(),
            environment: self.ssh.clone(),
            until_done: self.once.then(|| taken().map(|(_, directory)| directory.taken_in.subscribe()).collect()),
            told_of_times: Arc::default(),
            late: at_work.late.clone(),
            compressor: self.compressor.for_another_vessel(),
            stop: running.stop.clone(),
        };
        tasks.vessels.spawn(running.tasks.track_future(vessel::supervise(vessel)));
    }
}
