//! Assembles the program: opens the ledger, starts the tasks and connects them by bells, and stops the tasks in order.
//!
//! The tasks communicate only through the ledger and through bells:
//!
//! ```text
//!   Location ──▶ shore::ingest ──────────▶ ledger ◀────────── vessel::supervise ──▶ vessel
//!   (one for     (one for each directory)    │                (one for each vessel)
//!    each)             │                     │                        ▲      │
//!                      └──── the vessels' bells: new deliveries ──────┘      │
//!   processed/ ◀── shore::retire ◀─ retire_bell: a vessel acknowledged ──────┘
//!                  (one for each directory that is not a mirror)
//!
//!   beside them:   housekeeping (free space, history), notifications (commands, webhooks, heartbeat),
//!                  the record of the bytes on the link
//!   for people:    views (status page, metrics, socket), orders (pause, retry, forget)
//! ```
//!
//! [`run`] starts the parts in this order: the ledger, the background tasks, the views, then the tasks of the shore and
//! of the vessels. When it stops, all tasks of the vessels and of the shore end first, then the background tasks, which
//! with `--once` first send the remaining notifications. Then the views end, and the ledger is closed last.

mod background;
mod hint_relay;
mod link_usage;
mod opening;
mod reload;
mod sections;
mod service;
mod shores;
mod simulation;
mod views;
mod ways;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::bell::Bell;
use crate::clock::Clock;
use crate::fault::Fault;
use crate::ledger::{Hint, Ledger, Parked, Work};
use crate::link::{Compressor, LinkUsage};
use crate::local::{FreeSpaces, SourceCache};
use crate::monitor::{All, Monitor};
use crate::names::{DirectoryName, VesselName};
use crate::notifications::Hooks;
use crate::orders::Orders;
use crate::rate_limit::RateLimiter;
use crate::records::Backlog;
use crate::settings::Settings;
use crate::shore;
use crate::status::{Done, Gatherer, Live, LogLines, Place, Reload};
use crate::transport::SshEnvironment;

use background::Background;
use link_usage::LinkRecords;
use sections::{DirectoryAtWork, Tasks, VesselAtWork};
use service::Service;
use shores::{Events, Shared};
use ways::Links;

pub use reload::Reloads;
pub use simulation::{Intention, simulate, simulate_on};

/// How long the daemon runs.
#[derive(Debug)]
pub enum Mode {
    /// The daemon runs until it is stopped, and applies new settings as they arrive.
    Forever(Reloads),
    /// The daemon runs until each file has been delivered, or can't be delivered for now.
    Once,
}

/// The parts of the environment that the daemon depends on.
#[derive(Clone)]
pub struct Surroundings {
    /// The receiver of the daemon's events.
    pub monitor: Arc<dyn Monitor>,
    /// Keys, SSH agent and `known_hosts` files.
    pub ssh: SshEnvironment,
    /// The source of the current time.
    pub clock: Clock,
    /// The last lines of the log, for the status.
    pub log: LogLines,
    /// Whether a person has allowed deletions that are otherwise held back.
    pub allow_deletes: bool,
    /// The token that stops the daemon.
    pub stop: CancellationToken,
}

/// The state at the end of a run of the daemon.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The numbers of deliveries that each configured vessel acknowledged in this run.
    pub done: HashMap<VesselName, Done>,
    /// Outstanding deliveries of each configured vessel.
    pub backlog: Vec<Backlog>,
    /// Parked deliveries.
    pub parked: Vec<Parked>,
    /// Directories that can't be used completely at the end of the run, each with a reason.
    pub troubles: Vec<(DirectoryName, String)>,
}

impl Report {
    /// Returns whether every vessel has every file, and no directory has an error.
    pub fn is_all_delivered(&self) -> bool {
        self.troubles.is_empty() && self.backlog.iter().all(|backlog| backlog.waiting == 0)
    }
}

/// Timeout for closing the ledger.
const CLOSING: Duration = Duration::from_secs(5);

/// Maximum number of parked files in a report.
const MOST_PARKED: u32 = 1000;

/// The events that the main loop handles.
enum Event {
    /// New settings.
    Read(Box<reload::Read>),
    /// A location may have turned from a file into a directory, or the reverse.
    Location,
    /// A hint of another shore.
    Hint(Hint),
}

struct Daemon {
    settings: Settings,
    ledger: Ledger,
    source_cache: SourceCache,
    /// Limits of memory and processors for compression, which all vessels share.
    compressor: Compressor,
    surroundings: Surroundings,
    ssh: Arc<SshEnvironment>,
    /// Whether the daemon ends when nothing is left to do.
    once: bool,
    orders: Orders,
    /// All receivers of events, combined.
    monitor: Arc<dyn Monitor>,
    live: Arc<Live>,
    /// The rate limit of the shore, which all vessels share in addition to their own limits.
    shore_limit: RateLimiter,
    /// The bytes on the links, by day.
    usage: LinkUsage,
    links: Links,
    /// The results of commands, webhooks and heartbeats.
    hooks: Hooks,
    directories: HashMap<DirectoryName, DirectoryAtWork>,
    vessels: HashMap<VesselName, VesselAtWork>,
    /// Rung when a `Location` changed from a file to a directory or back, so that its kind is determined again.
    decide_again: Bell,
    /// The current directories, which the vessels' tasks look up by name.
    served: crate::transfer::Directories,
    /// The result of the last reload of the settings.
    reloaded: Option<Reload>,
    gatherer: watch::Sender<Arc<Gatherer>>,
    /// Free space on the shore's disks.
    free_spaces: FreeSpaces,
    /// The report of low disk space while no new files are admitted; `None` while files are admitted.
    low_space: watch::Sender<Option<String>>,
    /// The background tasks while they run.
    background: Option<Background>,
    /// The work of this shore; `None` if there can be no other shores, so that this shore has all work.
    shared: Option<Arc<Shared>>,
}

/// Runs the program until it is stopped or, with [`Mode::Once`], until there is nothing more to do.
///
/// # Errors
/// A [`Fault`] when the ledger can't be opened or fails, or a task panics. All other errors are logged and retried.
pub async fn run(settings: Settings, mode: Mode, surroundings: Surroundings) -> Result<Report, Fault> {
    let (database, clock) = (&settings.monster.database, surroundings.clock.clone());
    // A run with `--once` ends when everything is done, so it must be the only user of the ledger.
    let (once, reloads, ledger) = match mode {
        Mode::Once => (true, None, Ledger::open_at(database, clock).await.map(Some)),
        Mode::Forever(reloads) => (false, Some(reloads), opening::join(database, &clock, &surroundings.stop).await),
    };
    let Some(ledger) = ledger.map_err(|e| e.fault())? else { return Ok(Report::default()) };
    let outcome = run_with(settings, ledger.clone(), reloads, surroundings, once).await;
    // When the ledger is closed, SQLite moves the write-ahead log into the ledger's file, which is then complete
    // without the log.
    let closed = tokio::time::timeout(CLOSING, ledger.close()).await;
    if let Ok(Err(e)) = closed {
        tracing::warn!("Cannot close the ledger, so the next start will recover it: {}", e.fault());
    }
    outcome
}

async fn run_with(
    settings: Settings,
    ledger: Ledger,
    reloads: Option<Reloads>,
    surroundings: Surroundings,
    once: bool,
) -> Result<Report, Fault> {
    let mut daemon = Daemon::new(settings, ledger, surroundings, once).await?;
    daemon.join_shores().await?;
    daemon.release_queues().await?;
    for directory in daemon.directories() {
        if daemon.holds(&Work::Directory(directory.settings.name.clone())) {
            directory.prepare().await?;
        }
    }
    daemon.start_background().await?;
    let views = daemon.start_views().await?;
    let stop_recording = CancellationToken::new();
    let records = LinkRecords::new(daemon.usage.clone(), daemon.ledger.clone(), daemon.shared.is_some());
    let recording = AbortOnDropHandle::new(tokio::spawn(records.run(stop_recording.clone())));
    let pauses =
        background::end_pauses(daemon.orders.clone(), daemon.surroundings.clock.clone(), daemon.shared.clone());
    let pauses = AbortOnDropHandle::new(tokio::spawn(pauses));
    let outcome = daemon.work(reloads).await;
    drop(pauses);
    stop_recording.cancel();
    let recorded = recording
        .await
        .map_err(|e| Fault::daemon(format_args!("the task that records the bytes on the links failed: {e}")));
    daemon.stop_background().await;
    views.end().await;
    outcome.and(recorded)?;
    daemon.report().await
}

/// Waits until all tasks have ended or one task has failed.
async fn all(tasks: &mut JoinSet<Result<(), Fault>>) -> Result<(), Fault> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|e| Fault::daemon(format_args!("a task failed: {e}")))??;
    }
    Ok(())
}

/// Waits for the next settings; never returns when no more settings can arrive.
async fn next(reloads: &mut Option<Reloads>) -> reload::Read {
    match reloads {
        Some(reloads) => match reloads.recv().await {
            Some(read) => read,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

impl Daemon {
    async fn new(settings: Settings, ledger: Ledger, surroundings: Surroundings, once: bool) -> Result<Self, Fault> {
        let paused = ledger.paused().await.map_err(|e| e.fault())?;
        let (clock, stop) = (surroundings.clock.clone(), surroundings.stop.clone());
        let usage = LinkUsage::load(&ledger, surroundings.ssh.meters.clone(), clock.clone()).await;
        let usage = usage.map_err(|e| e.fault())?;
        let live = Arc::new(Live::new(clock.clone()));
        let mut directories = HashMap::new();
        let there = shore::at_locations(settings.directories.iter().map(|d| d.location.clone())).await;
        for (directory, at) in settings.directories.iter().zip(there) {
            let found = sections::as_found(directory, at, &ledger).await?;
            directories.insert(directory.name.clone(), DirectoryAtWork::new(found, &stop));
        }
        let served = crate::transfer::Directories::default();
        let mut daemon = Self {
            orders: Orders::new(ledger.clone(), HashMap::new()).with_directories(served.clone()),
            monitor: Arc::new(All(vec![surroundings.monitor.clone(), live.clone()])),
            live,
            shore_limit: RateLimiter::new(settings.monster.rate_limit.clone(), clock.clone()),
            usage,
            links: Links::new(),
            hooks: Hooks::default(),
            directories,
            decide_again: Bell::new(),
            vessels: HashMap::new(),
            served,
            reloaded: None,
            gatherer: watch::Sender::new(Arc::new(Gatherer::idle(Place::of(&settings), ledger.view(), clock))),
            free_spaces: FreeSpaces::default(),
            low_space: watch::Sender::new(None),
            background: None,
            shared: Shared::new(&ledger),
            source_cache: SourceCache::new(settings.monster.cache),
            compressor: Compressor::default(),
            ssh: Arc::new(surroundings.ssh.clone()),
            settings,
            ledger,
            surroundings,
            once,
        };
        daemon.follow_links();
        let vessel = |v: &crate::settings::Vessel| (v.name.clone(), daemon.new_vessel(v, paused.contains(&v.name)));
        daemon.vessels = daemon.settings.vessels.iter().map(vessel).collect();
        daemon.publish();
        daemon.orders.follow_paused_directories().await.map_err(|e| e.fault())?;
        daemon.show();
        Ok(daemon)
    }

    /// Moves the deliveries of directories that are no longer configured back to the shared queue, where the vessels'
    /// tasks find and park them.
    async fn release_queues(&self) -> Result<(), Fault> {
        let names: Vec<_> = self.settings.directories.iter().map(|directory| directory.name.clone()).collect();
        self.ledger.release_queues(&names).await.map_err(|e| e.fault())
    }

    /// Runs the tasks of the shore and of the vessels until they end.
    async fn work(&mut self, mut reloads: Option<Reloads>) -> Result<(), Fault> {
        let stop = self.surroundings.stop.clone();
        let mut tasks = Tasks::default();
        if self.shared.is_some() {
            // These tasks keep both sets running while this shore has no work.
            for set in [&mut tasks.shore, &mut tasks.vessels] {
                let stop = stop.clone();
                set.spawn(async move {
                    stop.cancelled().await;
                    Ok(())
                });
            }
        }
        let mut events = Events::new(self.ledger.clone(), self.orders.drained());
        self.settings.directories.iter().for_each(|directory| self.start_directory(&directory.name, &mut tasks));
        self.settings.vessels.iter().for_each(|vessel| self.start_vessel(vessel, &mut tasks));
        let service = Service::announce(self.gatherer.subscribe(), self.ledger.clone(), stop.clone());

        let outcome = loop {
            let event = tokio::select! {
                outcome = async {
                    all(&mut tasks.vessels).await?;
                    // Waits, because the tasks of unreachable vessels end early, but the report must count all files
                    // that these vessels lack.
                    self.all_taken_in().await;
                    Ok(())
                } => break outcome,
                outcome = all(&mut tasks.shore) => break outcome,
                read = next(&mut reloads) => Event::Read(Box::new(read)),
                () = self.decide_again.rung() => Event::Location,
                hint = events.next() => Event::Hint(hint),
            };
            let followed = match event {
                Event::Location => {
                    self.tell_locations();
                    self.follow_locations(&mut tasks).await
                }
                // The handling of a hint may wait for an unavailable database. A stop cancels the handling, so that the
                // stop need not wait.
                Event::Hint(hint) => {
                    let following = self.follow_hint(hint, &mut tasks, &mut events);
                    stop.run_until_cancelled(following).await.unwrap_or(Ok(()))
                }
                Event::Read(read) => {
                    service.reloading();
                    let reloaded = self.reload(*read, &mut tasks).await;
                    service.reloaded();
                    match reloaded {
                        Ok(()) => self.follow_settings(&mut tasks, &mut events).await,
                        failed => failed,
                    }
                }
            };
            if followed.is_err() {
                break followed;
            }
        };
        let done = !stop.is_cancelled();
        stop.cancel();
        if outcome.is_ok() {
            self.leave_shores().await;
        }
        outcome.and(all(&mut tasks.vessels).await).and(all(&mut tasks.shore).await)?;
        if done {
            // If the run was not stopped, it ends when the vessels' tasks have ended, so the files that were
            // acknowledged last are retired here. Directories on a disk that doesn't respond are left to the next run.
            let answers = |directory: &shore::Directory| !directory.trouble.borrow().has(&shore::Concern::Unresponsive);
            let retiring = self.directories().filter(|directory| !directory.settings.is_mirror());
            for directory in retiring.filter(answers) {
                if directory.settings.expire.is_some() {
                    shore::expire_now(&directory).await?;
                }
                shore::retire_all(&directory).await?;
            }
        }
        Ok(())
    }

    /// Waits until all files that were present at the start are in the ledger, or the daemon is stopped.
    async fn all_taken_in(&self) {
        for directory in self.directories.values() {
            let mut taken_in = directory.taken_in.subscribe();
            let waiting = taken_in.wait_for(|taken_in| *taken_in);
            if self.surroundings.stop.run_until_cancelled(waiting).await.is_none() {
                return;
            }
        }
    }

    async fn report(&self) -> Result<Report, Fault> {
        let mut backlog = self.ledger.backlog().await.map_err(|e| e.fault())?;
        backlog.retain(|backlog| self.vessels.contains_key(&backlog.vessel));
        let parked = self.ledger.parked(MOST_PARKED).await.map_err(|e| e.fault())?;
        let mut troubles = Vec::new();
        for (name, directory) in &self.directories {
            troubles.extend(directory.trouble.borrow().undone().map(|trouble| (name.clone(), trouble.to_owned())));
        }
        let done = self.vessels.keys().map(|name| (name.clone(), self.live.done(name))).collect();
        Ok(Report { done, backlog, parked, troubles })
    }
}
