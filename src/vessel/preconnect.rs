//! Connections that are made beside the first one while that is still logging in: on a long path a login takes seconds,
//! and what is learnt of the path afterwards comes that much later.

use tokio_util::task::AbortOnDropHandle;

use super::Vessel;
use super::channel_pool::{LOGGING_IN, LONG, WORTH_BYTES, of_use};
use crate::settings::Connections;
use crate::transport::{Follow, Lane};

/// Large deliveries that are looked at to see whether there is much to send.
const GLANCE: u32 = 8;

/// A lane that is on its way; `None`: it is not to be had.
pub(super) type Coming = AbortOnDropHandle<Option<Lane>>;

/// Begins further connections beside the one that is followed, where the path turns out to be long, as soon as there is
/// enough to send for them to pay.
pub(super) async fn begin(vessel: &Vessel, mut follow: Follow) -> Vec<Coming> {
    let settings = &vessel.settings;
    let further = match (settings.connections, follow.reached().await) {
        (_, None) => 0,
        (Connections::Auto, Some(path)) => of_use(path),
        (Connections::Fixed(number), Some(path)) if path.round_trip >= LONG => usize::from(number) - 1,
        (Connections::Fixed(_), Some(_)) => 0,
    };
    if further == 0 {
        return Vec::new();
    }
    loop {
        // Where the ledger fails, whoever needs it next says so.
        let due = vessel.ledger.next_due(&settings.name, true, GLANCE).await.unwrap_or_default();
        if due.iter().map(|delivery| delivery.version.stamp.size).sum::<u64>() >= WORTH_BYTES {
            break;
        }
        // Files may be taken in meanwhile. A session looks for itself when it begins, whoever heard the bell.
        vessel.bell.rung().await;
    }
    let begin = |_: usize| {
        let (settings, environment, follow) = (settings.clone(), vessel.environment.clone(), follow.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let lane = Lane::connect(&settings, &environment, Some(follow)).await;
            lane.inspect_err(|e| tracing::debug!(vessel = %settings.name, "no further connection: {e}")).ok()
        }))
    };
    (0..further.min(LOGGING_IN - 1)).map(begin).collect()
}
