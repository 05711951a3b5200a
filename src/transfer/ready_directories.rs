//! Creates the locations of preferred directories at the beginning of a session, so that an urgent file does not wait
//! for requests that queue behind the bytes of other files.

use futures_util::future::join_all;

use super::transfers::Transfers;
use crate::settings::Priority;

/// Creates the locations of all directories that don't have the lowest priority, if files have priorities on this
/// vessel.
pub(super) async fn make_ready(transfers: &Transfers) {
    let session = &transfers.session;
    let vessel = &session.link.settings;
    if !session.gate.is_used() {
        return;
    }
    let taken: Vec<_> = transfers.directories.settings().into_iter().filter(|one| vessel.takes(&one.name)).collect();
    let lowest = taken.iter().map(|directory| directory.priority).max().unwrap_or(Priority::Urgent);
    let preferred = taken.iter().filter(|directory| directory.priority < lowest);
    let making = preferred.map(async |directory| {
        let location = vessel.remote_location(directory);
        let place = if directory.only.is_some() { location.parent() } else { Some(location.clone()) };
        if let Some(place) = place
            && let Err(fault) = session.make_dirs(&place).await
        {
            // The first file that needs the directory reports the error.
            tracing::debug!(vessel = %vessel.name, directory = %directory.name, "{fault}");
        }
    });
    join_all(making).await;
}
