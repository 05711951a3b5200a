//! What a file, directory or link on the vessel looks like, and giving it mode, owner and time.

use std::sync::atomic::Ordering;

use super::ownership::{is_assembly, undressed};
use crate::fault::Fault;
use crate::link::Session;
use crate::names::RemotePath;
use crate::records::{FileStamp, Seen, Version};
use crate::rights::{CopyOf, keeping_inherited};
use crate::transport::{Attrs, RemoteError};

/// Gives what is at a place its owner, where that is asked for, and as much of a mode as goes with the owner that it has
/// then. A vessel that refuses keeps it as it is: a file system without modes, or an account that may not, is no reason to
/// go without the file. `found` is the mode that a directory had before.
pub(crate) async fn dress(
    session: &Session,
    version: &Version,
    place: &RemotePath,
    what: CopyOf,
    mode: u32,
    found: u32,
) -> Result<(), Fault> {
    // Apart, and first: changing the owner takes bits of the mode away.
    let mode = match version.owner {
        None => what.plain(mode),
        Some(owner) => {
            if let Err(e) = session.remote.set(place, Attrs { owner: Some(owner), ..Attrs::default() }).await {
                tolerate_undressed(session, version, &e)?;
            }
            let there = match session.remote.look(place).await {
                Err(e) if e.is_refusal() => None,
                there => there.map_err(|e| e.fault())?,
            };
            what.owned(mode, owner, there.and_then(|attrs| attrs.owner))
        }
    };
    let mode = if what == CopyOf::Directory { keeping_inherited(mode, found) } else { mode };
    match session.remote.set(place, Attrs { mode: Some(mode), ..Attrs::default() }).await {
        Err(e) if what == CopyOf::File && is_assembly(session, place) => {
            undressed(session, version, place, e).await.map_err(|e| e.fault())
        }
        Err(e) => tolerate_undressed(session, version, &e),
        Ok(()) => Ok(()),
    }
}

pub(super) fn tolerate_undressed(session: &Session, version: &Version, error: &RemoteError) -> Result<(), Fault> {
    if error.is_connection() {
        return Err(error.fault());
    }
    tracing::warn!(vessel = %session.settings.name, file = %version.path, "{error}");
    Ok(())
}

/// Gives a file a time that SFTP can't carry, where the vessel has a shell that can; else says once that it can't.
pub(super) async fn keep_odd_time(session: &Session, version: &Version, path: &RemotePath) -> Result<(), RemoteError> {
    let time = version.stamp.mtime;
    if u32::try_from(time).is_ok() || session.remote.is_this_host() {
        return Ok(());
    }
    if session.remote.capabilities().shell && session.remote.touch(path, time).await? {
        return Ok(());
    }
    if !session.told_of_times.swap(true, Ordering::Relaxed) {
        let vessel = &session.settings.name;
        tracing::warn!(
            %vessel, file = %version.path, seconds_since_1970 = time,
            "The vessel cannot keep times before 1970 or after 2106: SFTP does not carry them, and the vessel has no \
             `touch -d`; such files get the time of their delivery"
        );
    }
    Ok(())
}

/// Both times, whole seconds.
pub(crate) fn times(stamp: &FileStamp) -> Option<(i64, i64)> {
    Some((stamp.mtime, stamp.mtime))
}

/// A time as SFTP tells it: of one that it can't carry, servers send the lower 32 bits.
pub(crate) fn told(seconds: i64) -> i64 {
    seconds.rem_euclid(1 << 32)
}

/// What a file on the vessel looks like, as far as that shows without reading it.
pub(super) fn seen(attrs: &Attrs) -> Option<Seen> {
    let (size, (_, modified)) = attrs.size.zip(attrs.times).filter(|_| attrs.is_file())?;
    Some(Seen { size, mtime: told(modified) })
}

/// Whether a file on the vessel looks like a version with this stamp, as far as that shows without reading it.
pub(super) fn looks_like(stamp: &FileStamp, attrs: &Attrs) -> bool {
    seen(attrs) == Some(Seen { size: stamp.size, mtime: told(stamp.mtime) })
}
