//! Opens further connections while the first one is still logging in. On a long path a login takes seconds, which would
//! otherwise delay the further connections.

use tokio_util::task::AbortOnDropHandle;

use super::channel_pool::{Coming, LONG};
use super::session::Link;
use super::tending::{LOGGING_IN, of_use};
use crate::records::PathRate;
use crate::settings::Connections;
use crate::transport::{Follow, SftpChannel};

/// Opens further connections in parallel to the connection that `follow` observes, if the path turns out to be long.
/// Before opening them, waits for `enough`, which completes when there are enough bytes to send to justify further
/// connections.
///
/// `remembered` is the rate of the path in an earlier session.
pub(crate) async fn begin(
    link: &Link,
    mut follow: Follow,
    remembered: Option<PathRate>,
    enough: impl Future<Output = ()>,
) -> Vec<Coming> {
    let settings = &link.settings;
    let further = match (settings.connections, follow.reached().await) {
        (_, None) => 0,
        (Connections::Auto, Some(path)) => of_use(path, remembered),
        (Connections::Fixed(number), Some(path)) if path.round_trip >= LONG => usize::from(number) - 1,
        (Connections::Fixed(_), Some(_)) => 0,
    };
    if further == 0 {
        return Vec::new();
    }
    enough.await;
    let begin = |_: usize| {
        let (settings, environment, follow) = (settings.clone(), link.environment.clone(), follow.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let channel = SftpChannel::connect(&settings, &environment, Some(follow)).await;
            channel.inspect_err(|e| tracing::debug!(vessel = %settings.name, "Cannot open a connection: {e}")).ok()
        }))
    };
    // Without a remembered rate, opens at most `LOGGING_IN` - 1 connections: with `Connections = auto`, `further` is
    // then only a guess.
    let most = if remembered.is_some() { further } else { LOGGING_IN - 1 };
    (0..further.min(most)).map(begin).collect()
}
