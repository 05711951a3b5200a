//! Keeps house on the shore: looks after the room on its disks, and keeps the ledger from growing for ever.
//!
//! All of it is done beside the work, in small steps, and none of it stops the work but a lack of room: what the ledger can't
//! remember must not be taken in.

mod disk_space;
mod history;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::local::Rooms;
use crate::settings::Settings;

/// The tasks that keep house.
pub struct Housekeeping {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Housekeeping {
    /// Starts them. In `no_room` stands why nothing may be taken in, as long as that is so; it is right when this returns.
    pub async fn start(
        settings: &Settings,
        ledger: &Ledger,
        clock: &Clock,
        rooms: &Rooms,
        no_room: &watch::Sender<Option<String>>,
    ) -> Self {
        let (settings, stop) = (Arc::new(settings.clone()), CancellationToken::new());
        let mut guard = disk_space::Guard::new(&settings, rooms.clone(), no_room.clone());
        guard.look().await;
        let history = history::keep(settings, ledger.clone(), clock.clone(), stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(guard.watch()).await;
            }
        });
        tasks.spawn(history);
        Self { tasks, stop }
    }

    /// Ends them.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
