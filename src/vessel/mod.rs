//! A vessel's workflow: connect, run due deliveries, retry.
//!
//! [`supervise()`] is the only task of a vessel: it connects, backs off and reconnects until it is stopped. During a
//! session the scheduler decides which deliveries run; `transfer` executes each delivery over the connections of
//! `link`.
//!
//! Vessel tasks do not depend on one another, nor on how files got into the ledger.

mod announcements;
mod blocked_places;
mod check;
mod due_work;
mod failed_delivery;
mod late_changes;
mod levels;
mod limited_way;
mod path_locks;
mod retry_waits;
mod running;
mod scheduler;
mod session_memory;
mod supervisor;
mod trial;
mod way_failover;
mod ways;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::link::{Compressor, Limits, Link};
use crate::local::SourceCache;
use crate::monitor::Monitor;
use crate::settings;
use crate::transfer::Directories;
use crate::transport::SshEnvironment;

pub use check::{Finding, check};
pub use late_changes::LateChanges;
pub use supervisor::supervise;
pub use ways::Way;

/// One vessel and everything that its task needs.
#[derive(Clone)]
pub struct Vessel {
    /// The vessel's settings.
    pub settings: Arc<settings::Vessel>,
    /// All directories with their current settings.
    pub directories: Directories,
    /// Rung when there may be something to deliver.
    pub bell: Bell,
    /// Rung when a user requests an immediate retry.
    pub hurry: Bell,
    /// Whether the vessel is paused.
    pub paused: watch::Receiver<bool>,
    /// Cache of source files, shared with the other vessels.
    pub source_cache: SourceCache,
    /// The ledger.
    pub ledger: Ledger,
    /// Receiver of events.
    pub monitor: Arc<dyn Monitor>,
    /// Clock for the time of day.
    pub clock: Clock,
    /// The ways to the vessel, the preferred one first; at least one.
    pub ways: Vec<Way>,
    /// Keys, agent and `known_hosts`.
    pub environment: Arc<SshEnvironment>,
    /// In a single run (`--once`), tells for each directory whether its files were taken in; the task ends when all
    /// files are delivered. Otherwise `None`.
    pub until_done: Option<Vec<watch::Receiver<bool>>>,
    /// Whether the vessel's inability to store some times was already reported.
    pub told_of_times: Arc<AtomicBool>,
    /// The paths that requests of lost connections may still change.
    pub late: LateChanges,
    /// Compresses ranges of files, within limits that all vessels share.
    pub compressor: Compressor,
    /// Stops the task at a point from which the next task can resume.
    pub stop: CancellationToken,
}

impl Vessel {
    /// Returns the data that each session over a way to the vessel needs.
    fn link(&self, way: &Way) -> Link {
        Link {
            settings: way.settings.clone(),
            environment: self.environment.clone(),
            instance: self.ledger.instance(),
            way: way.limits.clone(),
            parallel: self.parallel_ways(way),
            monitor: self.monitor.clone(),
            told_of_times: self.told_of_times.clone(),
            compressor: self.compressor.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Returns the ways that are used in parallel with `way`: all others, if the settings say so.
    fn parallel_ways(&self, way: &Way) -> Vec<(Arc<settings::Vessel>, Limits)> {
        if !self.settings.together {
            return Vec::new();
        }
        let others = self.ways.iter().filter(|other| !Arc::ptr_eq(&other.settings, &way.settings));
        others.map(|other| (other.settings.clone(), other.limits.clone())).collect()
    }

    /// Waits until the vessel is paused (`true`) or no longer paused (`false`).
    async fn becomes_paused(&self, paused: bool) {
        if self.paused.clone().wait_for(|now| *now == paused).await.is_err() {
            // The sender was dropped, so the state can't change any more.
            std::future::pending().await
        }
    }
}
