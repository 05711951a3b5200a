//! Starts what runs beside the work: whoever keeps house, and whoever tells others what happens.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Mode, Plan};
use crate::fault::Fault;
use crate::housekeeping::Housekeeping;
use crate::names::VesselName;
use crate::status::Live;
use crate::telling::{Health, Telling};

/// What runs beside the work.
pub(super) struct Beside {
    house: Housekeeping,
    telling: Telling,
}

impl Beside {
    /// Ends it; a single run ends when all is told.
    pub(super) async fn end(self, mode: Mode) {
        self.house.stop().await;
        match mode {
            Mode::Forever => self.telling.stop().await,
            Mode::Once => self.telling.finish().await,
        }
    }
}

impl Plan {
    /// Starts it. To be called before the work starts, so that nothing is taken in without room, or happens unnoticed.
    ///
    /// # Errors
    /// When the ledger can't be used.
    pub(super) async fn start_beside(&self) -> Result<Beside, Fault> {
        let (ledger, clock) = (&self.ledger, &self.surroundings.clock);
        let telling = Telling::start(&self.settings, ledger, clock, self.health()).await.map_err(|e| e.fault())?;
        let house = Housekeeping::start(&self.settings, ledger, clock, &self.no_room).await;
        Ok(Beside { house, telling })
    }

    /// The program works as long as files can be taken in, and one vessel be reached that is not paused. What troubles single
    /// files is no reason to be silent.
    fn health(&self) -> Health {
        let paused = |name: &VesselName| self.reins[name].paused.subscribe();
        let vessels: Vec<_> = self.settings.vessels.iter().map(|v| (v.name.clone(), paused(&v.name))).collect();
        let (no_room, live) = (self.no_room.subscribe(), self.live.clone());
        Arc::new(move || no_room.borrow().clone().or_else(|| unreached(&vessels, &live)))
    }
}

/// Why no vessel can be served, if that is so.
fn unreached(vessels: &[(VesselName, watch::Receiver<bool>)], live: &Live) -> Option<String> {
    let mut wanted = vessels.iter().filter(|(_, paused)| !*paused.borrow()).peekable();
    (wanted.peek().is_some() && wanted.all(|(name, _)| live.is_away(name)))
        .then(|| "no vessel can be served".to_owned())
}
