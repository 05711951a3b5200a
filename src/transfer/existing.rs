//! Deliveries that need no upload: the vessel already has the file, or a program there consumed it right after
//! delivery.

use std::sync::atomic::Ordering;

use super::attributes::{looks_like, seen, set_owner_and_mode};
use super::ownership::is_of_others_rights;
use super::publish::{flush_by_command, flush_name};
use super::send_to_loop::{loop_marker, may_have_gone, remove_loop_files};
use super::sweep::remove_parts;
use super::transfers::Transfers;
use super::tree::make_way;
use super::upload_state::goes_in_parts;
use super::verdict::Verdict;
use super::verify::verify;
use crate::fault::{Fault, Scope};
use crate::link::Session;
use crate::link::{loop_assembly, probe_beside};
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState, Verified, Version};
use crate::rights::CopyOf;
use crate::settings::Verify;
use crate::transport::{Attrs, OpenFlags, RemoteError, RemoteFile};

/// Returns whether an earlier attempt of a delivery may have published the file without recording it.
pub(super) fn may_be_taken(session: &Session, delivery: &Delivery) -> bool {
    match delivery.state {
        DeliveryState::Publishing => true,
        DeliveryState::Uploading => may_have_gone(session, delivery),
        _ => false,
    }
}

/// Returns whether a program on the vessel has consumed the file of an interrupted rename: the settings allow that
/// (`Consumed`), and the file exists neither as assembly nor under its final name. In the state `Uploading`, the file
/// may have gone to the loop in the vessel's shell; then the loop's marker tells whether the file was renamed.
pub(super) async fn was_taken(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
    destination: &RemotePath,
) -> Result<bool, Fault> {
    let session = &transfers.session;
    let consumed = transfers.directories.get(&delivery.version.directory).is_some_and(|(it, _)| it.consumed);
    let Some(directory) = destination.parent().filter(|_| consumed) else { return Ok(false) };
    if !may_be_taken(session, delivery) {
        return Ok(false);
    }
    let assembly = match delivery.state {
        DeliveryState::Publishing => assembly,
        _ => {
            let marker = session.remote.look(&loop_marker(session, delivery.id, delivery.version.stamp.size)).await;
            match marker {
                Ok(Some(_)) => &loop_assembly(assembly),
                Err(e) if e.is_connection() => return Err(e.fault()),
                _ => return Ok(false),
            }
        }
    };
    let (before, after, above) = tokio::join!(
        session.remote.look(assembly),
        session.remote.look(destination),
        session.remote.look_through(&directory)
    );
    match (before, after, above) {
        // The directory still exists, so the file is not missing because its file system was unmounted.
        (Ok(None), Ok(None), Ok(Some(above))) => Ok(above.is_dir()),
        (Err(e), ..) | (_, Err(e), _) | (.., Err(e)) if e.is_connection() => Err(e.fault()),
        _ => Ok(false),
    }
}

/// If the vessel's file under the final name already is this version, returns how it was verified. That is possible
/// because the reply to a rename, or the ledger, may have been lost. `None` means that the file must be sent.
pub(super) async fn already_there(
    transfers: &Transfers,
    delivery: &Delivery,
    destination: &RemotePath,
    there: Result<Option<Attrs>, RemoteError>,
) -> Result<Option<Verified>, Fault> {
    let session = &transfers.session;
    let version = &delivery.version;
    let there = match there {
        // An account that is not allowed to read attributes may still be able to write.
        Err(e) if e.is_refusal() => return Ok(None),
        there => there,
    };
    let Some(attrs) = session.explained(there, destination, 0).await? else { return Ok(None) };
    if attrs.is_dir() {
        let making = Box::pin(make_way(transfers, version, destination));
        return session.change(delivery.id, making).await.map(|()| None);
    }
    let assembly = transfers.assembly(delivery)?;
    let published = delivery.state == DeliveryState::Publishing && attrs.size == Some(version.stamp.size);
    let as_before = delivery.seen.is_some() && delivery.seen == seen(&attrs);
    if !published && !as_before && !looks_like(&version.stamp, &attrs) {
        return Ok(None);
    }
    let is_same = published && looks_like(&version.stamp, &attrs);
    match Box::pin(verify(transfers, version, destination)).await {
        Ok(Verdict::Good(Verified::Not)) => Ok(None),
        Ok(Verdict::Good(Verified::BySize)) if !is_same || !Box::pin(size_suffices(session, &assembly)).await? => {
            Ok(None)
        }
        // The file has another mode and belongs to another user, so its mode can't be set. A new file replaces it.
        Ok(Verdict::Good(_)) if Box::pin(is_of_others_rights(session, version, &assembly, &attrs)).await? => Ok(None),
        Ok(Verdict::Good(verified)) => Ok(Some(verified)),
        Ok(Verdict::Bad(_)) => Ok(None),
        Err(fault) if session.remote.is_lost() || fault.scope > Scope::File => Err(fault),
        // A file that can't be read can still be replaced, so it is sent.
        Err(_) => Ok(None),
    }
}

/// Returns whether size and time suffice to accept a file under its final name after an interrupted rename: with
/// `Verify = size`, if the assembly no longer exists. Without this exception, the whole file would be sent again.
async fn size_suffices(session: &Session, assembly: &RemotePath) -> Result<bool, Fault> {
    if session.link.settings.verify != Verify::Size {
        return Ok(false);
    }
    match session.remote.look(assembly).await {
        Ok(None) => Ok(true),
        // The assembly was complete before the rename, so an empty assembly was created by this attempt.
        Ok(Some(attrs)) => Ok(attrs.size == Some(0) && !session.streams_only.load(Ordering::Relaxed)),
        Err(e) if e.is_connection() => Err(e.fault()),
        Err(_) => Ok(false),
    }
}

/// Removes the temporary files of all attempts of a delivery, after the file was found under its final name.
pub(super) async fn remove_leftovers(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
) -> Result<(), Fault> {
    let session = &transfers.session;
    session.remote.remove(assembly).await.map_err(|e| e.fault())?;
    if delivery.state != DeliveryState::Pending {
        session.remote.remove(&probe_beside(assembly)).await.map_err(|e| e.fault())?;
        remove_loop_files(session, delivery, assembly).await?;
    }
    if delivery.state != DeliveryState::Pending && goes_in_parts(session, delivery) {
        remove_parts(session, |other| other == delivery.id.0).await.map_err(|e| e.fault())?;
    }
    Ok(())
}

/// Sets the current mode and owner of the source on a file that was found under its final name.
pub(super) async fn update_owner_and_mode(
    session: &Session,
    version: &Version,
    destination: &RemotePath,
) -> Result<(), Fault> {
    let there = session.remote.look(destination).await.map_err(|e| e.fault())?;
    // A link at this path may lead to a file that was not delivered by this shore, so nothing is changed through it.
    let Some(there) = there.filter(Attrs::is_file) else { return Ok(()) };
    let same = there.mode.is_some_and(|mode| mode & 0o7777 == CopyOf::File.plain(version.mode));
    if same && version.owner.is_none() {
        return Ok(());
    }
    set_owner_and_mode(session, version, destination, CopyOf::File, version.mode, 0).await
}

/// Flushes a file that was found under its final name, because an earlier attempt may not have flushed it.
pub(super) async fn flush_found(session: &Session, destination: &RemotePath) -> Result<(), Fault> {
    let file = session.remote.open(destination, OpenFlags::READ, 0).await.map_err(|e| e.fault())?;
    flush(session, &file).await.map_err(|e| e.fault())?;
    file.close().await.map_err(|e| e.fault())?;
    flush_name(session, destination).await
}

pub(crate) async fn flush(session: &Session, file: &RemoteFile) -> Result<(), RemoteError> {
    if session.remote.fsync() { file.flush().await } else { flush_by_command(session, file.path()).await }
}
