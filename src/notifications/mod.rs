//! Tells others what happens: runs commands, posts to webhooks, asks a heartbeat's address.
//!
//! What is to be told waits in the ledger, entered with what it tells of and removed once it was told, so that a crash loses
//! none of it and may tell a thing twice. Each recipient has a task of its own; none of them holds up a delivery, and a
//! recipient that does not listen holds up no other. Where nobody is to be told, nothing is entered and no task runs.

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

pub use heartbeat::Health;

/// What all recipients need.
#[derive(Clone)]
struct Desk {
    settings: Arc<Settings>,
    ledger: Ledger,
    clock: Clock,
    /// Once it is set, a recipient ends when there is nothing more to tell it, or it does not listen.
    finish: CancellationToken,
    /// Ends it soon.
    stop: CancellationToken,
}

/// The tasks that tell.
pub struct Notifications {
    tasks: JoinSet<()>,
    finish: CancellationToken,
    stop: CancellationToken,
}

impl Notifications {
    /// Starts notifications what the settings want told, beginning with what waits in the ledger. To be called before anything is
    /// delivered, so that nothing happens unnoticed. `health` is asked before each heartbeat.
    ///
    /// # Errors
    /// When the ledger can't be used. What goes wrong later is logged.
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
                "Dropped {dropped} events: the commands and webhooks for them are no longer in the settings"
            );
        }
        Ok(Self { tasks, finish, stop })
    }

    /// Ends it within seconds; what was not told stays in the ledger.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends it when all is told that anybody listens to.
    pub async fn finish(mut self) {
        self.finish.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Every kind of every directory. A mirror's sources stay, so nothing is retired there.
fn everything(settings: &Settings) -> Vec<(DirectoryName, EventKind)> {
    let of = |directory: &crate::settings::Directory| {
        let kinds = EventKind::ALL.into_iter().filter(|one| *one != EventKind::Retired || !directory.is_mirror());
        kinds.map(|kind| (directory.name.clone(), kind)).collect::<Vec<_>>()
    };
    settings.directories.iter().flat_map(of).collect()
}
