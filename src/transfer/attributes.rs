//! Attributes of files, directories and links on the vessel: comparing them, and setting mode, owner and time.

use std::sync::atomic::Ordering;

use super::ownership::{check_attribute_error, is_assembly};
use crate::fault::Fault;
use crate::link::Session;
use crate::names::RemotePath;
use crate::records::{FileStamp, Seen, Version};
use crate::rights::{CopyOf, keeping_inherited};
use crate::transport::{Attrs, RemoteError};

/// Sets the owner of an entry, if one is configured, and the mode bits that are safe for the resulting owner. If the
/// vessel refuses, the entry keeps its attributes, because a missing permission or a file system without modes must not
/// block the delivery. `found` is the mode that a directory had before.
pub(crate) async fn set_owner_and_mode(
    session: &Session,
    version: &Version,
    place: &RemotePath,
    what: CopyOf,
    mode: u32,
    found: u32,
) -> Result<(), Fault> {
    // The owner is set separately and before the mode, because changing the owner clears mode bits.
    let mode = match version.owner {
        None => what.plain(mode),
        Some(owner) => {
            if let Err(e) = session.remote.set(place, Attrs { owner: Some(owner), ..Attrs::default() }).await {
                tolerate_attribute_error(session, version, &e)?;
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
            check_attribute_error(session, version, place, e).await.map_err(|e| e.fault())
        }
        Err(e) => tolerate_attribute_error(session, version, &e),
        Ok(()) => Ok(()),
    }
}

pub(super) fn tolerate_attribute_error(session: &Session, version: &Version, error: &RemoteError) -> Result<(), Fault> {
    if error.is_connection() {
        return Err(error.fault());
    }
    tracing::warn!(vessel = %session.link.settings.name, file = %version.path, "{error}");
    Ok(())
}

/// Sets a modification time that SFTP can't represent, with a command in the vessel's shell. If that is not possible,
/// logs a warning once per vessel.
pub(super) async fn keep_odd_time(session: &Session, version: &Version, path: &RemotePath) -> Result<(), RemoteError> {
    let time = version.stamp.mtime;
    if u32::try_from(time).is_ok() || session.remote.is_this_host() {
        return Ok(());
    }
    if session.remote.capabilities().shell && session.remote.touch(path, time).await? {
        return Ok(());
    }
    if !session.link.told_of_times.swap(true, Ordering::Relaxed) {
        let vessel = &session.link.settings.name;
        tracing::warn!(
            %vessel, file = %version.path, seconds_since_1970 = time,
            "The vessel cannot keep times before 1970 or after 2106: SFTP does not carry them, and the vessel has no \
             `touch -d`; such files get the time of their delivery"
        );
    }
    Ok(())
}

/// Returns the access and modification time to set, in whole seconds. Both are the source's modification time.
pub(crate) fn times(stamp: &FileStamp) -> Option<(i64, i64)> {
    Some((stamp.mtime, stamp.mtime))
}

/// Returns a time as SFTP servers report it: only the lower 32 bits.
pub(crate) fn told(seconds: i64) -> i64 {
    seconds.rem_euclid(1 << 32)
}

/// Returns size and time of a file on the vessel; `None` if the vessel does not report them or the entry is not a file.
pub(super) fn seen(attrs: &Attrs) -> Option<Seen> {
    let (size, (_, modified)) = attrs.size.zip(attrs.times).filter(|_| attrs.is_file())?;
    Some(Seen { size, mtime: told(modified) })
}

/// Returns whether a file on the vessel has the size and time of `stamp`. Its content is not compared.
pub(super) fn looks_like(stamp: &FileStamp, attrs: &Attrs) -> bool {
    seen(attrs) == Some(Seen { size: stamp.size, mtime: told(stamp.mtime) })
}
