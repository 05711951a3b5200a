//! Housekeeping on the shore: monitors free space, and limits the growth of the ledger.
//!
//! The tasks run in small steps in the background. Low disk space stops the admission of files, because the ledger
//! could not record them; otherwise these tasks don't affect the workflows.

mod disk_space;
mod history;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::local::FreeSpaces;
use crate::settings::Settings;

/// The housekeeping tasks.
pub struct Housekeeping {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Housekeeping {
    /// Starts the tasks. If `prunes` is false, another shore prunes the ledger, so this shore does not. `low_space`
    /// receives the reason while no files may be admitted; its value is up to date when this call returns.
    pub async fn start(
        settings: &Settings,
        ledger: &Ledger,
        clock: &Clock,
        free_spaces: &FreeSpaces,
        low_space: &watch::Sender<Option<String>>,
        prunes: bool,
    ) -> Self {
        let (settings, stop) = (Arc::new(settings.clone()), CancellationToken::new());
        let mut guard = disk_space::Guard::new(&settings, free_spaces.clone(), low_space.clone());
        guard.look().await;
        let history = history::keep(settings, ledger.clone(), clock.clone(), stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(guard.watch()).await;
            }
        });
        if prunes {
            tasks.spawn(history);
        }
        Self { tasks, stop }
    }

    /// Stops the tasks.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
