//! Reports events to others: runs commands, posts to webhooks, sends heartbeats.
//!
//! Pending events are kept in the ledger, recorded together with their cause and removed after their delivery, so that
//! a crash loses none and may repeat one. Each recipient has its own task; none of them delays a delivery, and an
//! unreachable recipient delays no other. Without recipients, nothing is recorded and no task runs.

mod commands;
mod facts;
mod heartbeat;
mod http;
mod log_once;
mod process;
mod webhook;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError, Listener};
use crate::names::DirectoryName;
use crate::records::EventKind;
use crate::settings::Settings;
use crate::text::counted;

pub use heartbeat::Health;

/// Shared state of all recipients' tasks.
#[derive(Clone)]
struct Desk {
    settings: Arc<Settings>,
    ledger: Ledger,
    clock: Clock,
    /// The token that ends a recipient's task when no event is left for it, or the recipient is unreachable.
    finish: CancellationToken,
    /// The token that ends the task soon.
    stop: CancellationToken,
}

/// The recipients' tasks.
pub struct Notifications {
    tasks: JoinSet<()>,
    finish: CancellationToken,
    stop: CancellationToken,
}

impl Notifications {
    /// Starts the notifications that the settings request, beginning with pending events in the ledger. Call it before
    /// any delivery, so that no event is missed. `health` is checked before each heartbeat.
    ///
    /// # Errors
    /// When the ledger can't be used. Later errors are logged.
    pub async fn start(
        settings: &Settings,
        ledger: &Ledger,
        clock: &Clock,
        health: Health,
    ) -> Result<Self, LedgerError> {
        let (finish, stop) = (CancellationToken::new(), CancellationToken::new());
        let desk = Desk {
            settings: Arc::new(settings.clone()),
            ledger: ledger.clone(),
            clock: clock.clone(),
            finish: finish.clone(),
            stop: stop.clone(),
        };
        let (mut tasks, mut listeners) = (JoinSet::new(), Vec::new());
        let commanded = commands::wants(settings);
        if !commanded.is_empty() {
            let bell = Bell::new();
            listeners.push(Listener { channel: commands::CHANNEL.to_owned(), wants: commanded, bell: bell.clone() });
            tasks.spawn(commands::run(desk.clone(), bell));
        }
        let web = &settings.monster.telling;
        let client = http::Client::new(web.webhooks.iter().chain(&web.heartbeat)).await;
        for address in &web.webhooks {
            let (channel, bell) = (webhook::channel(address), Bell::new());
            if listeners.iter().any(|listener| listener.channel == channel) {
                continue;
            }
            listeners.push(Listener { channel: channel.clone(), wants: everything(settings), bell: bell.clone() });
            tasks.spawn(webhook::post(desk.clone(), client.clone(), address.clone(), channel, bell));
        }
        if let Some(address) = &web.heartbeat {
            tasks.spawn(heartbeat::beat(desk.clone(), client, address.clone(), health));
        }
        let dropped = ledger.listen(&listeners).await?;
        if dropped > 0 {
            tracing::warn!(
                "Dropped {} for commands and webhooks that are no longer in the settings",
                counted(dropped, "event")
            );
        }
        Ok(Self { tasks, finish, stop })
    }

    /// Ends the tasks within seconds; pending events stay in the ledger.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends the tasks when all events for reachable recipients are delivered.
    pub async fn finish(mut self) {
        self.finish.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Returns every kind of event for every directory. A mirror's sources stay, so they never retire.
fn everything(settings: &Settings) -> Vec<(DirectoryName, EventKind)> {
    let of = |directory: &crate::settings::Directory| {
        let kinds = EventKind::ALL.into_iter().filter(|one| *one != EventKind::Retired || !directory.is_mirror());
        kinds.map(|kind| (directory.name.clone(), kind)).collect::<Vec<_>>()
    };
    settings.directories.iter().flat_map(of).collect()
}
