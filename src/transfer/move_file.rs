//! Renames a file on the vessel after it was moved on the shore, if the vessel's file is unchanged and its earlier path
//! is about to be deleted. Otherwise the file is copied or sent like any other.
//!
//! Until the rename, the delivery stays in the state `Uploading`, because in the state `Publishing`, a file that exists
//! under neither name counts as consumed by a program on the vessel. After a crash that followed the rename, the next
//! attempt finds the file under its final name.

use super::acknowledge::enter;
use super::copy_source::{is_as_delivered, may_use, note_made_from};
use super::existing::update_owner_and_mode;
use super::moved_files::wait_for_copies;
use super::publish::flush_name;
use super::same_host::{is_known_elsewhere, prove_elsewhere, refuse_own_place};
use super::transfers::Transfers;
use super::tree::make_way;
use crate::fault::Fault;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState, HeldVersion, VersionKind};
use crate::transport::{Attrs, RemoteError, Renamed};

/// The result of an attempt to move a file.
pub(super) enum FileMove {
    /// The file has its new name.
    Done,
    /// The delivery was superseded.
    Superseded,
    /// The file can't be moved.
    No,
}

/// Renames the file of a delivery on the vessel, if it was moved on the shore.
pub(super) async fn move_file(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
    destination: &RemotePath,
) -> Result<FileMove, Fault> {
    let (session, version) = (&transfers.session, &delivery.version);
    if !delivery.origin.as_ref().is_some_and(|origin| origin.is_free)
        || version.kind != VersionKind::File
        || !may_use(transfers, delivery)
    {
        return Ok(FileMove::No);
    }
    let there = transfers.ledger.origin_there(&session.link.settings.name, delivery).await.map_err(|e| e.fault())?;
    let Some(held) = there.filter(|there| there.is_free).map(|there| there.held) else { return Ok(FileMove::No) };
    if held.version.stamp != version.stamp {
        // The file was changed after the move.
        return Ok(FileMove::No);
    }
    let Ok(origin) = transfers.destination(&held.version) else { return Ok(FileMove::No) };
    if !is_there(session.remote.look(&origin).await, &held)? {
        return Ok(FileMove::No);
    }
    // The content decides, not the recorded move. A large file is read here for the first time, and not again later.
    if held.version.digest.is_none() || held.version.digest != Some(transfers.digest(version).await?) {
        return Ok(FileMove::No);
    }
    // A superseded delivery must not create directories.
    if !enter(transfers, delivery, DeliveryState::Uploading).await? {
        return Ok(FileMove::Superseded);
    }
    let making = async {
        make_way(transfers, version, destination).await?;
        session.make_dirs_above(destination).await
    };
    session.change(delivery.id, making).await?;
    if !is_known_elsewhere(transfers, delivery) {
        prove_elsewhere(transfers, delivery, assembly, true).await?;
        session.remote.remove(assembly).await.map_err(|e| e.fault())?;
    }
    refuse_own_place(transfers, delivery)?;
    wait_for_copies(transfers, delivery).await?;
    // The vessel's file may have changed meanwhile, because hashing and waiting can take long.
    if !is_there(session.remote.look(&origin).await, &held)? {
        return Ok(FileMove::No);
    }
    transfers.surely_ours().await?;
    let moving = async {
        match session.remote.rename_over(&origin, destination, Some(version.stamp.size)).await {
            Err(e) if e.is_connection() => return Err(e.fault()),
            // The two paths may be on different file systems.
            Err(e) => {
                let vessel = &session.link.settings.name;
                tracing::debug!(%vessel, file = %version.path, "Cannot move the file: {e}");
                return Ok(false);
            }
            Ok(Renamed::There(_)) => update_owner_and_mode(session, version, destination).await?,
            Ok(Renamed::Taken | Renamed::Unseen) => {}
        }
        Ok(true)
    };
    if !session.change(delivery.id, moving).await? {
        return Ok(FileMove::No);
    }
    flush_name(session, destination).await?;
    flush_name(session, &origin).await?;
    if delivery.state != DeliveryState::Pending {
        session.remote.remove(assembly).await.map_err(|e| e.fault())?;
    }
    session.found(version, version.stamp.size);
    note_made_from(transfers, delivery, &held.version).await?;
    Ok(FileMove::Done)
}

/// Returns whether a query found the file, with the size and time with which it was delivered.
fn is_there(looked: Result<Option<Attrs>, RemoteError>, held: &HeldVersion) -> Result<bool, Fault> {
    match looked {
        Err(e) if e.is_connection() => Err(e.fault()),
        // A file whose status can't be read is not moved.
        Err(_) => Ok(false),
        Ok(there) => Ok(there.is_some_and(|attrs| is_as_delivered(held, &attrs))),
    }
}
