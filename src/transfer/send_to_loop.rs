//! Delivery of a small file in one round trip, through the loop: a script in the vessel's shell that receives one small
//! file after another.
//!
//! The ledger keeps the state `Uploading` until the loop has answered, because until then it is unknown whether
//! anything has arrived. After a lost connection, the next attempt looks for the file under its final name. If a
//! program on the vessel may consume files (`Consumed`), a marker in TempDir tells whether the loop renamed the file.

use std::sync::PoisonError;

use super::acknowledge::enter;
use super::ready_directories::make_ready;
use super::same_host::{is_known_elsewhere, prove_elsewhere, refuse_own_place};
use super::transfers::{Transfers, source_fault};
use crate::fault::Fault;
use crate::link::{LoopSlot, MOST_BYTES, Session, Which, loop_assembly, open_new};
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryId, DeliveryState, VersionKind};
use crate::rights::CopyOf;
use crate::settings::{Shell, SmallFiles, Verify};
use crate::transport::{RemoteFile, SmallFile, takes_name};

/// Files up to this size, in bytes, are sent without checking first whether the vessel already has them.
const BLIND: u64 = 32 << 10;

/// The result of an attempt to send a file to the loop.
pub(super) enum Sent {
    /// The file has its final name, verified and flushed.
    Delivered,
    /// The delivery was superseded.
    Superseded,
    /// The file must go over SFTP.
    No,
}

/// Keeps a separate loop for small files while large files are sent; never returns. With `ahead`, first starts the loop
/// that the first small file will need.
pub(crate) async fn tend_loop(transfers: &Transfers, ahead: bool) {
    let session = &transfers.session;
    if ahead {
        // If this session continues a file that another connection began, that file uses the shell first. So the loop
        // starts two round trips later.
        if session.continues() {
            tokio::time::sleep(session.remote.main_channel().round_trip() * 2).await;
        }
        prepare(transfers).await;
    }
    let (settings, environment) = (&session.link.settings, &session.link.environment);
    session.small_files.keep_beside(&session.remote, settings, environment, &session.channels).await;
}

/// Starts the loop, prepares TempDir for the loop's markers, and creates the locations of preferred directories.
async fn prepare(transfers: &Transfers) {
    let session = &transfers.session;
    let (remote, settings) = (&session.remote, &session.link.settings);
    if !LoopSlot::is_used(remote, settings) {
        return make_ready(transfers).await;
    }
    let (_, prepared, ()) =
        tokio::join!(session.small_files.running(remote, settings), session.prepare_temp_dir(), make_ready(transfers));
    if let Err(fault) = prepared {
        // The first file that needs TempDir reports the error.
        tracing::debug!(vessel = %session.link.settings.name, "{fault}");
    }
}

/// Returns whether a delivery may go to the loop: a first attempt, of a file whose attributes the loop can set.
pub(super) fn may_go(transfers: &Transfers, delivery: &Delivery, destination: &RemotePath) -> bool {
    let (session, version) = (&transfers.session, &delivery.version);
    delivery.state == DeliveryState::Pending
        && version.kind == VersionKind::File
        && version.owner.is_none()
        && version.digest.is_some()
        && version.stamp.size <= MOST_BYTES
        && version.plan().count() <= 1
        && u32::try_from(version.stamp.mtime).is_ok()
        && takes_name(destination)
        && takes_name(&session.link.settings.temp_dir)
        // The loop's hash comes from the vessel's own programs.
        && session.link.settings.verify != Verify::ReadBack
        && LoopSlot::is_used(&session.remote, &session.link.settings)
        && !session.small_files.are_too_many(&session.remote, &session.link.settings)
}

/// Sends a file to the loop, if the loop accepts one now.
pub(super) async fn send(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
    destination: &RemotePath,
) -> Result<Sent, Fault> {
    let (session, version) = (&transfers.session, &delivery.version);
    let (size, Some(digest)) = (version.stamp.size, version.digest) else { return Ok(Sent::No) };
    let consumed = transfers.directories.get(&version.directory).is_some_and(|(it, _)| it.consumed);
    let preparing = async { if consumed { session.prepare_temp_dir().await } else { Ok(()) } };
    // If the loop is not running yet, it is started concurrently with the other steps. Its start comes first in `join!`, so
    // that `prove_ahead` notices it.
    let (remote, settings) = (&session.remote, &session.link.settings);
    let starting = session.small_files.running(remote, settings);
    let (_, made, prepared, probed) = tokio::join!(
        biased;
        starting,
        session.change(delivery.id, session.make_dirs_above(assembly)),
        preparing,
        // Usually the directory exists already. If it does not, this check has no result.
        Box::pin(prove_ahead(transfers, delivery, assembly))
    );
    made?;
    prepared?;
    let probe = probed?;
    if size > BLIND && has_something(session, destination).await? {
        return Ok(Sent::No);
    }
    let asking = match is_known_elsewhere(transfers, delivery) {
        true => None,
        false => Some(session.small_files.asking.lock().await).filter(|_| !is_known_elsewhere(transfers, delivery)),
    };
    refuse_own_place(transfers, delivery)?;
    let Some(turn) = session.small_files.turn(&session.remote, &session.link.settings, size).await else {
        return Ok(Sent::No);
    };
    if !enter(transfers, delivery, DeliveryState::Uploading).await? {
        return Ok(Sent::Superseded);
    }
    let source = transfers.open_source(version).await?;
    let mut content = Vec::new();
    let mut at = 0;
    while at < size {
        let bytes = source.read(at, size - at).await.map_err(|error| source_fault(version, &error))?;
        at += bytes.len() as u64;
        content.push(bytes);
    }
    let sending = session.may_send(version, size, 0).await;
    session.wrote(version, size);
    let marker = consumed.then(|| loop_marker(session, delivery.id, delivery.version.stamp.size));
    let file = SmallFile {
        assembly: loop_assembly(assembly),
        destination: destination.clone(),
        marker: marker.clone(),
        mode: CopyOf::File.plain(version.mode),
        modified: u32::try_from(version.stamp.mtime).unwrap_or_default(),
        digest,
        size,
        content,
        asks: asking.is_some(),
    };
    let removing = async {
        let Some(probe) = probe else { return Ok(()) };
        // Both requests go at once; the vessel processes them in this order.
        let (closed, removed) = tokio::join!(biased; probe.close(), session.remote.remove(assembly));
        closed.and(removed)
    };
    transfers.surely_ours().await?;
    let change = session.changes.begin(delivery.id);
    let flight = turn.file_loop().send(file);
    let is_sent = flight.is_ok();
    let in_hand = sending.end_turn();
    let arriving = async {
        let mut flight = flight.map_err(|e| e.fault())?;
        if asking.is_some() && flight.asked().await {
            let proved = match prove_elsewhere(transfers, delivery, &loop_assembly(assembly), false).await {
                // The proof takes round trips, and the lease may expire meanwhile.
                Ok(()) => transfers.surely_ours().await,
                failed => failed,
            };
            flight.publish(proved.is_ok());
            proved?;
        }
        flight.delivered().await.map_err(|e| e.fault())
    };
    let (sent, removed) = tokio::join!(arriving, removing);
    // After an error, the loop may still publish the file.
    if sent.is_ok() || !is_sent {
        change.answered();
    }
    drop((turn, asking, in_hand));
    match sent {
        Ok(true) => {
            removed.map_err(|e| e.fault())?;
            session.sent(version, size);
            tracing::debug!(
                vessel = %session.link.settings.name, file = %version.path,
                "Sent the file through a script in the vessel's shell"
            );
            if let Some(marker) = marker {
                transfers.markers.lock().unwrap_or_else(PoisonError::into_inner).push(marker);
            }
            Ok(Sent::Delivered)
        }
        Ok(false) => Ok(Sent::No),
        // The loop may have published the file, and a program may have removed it. The next attempt finds that out.
        Err(fault) => Err(fault),
    }
}

/// While the loop is still starting, checks that the place of the delivery's directory is not on this host, so that the
/// check takes no extra time. If the loop is running already, it asks before it publishes. Returns the assembly if it
/// was created for the check.
async fn prove_ahead(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
) -> Result<Option<RemoteFile>, Fault> {
    let session = &transfers.session;
    if is_known_elsewhere(transfers, delivery) || !session.small_files.is_starting() {
        return Ok(None);
    }
    let _asking = session.small_files.asking.lock().await;
    // The state is recorded before the assembly is created, so that the assembly is removed even if this attempt is
    // interrupted.
    if is_known_elsewhere(transfers, delivery) || !enter(transfers, delivery, DeliveryState::Uploading).await? {
        return Ok(None);
    }
    match open_new(&session.remote, session.remote.main_channel(), assembly).await {
        Ok(file) => {
            prove_elsewhere(transfers, delivery, assembly, false).await?;
            Ok(Some(file))
        }
        Err(e) if e.is_connection() => Err(e.fault()),
        // The directory may not exist yet.
        Err(_) => Ok(None),
    }
}

/// Returns whether the final name exists on the vessel, so that the file may be there already.
async fn has_something(session: &Session, destination: &RemotePath) -> Result<bool, Fault> {
    match session.remote.look(destination).await {
        Ok(there) => Ok(there.is_some()),
        Err(e) if e.is_connection() => Err(e.fault()),
        Err(_) => Ok(false),
    }
}

/// Returns the path of the loop's marker for a delivery. The marker shows that the loop has renamed the file, or was
/// about to. It has the name of a part that starts at the end of the file, because no upload creates such a part.
pub(super) fn loop_marker(session: &Session, delivery: DeliveryId, size: u64) -> RemotePath {
    session.part(delivery, size)
}

/// Returns whether an earlier attempt of a delivery may have gone to the loop.
pub(super) fn may_have_gone(session: &Session, delivery: &Delivery) -> bool {
    let settings = &session.link.settings;
    let has_loop = settings.shell == Shell::Auto && settings.small_files != SmallFiles::Sftp;
    has_loop
        && !session.remote.is_this_host()
        && delivery.state != DeliveryState::Pending
        && delivery.version.plan().count() <= 1
        && delivery.version.stamp.size <= MOST_BYTES
}

/// Removes the files that the loop may have left behind in an earlier attempt of a delivery.
pub(super) async fn remove_loop_files(
    session: &Session,
    delivery: &Delivery,
    assembly: &RemotePath,
) -> Result<(), Fault> {
    if !may_have_gone(session, delivery) {
        return Ok(());
    }
    let (assembly, marker) = (loop_assembly(assembly), loop_marker(session, delivery.id, delivery.version.stamp.size));
    let (one, other) = tokio::join!(session.remote.remove(&assembly), session.remote.remove(&marker));
    session.late_files.add(delivery.id, Which::Any, [assembly, marker]);
    one.and(other).map_err(|e| e.fault())
}
