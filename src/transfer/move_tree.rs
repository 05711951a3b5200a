//! Renames a directory on the vessel, together with everything in it, in one step, after it was moved on the shore.
//!
//! The directory on the vessel must contain exactly the entries that were delivered from here and moved with it, each
//! unchanged. If there is any other entry, or one is missing, the directory is created under its new path, and its
//! entries are moved one by one. After a crash that followed the rename, the same check is made at the new path.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::acknowledge::enter;
use super::copy_source::{is_as_delivered, may_use};
use super::publish::flush_name;
use super::transfers::Transfers;
use crate::fault::Fault;
use crate::ledger::MovedEntry;
use crate::link::Session;
use crate::monitor::Event;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryId, DeliveryState, VersionKind};
use crate::transport::{Attrs, RemoteError};

/// Maximum number of pending queries: listings of directories and targets of links.
const AT_ONCE: usize = 32;
/// The same maximum on a long network path, where most queries only wait for round trips.
const AT_ONCE_FAR: usize = 256;

/// Renames the directory of a delivery on the vessel and acknowledges everything in it. Returns `false` if that is not
/// possible.
pub(super) async fn move_tree(transfers: &Transfers, delivery: &Delivery, place: &RemotePath) -> Result<bool, Fault> {
    let (session, version) = (&transfers.session, &delivery.version);
    let origin = delivery.origin.as_ref().filter(|origin| origin.is_free && may_use(transfers, delivery));
    let Some(origin) = origin.map(|origin| &origin.path) else { return Ok(false) };
    let vessel = &session.link.settings.name;
    let Some((directory, _)) = transfers.directories.get(&version.directory) else { return Ok(false) };
    let entries = transfers.ledger.moved_tree(vessel, delivery).await.map_err(|e| e.fault())?;
    let (from, to) = (origin.as_bytes(), version.path.as_bytes());
    let mut moved_along = Vec::with_capacity(entries.len());
    for entry in &entries {
        if entry.path.as_bytes().strip_prefix(to) == entry.held.version.path.as_bytes().strip_prefix(from) {
            moved_along.push(entry);
        }
    }
    let entries = moved_along;
    // The first entry is the directory itself.
    let is_whole = entries.first().is_some_and(|first| first.delivery == delivery.id && first.gone.is_some());
    if !is_whole {
        return Ok(false);
    }
    let old = session.link.settings.destination(&directory, origin);
    let (before, after) = tokio::join!(session.remote.look(&old), session.remote.look(place));
    let is_directory = |there: &Option<Attrs>| there.as_ref().is_some_and(Attrs::is_dir);
    let (before, after) = match (before, after) {
        (Err(e), _) | (_, Err(e)) if e.is_connection() => return Err(e.fault()),
        (Ok(before), Ok(after)) => (before, after),
        _ => return Ok(false),
    };
    let is_moved = match (before, after) {
        (before, None) if is_directory(&before) => false,
        (None, after) if is_directory(&after) => true,
        _ => return Ok(false),
    };
    let root = if is_moved { place } else { &old };
    if !is_complete(transfers, root, to.len(), &entries).await?
        || !enter(transfers, delivery, DeliveryState::Publishing).await?
    {
        return Ok(false);
    }
    let moving = async {
        session.make_dirs_above(place).await?;
        session.forget_dirs(&old).await;
        match session.remote.rename_to_new(&old, place).await {
            Err(e) if e.is_connection() => return Err(e.fault()),
            Err(e) => {
                tracing::debug!(%vessel, directory = %version.path, "Cannot move the directory: {e}");
                return Ok(false);
            }
            Ok(()) => {}
        }
        session.remote.look(place).await.map(|there| is_directory(&there)).map_err(|e| e.fault())
    };
    if !is_moved && !session.change(delivery.id, moving).await? {
        return Ok(false);
    }
    flush_name(session, place).await?;
    flush_name(session, &old).await?;
    // The deletions of entries below a directory come before the deletion of the directory.
    let deliveries: Vec<DeliveryId> =
        entries.iter().map(|entry| entry.delivery).chain(entries.iter().rev().filter_map(|entry| entry.gone)).collect();
    transfers.ledger.acknowledge_moved(&deliveries).await.map_err(|e| e.fault())?;
    let bytes = entries.iter().map(|entry| entry.held.version.stamp.size).sum();
    session.link.monitor.notice(&Event::Saved { vessel, bytes });
    tracing::info!(
        %vessel, directory = %version.directory, from = %origin, to = %version.path, entries = entries.len(), bytes,
        "Moved the directory on the vessel"
    );
    Ok(true)
}

/// Returns whether a directory on the vessel contains these entries, unchanged since their delivery, and nothing else.
/// The first `skipped` bytes of each entry's path are the path of the directory.
async fn is_complete(
    transfers: &Transfers,
    root: &RemotePath,
    skipped: usize,
    entries: &[&MovedEntry],
) -> Result<bool, Fault> {
    let session = &transfers.session;
    let at_once = if session.is_far() { AT_ONCE_FAR } else { AT_ONCE };
    // Returns the path of an entry relative to the directory.
    let below = |entry: &MovedEntry| entry.path.as_bytes().get(skipped + 1..).unwrap_or_default().to_vec();
    let mut expected: HashMap<Vec<u8>, HashMap<Vec<u8>, &MovedEntry>> = HashMap::new();
    for entry in entries {
        let path = below(entry);
        if entry.held.version.kind == VersionKind::Directory {
            expected.entry(path.clone()).or_default();
        }
        if !path.is_empty() {
            let cut = path.iter().rposition(|byte| *byte == b'/');
            let (above, name) = cut.map_or((&b""[..], &path[..]), |cut| (&path[..cut], &path[cut + 1..]));
            expected.entry(above.to_vec()).or_default().insert(name.to_vec(), entry);
        }
    }
    let at = |path: &[u8]| if path.is_empty() { root.clone() } else { root.join(path) };
    let (mut looks, mut same) = (FuturesUnordered::new(), true);
    // A path is listed only if it is known to be a directory, because a refusal to open another entry would be mistaken
    // for too many open files. The listing of the level above shows that, but takes several round trips for each level;
    // so the attributes of all directories of a deep tree are queried first on a long network path.
    let mut directories: Vec<_> = expected.iter().collect();
    let depth = |path: &[u8]| if path.is_empty() { 0 } else { 1 + path.iter().filter(|byte| **byte == b'/').count() };
    directories.sort_unstable_by_key(|(above, _)| depth(above));
    let is_deep = directories.last().is_some_and(|(deepest, _)| depth(deepest) > 1);
    let looks_ahead = is_deep && session.is_far();
    if looks_ahead {
        for (above, _) in &directories {
            if same {
                looks.push(is_directory_at(session, at(above)).boxed());
                same = all_same(&mut looks, at_once).await?;
            }
        }
        same = all_same(&mut looks, 1).await? && same;
    }
    let mut last_depth = 0;
    for (above, names) in directories {
        if same && depth(above) > last_depth && !looks_ahead {
            last_depth = depth(above);
            same = all_same(&mut looks, 1).await?;
        }
        if same {
            looks.push(has_same_entries(session, at(above), names).boxed());
            same = all_same(&mut looks, at_once).await?;
        }
    }
    for entry in entries.iter().filter(|entry| entry.held.version.kind == VersionKind::Link) {
        if same {
            looks.push(has_same_target(session, at(&below(entry)), entry).boxed());
            same = all_same(&mut looks, at_once).await?;
        }
    }
    // Waits for the remaining queries, because dropped ones would leave directories open on the vessel.
    Ok(all_same(&mut looks, 1).await? && same)
}

type Look<'a> = BoxFuture<'a, Result<bool, RemoteError>>;

/// Waits until fewer than `most` queries are pending. Returns `false` if one of them found a difference; a path that
/// can't be queried counts as different.
async fn all_same(looks: &mut FuturesUnordered<Look<'_>>, most: usize) -> Result<bool, Fault> {
    let mut same = true;
    while looks.len() >= most {
        match looks.next().await {
            Some(Err(e)) if e.is_connection() => return Err(e.fault()),
            Some(Ok(true)) => {}
            Some(_) => same = false,
            None => break,
        }
    }
    Ok(same)
}

async fn is_directory_at(session: &Session, path: RemotePath) -> Result<bool, RemoteError> {
    Ok(session.remote.look(&path).await?.is_some_and(|there| there.is_dir()))
}

async fn has_same_entries(
    session: &Session,
    directory: RemotePath,
    names: &HashMap<Vec<u8>, &MovedEntry>,
) -> Result<bool, RemoteError> {
    let listed = session.remote.list(&directory).await?;
    let is_same = |(name, attrs): &(Bytes, Attrs)| names.get(&name[..]).is_some_and(|entry| is_as_moved(entry, attrs));
    Ok(listed.len() == names.len() && listed.iter().all(is_same))
}

async fn has_same_target(session: &Session, link: RemotePath, entry: &MovedEntry) -> Result<bool, RemoteError> {
    Ok(session.remote.read_link(&link).await?.is_some_and(|target| target[..] == entry.held.version.target[..]))
}

/// Returns whether a listed entry has the kind and, if it is a file, the size and time of the delivered one. The
/// targets of links are compared later.
fn is_as_moved(entry: &MovedEntry, attrs: &Attrs) -> bool {
    match entry.held.version.kind {
        VersionKind::File => is_as_delivered(&entry.held, attrs),
        VersionKind::Directory => attrs.is_dir(),
        VersionKind::Link => attrs.is_link(),
        VersionKind::Gone | VersionKind::Skipped => false,
    }
}
