//! Completes a file in one round trip: a script in the vessel's shell hashes it, sets its mode and time, flushes and
//! renames it. On a short network path, and for files that a script can't complete, SFTP is used.

use std::time::Duration;

use super::acknowledge::enter;
use super::moved_files::wait_for_copies;
use super::same_host::prove_elsewhere;
use super::transfers::Transfers;
use crate::fault::Fault;
use crate::link::{LoopSlot, Session};
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState, Version, VersionKind};
use crate::rights::CopyOf;
use crate::settings::Verify;
use crate::transport::{Ended, Ending, GrowingHash};

/// The state of a file after the script.
pub(super) enum End {
    /// The file has its final name, verified and flushed.
    Published,
    /// The content was verified. The file must be finished and published over SFTP.
    Verified,
    /// The file must be verified, finished and published over SFTP.
    Not,
    /// The delivery was superseded.
    Superseded,
}

/// Returns whether a script may complete a version's file: on a network path where round trips cost more than
/// processes, if the script can set all attributes of the file.
pub(super) fn may_end(session: &Session, version: &Version) -> bool {
    version.kind == VersionKind::File
        && version.owner.is_none()
        && u32::try_from(version.stamp.mtime).is_ok()
        && session.link.settings.verify != Verify::ReadBack
        && LoopSlot::is_used(&session.remote, &session.link.settings)
}

/// Lets a script verify, finish and publish a complete assembly. `hash` is the vessel's own hash, computed while the
/// assembly grew.
pub(super) async fn end(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
    destination: &RemotePath,
    hash: Option<GrowingHash<'_>>,
) -> Result<End, Fault> {
    let (session, version) = (&transfers.session, &delivery.version);
    let Some(tool) = session.hash_tool() else { return Ok(End::Not) };
    let digest = transfers.digest(version).await?;
    prove_elsewhere(transfers, delivery, assembly, false).await?;
    if delivery.origin.is_some() {
        wait_for_copies(transfers, delivery).await?;
    }
    // This is the last point at which a newer version can prevent this one from being published.
    if !enter(transfers, delivery, DeliveryState::Publishing).await? {
        return Ok(End::Superseded);
    }
    let ending = Ending {
        assembly,
        destination,
        size: version.stamp.size,
        digest,
        mode: CopyOf::File.plain(version.mode),
        modified: u32::try_from(version.stamp.mtime).unwrap_or_default(),
        // Leaves a margin of 1 s, because the script starts a moment after the check.
        within: transfers.ledger.sure_for().saturating_sub(Duration::from_secs(1)),
    };
    let change = session.changes.begin(delivery.id);
    let ended = match hash {
        Some(hash) if hash.publishes() => hash.publish(&ending).await,
        _ => session.remote.publish(tool, &ending).await,
    };
    // After an error, the script may still run.
    if ended.is_ok() {
        change.answered();
    }
    let (vessel, file) = (&session.link.settings.name, &version.path);
    match ended {
        Ok(Ended::Published) => {
            tracing::debug!(%vessel, %file, "A script in the vessel's shell verified and renamed the file");
            return Ok(End::Published);
        }
        Ok(Ended::Verified(why)) => {
            tracing::debug!(%vessel, %file, "The vessel's shell verified the file, but did not rename it: {why}");
            return Ok(End::Verified);
        }
        Ok(Ended::Not(why)) => tracing::debug!(%vessel, %file, "The vessel's shell did not verify the file: {why}"),
        // The script may still run. The next attempt looks for the file under both names.
        Err(e) if e.is_silent() || session.remote.is_lost() => return Err(e.fault()),
        Err(e) => tracing::debug!(%vessel, %file, "{e}"),
    }
    // If the shell has ended, the file may have been published, and even removed by a program on the vessel.
    if session.remote.look(assembly).await.map_err(|e| e.fault())?.is_none() {
        return Err(Fault::attempt(format_args!(
            "the vessel's shell did not report whether it renamed the file to {destination}"
        )));
    }
    // The next steps may replace the assembly. The state is changed first, because a file in state `Publishing` that
    // exists under neither name counts as removed by a program on the vessel.
    match enter(transfers, delivery, DeliveryState::Verifying).await? {
        true => Ok(End::Not),
        false => Ok(End::Superseded),
    }
}
