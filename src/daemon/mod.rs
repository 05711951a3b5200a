//! Puts it all together: opens the ledger, hangs up the bells, starts the tasks, and ends them in order.
//!
//! [`run`] reads as the picture of the program: a watch and a retirement task for each directory, one task for each
//! vessel, and nothing between them but the ledger and bells.

mod beside;
mod service;
mod simulation;
mod views;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::clock::Clock;
use crate::fault::Fault;
use crate::ledger::{Ledger, Parked};
use crate::local::{self, Feed};
use crate::monitor::{All, Monitor};
use crate::names::{DirectoryName, VesselName};
use crate::orders::{Orders, Reins};
use crate::rate_limit::RateLimiter;
use crate::records::Backlog;
use crate::settings::{self, RateSchedule, Settings};
use crate::shore;
use crate::status::Live;
use crate::transport::SshEnvironment;
use crate::vessel;

pub use simulation::{Intention, simulate, simulate_on};

/// How long it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Until it is stopped.
    Forever,
    /// Until what is there has been delivered, or can't be for now.
    Once,
}

/// What comes from outside.
#[derive(Clone)]
pub struct Surroundings {
    /// Who listens.
    pub monitor: Arc<dyn Monitor>,
    /// Keys, agent, `known_hosts`.
    pub ssh: SshEnvironment,
    /// The time of day.
    pub clock: Clock,
    /// Whether a person has allowed deletions that are otherwise held back.
    pub allow_deletes: bool,
    /// Stops it.
    pub stop: CancellationToken,
}

/// How things stood when it ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// What each configured vessel still has to get.
    pub backlog: Vec<Backlog>,
    /// What is parked.
    pub parked: Vec<Parked>,
    /// Directories that couldn't be used, or not wholly, and why.
    pub troubles: Vec<(DirectoryName, String)>,
}

impl Report {
    /// Whether every vessel has everything.
    pub fn is_all_delivered(&self) -> bool {
        self.troubles.is_empty() && self.backlog.iter().all(|backlog| backlog.waiting == 0)
    }
}

/// Most parked files that a report names.
const MOST_PARKED: u32 = 1000;

struct Plan {
    settings: Settings,
    ledger: Ledger,
    feed: Feed,
    surroundings: Surroundings,
    mode: Mode,
    reins: HashMap<VesselName, Reins>,
    orders: Orders,
    /// Everybody who listens.
    monitor: Arc<dyn Monitor>,
    live: Arc<Live>,
    retire_bells: HashMap<DirectoryName, Bell>,
    directories: HashMap<DirectoryName, Arc<settings::Directory>>,
    taken_in: HashMap<DirectoryName, watch::Sender<bool>>,
    troubles: HashMap<DirectoryName, watch::Sender<Option<String>>>,
    /// Why nothing new is taken in.
    no_room: watch::Sender<Option<String>>,
}

/// Runs the program until it is stopped or, with [`Mode::Once`], until there is nothing more to do.
///
/// # Errors
/// A [`Fault`] when the ledger can't be opened or fails, or a task breaks down. Everything else is logged and tried again.
pub async fn run(mut settings: Settings, mode: Mode, surroundings: Surroundings) -> Result<Report, Fault> {
    find_single_files(&mut settings);
    let ledger = Ledger::open(&settings.monster.database, surroundings.clock.clone()).await.map_err(|e| e.fault())?;
    let plan = Plan::new(settings, ledger, surroundings, mode).await?;
    for directory in plan.directories() {
        directory.prepare().await?;
    }
    let beside = plan.start_beside().await?;
    let views = plan.start_views().await?;
    let outcome = plan.work().await;
    beside.end(mode).await;
    views.end().await;
    outcome?;
    plan.report().await
}

/// Whether a `Location` is one file or a directory shows on the disk alone.
fn find_single_files(settings: &mut Settings) {
    let directories = settings.directories.drain(..);
    let found = directories.map(|one| if local::is_file(&one.location) { one.of_one_file() } else { one });
    settings.directories = found.collect();
}

/// Waits until all tasks have ended or one has failed.
async fn all(tasks: &mut JoinSet<Result<(), Fault>>) -> Result<(), Fault> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|e| Fault::daemon(format_args!("a task broke down: {e}")))??;
    }
    Ok(())
}

impl Plan {
    async fn new(settings: Settings, ledger: Ledger, surroundings: Surroundings, mode: Mode) -> Result<Self, Fault> {
        let paused = ledger.paused().await.map_err(|e| e.fault())?;
        let reins = |v: &settings::Vessel| {
            let paused = watch::Sender::new(paused.contains(&v.name));
            (v.name.clone(), Reins { bell: Bell::new(), hurry: Bell::new(), paused })
        };
        let reins: HashMap<_, _> = settings.vessels.iter().map(reins).collect();
        let live = Arc::new(Live::new(surroundings.clock.clone()));
        Ok(Self {
            orders: Orders::new(ledger.clone(), reins.clone()),
            reins,
            monitor: Arc::new(All(vec![surroundings.monitor.clone(), live.clone()])),
            live,
            retire_bells: settings.directories.iter().map(|d| (d.name.clone(), Bell::new())).collect(),
            directories: settings.directories.iter().map(|d| (d.name.clone(), Arc::new(d.clone()))).collect(),
            taken_in: settings.directories.iter().map(|d| (d.name.clone(), watch::Sender::new(false))).collect(),
            troubles: settings.directories.iter().map(|d| (d.name.clone(), watch::Sender::new(None))).collect(),
            no_room: watch::Sender::new(None),
            feed: Feed::new(settings.monster.cache),
            settings,
            ledger,
            surroundings,
            mode,
        })
    }

    /// Runs the tasks of the shore and of the vessels to their end.
    async fn work(&self) -> Result<(), Fault> {
        let stop = self.surroundings.stop.clone();
        let mut shore_tasks = self.start_shore();
        let mut vessel_tasks = self.start_vessels();
        let _service = service::announce(&self.settings, stop.clone());

        let outcome = tokio::select! {
            outcome = async {
                all(&mut vessel_tasks).await?;
                // Vessels that nothing can be delivered to have ended early; what they miss belongs into the report.
                self.all_taken_in().await;
                Ok(())
            } => outcome,
            outcome = all(&mut shore_tasks) => outcome,
        };
        let done = !stop.is_cancelled();
        stop.cancel();
        outcome.and(all(&mut vessel_tasks).await).and(all(&mut shore_tasks).await)?;
        if done {
            // A single run ends with the vessels; what they acknowledged last is still to be retired.
            for directory in self.directories().filter(|directory| !directory.settings.is_mirror()) {
                shore::retire_all(&directory).await?;
            }
        }
        Ok(())
    }

    fn start_shore(&self) -> JoinSet<Result<(), Fault>> {
        let mut tasks = JoinSet::new();
        for directory in self.directories() {
            tasks.spawn(shore::watch_over(directory.clone()));
            if !directory.settings.is_mirror() {
                tasks.spawn(shore::retire(directory));
            }
        }
        tasks
    }

    fn directories(&self) -> impl Iterator<Item = shore::Directory> {
        self.settings.directories.iter().map(|directory| self.directory(&directory.name))
    }

    fn directory(&self, name: &DirectoryName) -> shore::Directory {
        let vessels = self.settings.vessels_of(name);
        shore::Directory {
            settings: self.directories[name].clone(),
            chunk_size: self.settings.monster.chunk_size,
            vessels: vessels.into_iter().map(|v| (v.clone(), self.reins[&v].bell.clone())).collect(),
            retire_bell: self.retire_bells[name].clone(),
            ledger: self.ledger.clone(),
            feed: self.feed.clone(),
            monitor: self.monitor.clone(),
            clock: self.surroundings.clock.clone(),
            taken_in: self.taken_in[name].clone(),
            trouble: self.troubles[name].clone(),
            no_room: self.no_room.subscribe(),
            allow_deletes: self.surroundings.allow_deletes,
            stop: self.surroundings.stop.clone(),
        }
    }

    fn start_vessels(&self) -> JoinSet<Result<(), Fault>> {
        let ssh = Arc::new(self.surroundings.ssh.clone());
        let directories: HashMap<_, _> = self
            .directories
            .iter()
            .map(|(name, directory)| (name.clone(), (directory.clone(), self.retire_bells[name].clone())))
            .collect();
        let limiter = |schedule: &RateSchedule| RateLimiter::new(schedule.clone(), self.surroundings.clock.clone());
        let shore_limit = limiter(&self.settings.monster.rate_limit);
        let mut tasks = JoinSet::new();
        for settings in &self.settings.vessels {
            let taken = self.taken_in.iter().filter(|(name, _)| settings.takes(name));
            let taken_in = || taken.map(|(_, taken_in)| taken_in.subscribe()).collect();
            tasks.spawn(vessel::serve(vessel::Vessel {
                settings: Arc::new(settings.clone()),
                directories: directories.clone(),
                bell: self.reins[&settings.name].bell.clone(),
                hurry: self.reins[&settings.name].hurry.clone(),
                paused: self.reins[&settings.name].paused.subscribe(),
                ledger: self.ledger.clone(),
                feed: self.feed.clone(),
                monitor: self.monitor.clone(),
                clock: self.surroundings.clock.clone(),
                limit: limiter(&settings.rate_limit).within(&shore_limit),
                environment: ssh.clone(),
                until_done: (self.mode == Mode::Once).then(taken_in),
                stop: self.surroundings.stop.clone(),
            }));
        }
        tasks
    }

    /// Waits until everything that was there at start is in the ledger, or it was stopped.
    async fn all_taken_in(&self) {
        for taken_in in self.taken_in.values() {
            let mut taken_in = taken_in.subscribe();
            let waiting = taken_in.wait_for(|taken_in| *taken_in);
            if self.surroundings.stop.run_until_cancelled(waiting).await.is_none() {
                return;
            }
        }
    }

    async fn report(&self) -> Result<Report, Fault> {
        let mut backlog = self.ledger.backlog().await.map_err(|e| e.fault())?;
        backlog.retain(|backlog| self.reins.contains_key(&backlog.vessel));
        let parked = self.ledger.parked(MOST_PARKED).await.map_err(|e| e.fault())?;
        let trouble = |(name, trouble): (&DirectoryName, &watch::Sender<Option<String>>)| {
            trouble.borrow().clone().map(|trouble| (name.clone(), trouble))
        };
        Ok(Report { backlog, parked, troubles: self.troubles.iter().filter_map(trouble).collect() })
    }
}
