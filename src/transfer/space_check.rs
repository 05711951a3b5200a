//! Space on the vessel for a file: checked before the upload, and freed when there is too little. If a place is full,
//! `vessel/blocked_places` decides which files wait.

use super::acknowledge::enter;
use super::transfers::Transfers;
use crate::fault::{Cause, Fault};
use crate::link::Session;
use crate::names::{DirectoryName, RemotePath};
use crate::records::{Delivery, DeliveryState, Version};
use crate::transport::Space;

/// Free space at a path on the vessel; `space` is `None` if the vessel does not report it.
pub(super) struct DestinationSpace {
    at: RemotePath,
    space: Option<Space>,
}

/// Returns the directory on the vessel to which a configured directory's files are delivered; `None` if the directory
/// is not configured or the vessel does not take it.
pub(crate) fn place_of(transfers: &Transfers, name: &DirectoryName) -> Option<RemotePath> {
    let session = &transfers.session;
    let (directory, _) = transfers.directories.get(name).filter(|_| session.link.settings.takes(name))?;
    let place = session.link.settings.remote_location(&directory);
    // If the configured directory is a single file, the place is the path of that file.
    if directory.only.is_some() { place.parent() } else { Some(place.clone()) }
}

pub(crate) fn place_of_version(transfers: &Transfers, version: &Version) -> Result<RemotePath, Fault> {
    Ok(transfers.destination(version)?.parent().unwrap_or_else(|| RemotePath::new(".")))
}

pub(crate) async fn space_at(session: &Session, at: &RemotePath) -> Result<Option<Space>, Fault> {
    session.remote.space(at).await.map_err(|e| e.fault())
}

/// Returns the space at the destination of a version.
pub(super) async fn destination_space(transfers: &Transfers, version: &Version) -> Result<DestinationSpace, Fault> {
    let session = &transfers.session;
    let at = place_of_version(transfers, version)?;
    Ok(DestinationSpace { space: space_at(session, &at).await?, at })
}

/// Removes the assembly of a file for which the vessel has no space, or whose name the vessel does not allow.
pub(crate) async fn discard(transfers: &Transfers, delivery: &Delivery) -> Result<(), Fault> {
    let session = &transfers.session;
    // The state is changed first, because a file in state `Publishing` that exists under neither name counts as
    // consumed.
    enter(transfers, delivery, DeliveryState::Uploading).await?;
    let assembly = transfers.assembly(delivery)?;
    match session.remote.remove(&assembly).await {
        Err(e) if e.is_connection() => Err(e.fault()),
        // The error is tolerated, because nothing can be removed from a read-only file system.
        Err(e) => {
            tracing::debug!(vessel = %session.link.settings.name, "Cannot remove the unfinished file: {e}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

impl DestinationSpace {
    /// Fails if `bytes` more bytes do not fit.
    pub(super) fn ensure(self, bytes: u64) -> Result<(), Fault> {
        let Some(space) = self.space.filter(|space| !space.has_room_for(bytes)) else { return Ok(()) };
        let reason = format_args!(
            "{} is full: {} bytes are free, {bytes} bytes are needed, and {} bytes are reserved for other programs",
            self.at,
            space.free,
            space.margin()
        );
        Err(Fault::place(reason).mend("free some space there; delivery resumes by itself").of(Cause::Space))
    }
}
