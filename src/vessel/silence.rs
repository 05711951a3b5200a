//! What is done about a connection that has fallen silent: another one is tried beside it.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Vessel;
use super::visit::Visit;
use crate::transport::Remote;

/// The pause after another connection has failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Whenever the vessel has fallen silent, tries to get another connection until there is a sign of life; gives the one
/// that came first. Where nothing was brought over, the next connection would fare no better. `connecting` says whether
/// one is being tried.
///
/// After an outage of ten seconds TCP waits another five before it sends anything again, and longer after longer ones;
/// a new connection is there within two.
pub(super) async fn another(visit: &Visit, connecting: &AtomicBool) -> Remote {
    let Vessel { settings, environment, .. } = &visit.vessel;
    loop {
        visit.remote.silent().await;
        if !visit.has_sent() {
            return pending().await;
        }
        tracing::debug!(vessel = %settings.name, "silent; another connection is tried");
        connecting.store(true, Ordering::Relaxed);
        tokio::select! {
            connected = Remote::connect(settings, environment, visit.remote.known()) => match connected {
                Ok(remote) => return remote,
                Err(e) => {
                    tracing::debug!(vessel = %settings.name, "no other connection: {e}");
                    tokio::time::sleep(AGAIN).await;
                }
            },
            () = visit.remote.talking() => {}
        }
        connecting.store(false, Ordering::Relaxed);
    }
}
