//! Requests a URL at regular intervals while the program is healthy, so that operators notice a stopped or stuck
//! program.

use std::sync::Arc;

use tokio::time::MissedTickBehavior;

use super::Desk;
use super::http::Client;
use super::log_once::LogOnce;
use crate::local::{FreeSpace, FreeSpaces};
use crate::settings::WebAddress;

/// A function that returns why the program is not healthy, or `None` while it is healthy.
pub type Health = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Sends heartbeats until `desk.stop` or `desk.finish` is cancelled.
pub(super) async fn beat(desk: Desk, client: Client, address: WebAddress, health: Health) {
    let mut ticks = tokio::time::interval(desk.settings.monster.notifications.heartbeat_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let free_spaces = FreeSpaces::default();
    let (mut sick, mut unheard) = (LogOnce::default(), LogOnce::default());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = desk.finish.cancelled() => return,
            () = desk.stop.cancelled() => return,
        }
        let trouble = match desk.ledger.probe().await {
            Ok(()) if !is_any_location_there(&desk, &free_spaces).await => Some("no Location is accessible".to_owned()),
            Ok(()) => health(),
            Err(e) => Some(e.to_string()),
        };
        if let Some(why) = trouble {
            sick.about("No heartbeat is sent", &why);
            continue;
        }
        sick.is_over("The heartbeat");
        let what = format!("Heartbeat to {address}");
        let beaten = desk.stop.run_until_cancelled(client.get(address.url())).await;
        if let Some(beaten) = &beaten {
            let result = beaten.as_ref().copied().map_err(String::as_str);
            desk.hooks.note(&format!("heartbeat {address}"), desk.clock.now_ms(), result);
        }
        match beaten {
            None => return,
            Some(Ok(())) => unheard.is_over(&what),
            Some(Err(why)) => unheard.about(&what, &why),
        }
    }
}

/// Returns whether at least one `Location` exists on a disk that responds; otherwise the program is not healthy.
async fn is_any_location_there(desk: &Desk, free_spaces: &FreeSpaces) -> bool {
    let locations: Vec<_> = desk.settings.directories.iter().map(|directory| directory.location.clone()).collect();
    free_spaces.at(&locations).await.iter().flatten().any(FreeSpace::is_fresh)
}
