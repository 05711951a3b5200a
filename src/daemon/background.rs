//! What runs beside the work: whoever keeps house, and whoever tells others what happens.

use std::sync::Arc;

use tokio::sync::watch;

use super::Daemon;
use crate::fault::Fault;
use crate::housekeeping::Housekeeping;
use crate::names::VesselName;
use crate::notifications::{Health, Notifications};
use crate::status::Live;

/// What runs beside the work.
pub(super) struct Background {
    house: Housekeeping,
    notifications: Notifications,
}

impl Daemon {
    /// Starts it, in the place of what ran for other settings. To be called before the work starts, so that nothing is taken
    /// in without room, or happens unnoticed.
    ///
    /// # Errors
    /// When the ledger can't be used.
    pub(super) async fn start_beside(&mut self) -> Result<(), Fault> {
        if let Some(Background { house, notifications }) = self.background.take() {
            house.stop().await;
            notifications.stop().await;
        }
        let (ledger, clock) = (&self.ledger, &self.surroundings.clock);
        let notifications =
            Notifications::start(&self.settings, ledger, clock, self.health()).await.map_err(|e| e.fault())?;
        let house = Housekeeping::start(&self.settings, ledger, clock, &self.rooms, &self.no_room).await;
        self.background = Some(Background { house, notifications });
        Ok(())
    }

    /// Ends it; a single run ends when all is told.
    pub(super) async fn end_beside(&mut self) {
        let Some(Background { house, notifications }) = self.background.take() else { return };
        house.stop().await;
        if self.once {
            notifications.finish().await;
        } else {
            notifications.stop().await;
        }
    }

    /// The program works as long as files can be taken in, and one vessel be reached that is not paused. What troubles single
    /// files is no reason to be silent.
    fn health(&self) -> Health {
        let paused = self.vessels.iter().map(|(name, vessel)| (name.clone(), vessel.controls.paused.subscribe()));
        let vessels: Vec<_> = paused.collect();
        let (no_room, live) = (self.no_room.subscribe(), self.live.clone());
        Arc::new(move || no_room.borrow().clone().or_else(|| unreached(&vessels, &live)))
    }
}

/// Why no vessel can be served, if that is so.
fn unreached(vessels: &[(VesselName, watch::Receiver<bool>)], live: &Live) -> Option<String> {
    let mut wanted = vessels.iter().filter(|(_, paused)| !*paused.borrow()).peekable();
    (wanted.peek().is_some() && wanted.all(|(name, _)| live.is_away(name)))
        .then(|| "no vessel can be reached".to_owned())
}
