//! Reports events to recipients outside the program: runs commands, posts to webhooks, sends heartbeats.
//!
//! The ledger records an event together with its cause and removes the event after it was reported. So a crash loses no
//! event, but an event may be reported twice. The commands share one task, and each webhook and the heartbeat have a
//! task of their own, so an unreachable recipient delays neither the file deliveries nor the other recipients. Without
//! recipients, no events are recorded.

mod budgets;
mod commands;
mod facts;
mod heartbeat;
mod hooks;
mod http;
mod incidents;
mod log_once;
mod process;
mod webhook;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError, Listener};
use crate::link::LinkUsage;
use crate::names::DirectoryName;
use crate::records::EventKind;
use crate::settings::Settings;
use crate::text::counted;

pub use heartbeat::Health;
pub use hooks::{HookResults, Hooks};
pub use incidents::{Incident, IncidentKind, Incidents};

/// State that the tasks of all recipients share.
#[derive(Clone)]
struct Desk {
    settings: Arc<Settings>,
    ledger: Ledger,
    clock: Clock,
    /// The results of the recipients, for the status.
    hooks: Hooks,
    /// Cancelled to end the task of a recipient once no event is left for it, or once the recipient is unreachable.
    finish: CancellationToken,
    /// Cancelled to end the task of a recipient within seconds.
    stop: CancellationToken,
}

/// The tasks of all recipients.
pub struct Notifications {
    tasks: JoinSet<()>,
    /// The bells that wake the tasks of the recipients.
    bells: Vec<Bell>,
    finish: CancellationToken,
    stop: CancellationToken,
}

impl Notifications {
    /// Starts the notifications that the settings request, beginning with the events that are pending in the ledger.
    /// Must be called before any delivery, so that no event is missed. Calls `health` before each heartbeat, compares
    /// `usage` with the budgets, stores the results of the recipients in `hooks`, and calls `incidents` to get the
    /// troubles that last.
    ///
    /// # Errors
    /// When the ledger can't be used. Later errors are only logged.
    pub async fn start(
        settings: &Settings,
        ledger: &Ledger,
        clock: &Clock,
        health: Health,
        usage: &LinkUsage,
        hooks: &Hooks,
        incidents: Incidents,
    ) -> Result<Self, LedgerError> {
        let (finish, stop) = (CancellationToken::new(), CancellationToken::new());
        let desk = Desk {
            settings: Arc::new(settings.clone()),
            ledger: ledger.clone(),
            clock: clock.clone(),
            hooks: hooks.clone(),
            finish: finish.clone(),
            stop: stop.clone(),
        };
        let names = names(settings);
        hooks.keep(|name| names.iter().any(|known| known == name));
        let (mut tasks, mut listeners) = (JoinSet::new(), Vec::new());
        let commanded = commands::wants(settings);
        if !commanded.is_empty() {
            let bell = Bell::new();
            listeners.push(Listener { channel: commands::CHANNEL.to_owned(), wants: commanded, bell: bell.clone() });
            tasks.spawn(commands::run(desk.clone(), bell));
        }
        let web = &settings.monster.notifications;
        let client = http::Client::new(web.webhooks.iter().chain(&web.heartbeat)).await;
        for address in &web.webhooks {
            let (channel, bell) = (webhook::channel(address), Bell::new());
            if listeners.iter().any(|listener| listener.channel == channel) {
                continue;
            }
            listeners.push(Listener { channel: channel.clone(), wants: everything(settings), bell: bell.clone() });
            tasks.spawn(webhook::post(desk.clone(), client.clone(), address.clone(), channel, bell));
        }
        tasks.spawn(budgets::watch(desk.clone(), client.clone(), usage.clone()));
        tasks.spawn(incidents::watch(desk.clone(), client.clone(), incidents));
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
        let bells = listeners.into_iter().map(|listener| listener.bell).collect();
        Ok(Self { tasks, bells, finish, stop })
    }

    /// Makes the ledger record events and ring `bell` for them. Another shore reports these events to the recipients.
    ///
    /// # Errors
    /// When the ledger can't be used.
    pub async fn only_record(settings: &Settings, ledger: &Ledger, bell: &Bell) -> Result<Self, LedgerError> {
        let mut listeners = Vec::new();
        let commanded = commands::wants(settings);
        if !commanded.is_empty() {
            listeners.push(Listener { channel: commands::CHANNEL.to_owned(), wants: commanded, bell: bell.clone() });
        }
        for address in &settings.monster.notifications.webhooks {
            let channel = webhook::channel(address);
            if listeners.iter().all(|listener| listener.channel != channel) {
                listeners.push(Listener { channel, wants: everything(settings), bell: bell.clone() });
            }
        }
        ledger.listen(&listeners).await?;
        let (finish, stop) = (CancellationToken::new(), CancellationToken::new());
        Ok(Self { tasks: JoinSet::new(), bells: Vec::new(), finish, stop })
    }

    /// Wakes the tasks of all recipients.
    pub fn ring(&self) {
        self.bells.iter().for_each(Bell::ring);
    }

    /// Ends the tasks within seconds; events that are still pending stay in the ledger.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends the tasks once all events for reachable recipients are delivered.
    pub async fn finish(mut self) {
        self.finish.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Returns the names of all commands, webhooks and the heartbeat, as [`Hooks`] stores them.
fn names(settings: &Settings) -> Vec<String> {
    let recipients = &settings.monster.notifications;
    let hooks =
        settings.directories.iter().flat_map(|one| EventKind::ALL.into_iter().map(move |kind| one.hooks.on(kind)));
    let commands = hooks.chain([&recipients.on_budget[..], &recipients.on_trouble[..]]);
    let commands = commands.filter_map(|words| words.first()).map(|program| format!("command {program}"));
    let webhooks = recipients.webhooks.iter().map(|address| format!("webhook {address}"));
    commands.chain(webhooks).chain(recipients.heartbeat.iter().map(|address| format!("heartbeat {address}"))).collect()
}

/// Returns every kind of event for every directory. Leaves out retirements in mirrors, because sources in a mirror
/// never retire.
fn everything(settings: &Settings) -> Vec<(DirectoryName, EventKind)> {
    let of = |directory: &crate::settings::Directory| {
        let kinds = EventKind::ALL.into_iter().filter(|one| *one != EventKind::Retired || !directory.is_mirror());
        kinds.map(|kind| (directory.name.clone(), kind)).collect::<Vec<_>>()
    };
    settings.directories.iter().flat_map(of).collect()
}
