//! A vessel's workflow: connect, run what is due, retry.
//!
//! [`supervise()`] is the one task of a vessel: it connects, backs off and reconnects until it is stopped. During a session the
//! scheduler decides which deliveries run; each of them is in `transfer`, on the connections of `link`.
//!
//! Vessels know nothing of one another, and nothing of how files got into the ledger.

mod blocked_places;
mod check;
mod path_locks;
mod scheduler;
mod supervisor;
mod trial;
mod waits;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::link::Link;
use crate::local::SourceCache;
use crate::monitor::Monitor;
use crate::rate_limit::RateLimiter;
use crate::settings;
use crate::transfer::Directories;
use crate::transport::SshEnvironment;

pub use check::{Finding, check};
pub use supervisor::supervise;

/// One vessel and what its task needs.
#[derive(Clone)]
pub struct Vessel {
    /// Its settings.
    pub settings: Arc<settings::Vessel>,
    /// The directories.
    pub directories: Directories,
    /// Rung when there may be something to deliver.
    pub bell: Bell,
    /// Rung when a person wants it tried again now.
    pub hurry: Bell,
    /// Whether it is to be left alone.
    pub paused: watch::Receiver<bool>,
    /// Where sources are read, shared with the other vessels.
    pub source_cache: SourceCache,
    /// The ledger.
    pub ledger: Ledger,
    /// Who listens.
    pub monitor: Arc<dyn Monitor>,
    /// The time of day.
    pub clock: Clock,
    /// How fast bytes of files may go out: its own limit, within the whole shore's.
    pub limit: RateLimiter,
    /// Keys, agent, `known_hosts`.
    pub environment: Arc<SshEnvironment>,
    /// Whether to end when all that is there has been delivered (`--once`), and how to know that it is all.
    pub until_done: Option<Vec<watch::Receiver<bool>>>,
    /// Whether it was said that the vessel can't keep some times.
    pub told_of_times: Arc<AtomicBool>,
    /// Stops the task, at a point from which the next one goes on.
    pub stop: CancellationToken,
}

impl Vessel {
    /// What each session with it needs.
    fn link(&self) -> Link {
        Link {
            settings: self.settings.clone(),
            environment: self.environment.clone(),
            instance: self.ledger.instance(),
            limit: self.limit.clone(),
            monitor: self.monitor.clone(),
            told_of_times: self.told_of_times.clone(),
        }
    }

    /// Waits until it is to be left alone (`true`), or not any more.
    async fn becomes_paused(&self, paused: bool) {
        if self.paused.clone().wait_for(|now| *now == paused).await.is_err() {
            // Nobody is left to say so.
            std::future::pending().await
        }
    }
}
