//! Background tasks: housekeeping and notifications.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Daemon;
use super::shores::Shared;
use crate::clock::{Clock, wait_between};
use crate::fault::Fault;
use crate::housekeeping::Housekeeping;
use crate::ledger::Work;
use crate::names::VesselName;
use crate::notifications::{Health, Incidents, Notifications};
use crate::orders::Orders;
use crate::status::Live;

/// The daemon's background tasks.
pub(super) struct Background {
    house: Housekeeping,
    notifications: Notifications,
}

impl Background {
    /// Stops the tasks; events that are still pending stay in the ledger.
    pub(super) async fn stop(self) {
        self.house.stop().await;
        self.notifications.stop().await;
    }

    /// Wakes the notifications, because another shore has recorded notices.
    pub(super) fn ring(&self) {
        self.notifications.ring();
    }
}

impl Daemon {
    /// Starts the background tasks, after stopping those of earlier settings. Must be called before the workflows
    /// start, so that no file is admitted without free space and no event is missed.
    ///
    /// # Errors
    /// When the ledger can't be used.
    pub(super) async fn start_background(&mut self) -> Result<(), Fault> {
        if let Some(background) = self.background.take() {
            background.stop().await;
        }
        let clock = &self.surroundings.clock;
        let elsewhere = self.shared.as_ref().filter(|shared| !shared.holds(&Work::Housekeeping));
        let ledger = match elsewhere {
            None => self.ledger.of_work(&Work::Housekeeping),
            Some(_) => self.ledger.clone(),
        };
        let notifications = match elsewhere {
            Some(shared) => Notifications::only_record(&self.settings, &ledger, &shared.notices).await,
            None => {
                let (health, incidents) = (self.health(), self.incidents());
                Notifications::start(&self.settings, &ledger, clock, health, &self.usage, &self.hooks, incidents).await
            }
        };
        let notifications = notifications.map_err(|e| e.fault())?;
        let prunes = elsewhere.is_none();
        let house =
            Housekeeping::start(&self.settings, &ledger, clock, &self.free_spaces, &self.low_space, prunes).await;
        self.background = Some(Background { house, notifications });
        Ok(())
    }

    /// Stops the background tasks. With `--once`, notifications for reachable recipients are delivered first.
    pub(super) async fn stop_background(&mut self) {
        let Some(Background { house, notifications }) = self.background.take() else { return };
        house.stop().await;
        if self.once {
            notifications.finish().await;
        } else {
            notifications.stop().await;
        }
    }

    /// Returns a function that queries the current incidents, as the status shows them.
    fn incidents(&self) -> Incidents {
        let gatherer = self.gatherer.subscribe();
        Arc::new(move || {
            let gatherer = gatherer.borrow().clone();
            Box::pin(async move { gatherer.incidents().await.map_err(|e| e.to_string()) })
        })
    }

    /// Returns the health check for the heartbeat. The program is healthy while files can be admitted and at least one
    /// vessel that is not paused is reachable. Errors of single files don't stop the heartbeat.
    fn health(&self) -> Health {
        let paused = self.vessels.iter().map(|(name, vessel)| (name.clone(), vessel.controls.paused.subscribe()));
        let vessels: Vec<_> = paused.collect();
        let (low_space, live) = (self.low_space.subscribe(), self.live.clone());
        Arc::new(move || low_space.borrow().clone().or_else(|| unreached(&vessels, &live)))
    }
}

/// Returns a reason if every vessel that is not paused is unreachable; otherwise, or if all vessels are paused, `None`.
fn unreached(vessels: &[(VesselName, watch::Receiver<bool>)], live: &Live) -> Option<String> {
    let mut wanted = vessels.iter().filter(|(_, paused)| !*paused.borrow()).peekable();
    (wanted.peek().is_some() && wanted.all(|(name, _)| live.is_away(name)))
        .then(|| "no vessel can be reached".to_owned())
}

/// Maximum time between two checks while a pause with an end is recorded. The checks are repeated because the clock may
/// be set.
const LONGEST_CHECK: Duration = Duration::from_secs(30);

/// Resumes vessels and directories when their pauses end, while this shore has the housekeeping; never returns.
pub(super) async fn end_pauses(orders: Orders, clock: Clock, shared: Option<Arc<Shared>>) {
    loop {
        if shared.as_ref().is_some_and(|shared| !shared.holds(&Work::Housekeeping)) {
            tokio::select! {
                () = orders.pause_recorded() => {}
                () = tokio::time::sleep(LONGEST_CHECK) => {}
            }
            continue;
        }
        let wait = match orders.end_pauses().await {
            Ok(None) => None,
            Ok(Some(next)) => Some(wait_between(clock.now_ms(), next).min(LONGEST_CHECK)),
            Err(e) => {
                tracing::warn!("Cannot query the ledger for ended pauses: {}", e.fault());
                Some(LONGEST_CHECK)
            }
        };
        tokio::select! {
            () = orders.pause_recorded() => {}
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
}
