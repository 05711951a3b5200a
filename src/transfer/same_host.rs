//! Detection of a vessel that is the shore's own host, so that nothing is delivered onto its own source.
//!
//! The settings don't show whether a vessel is this host: the address may lead back here through another name, a
//! forwarded port or a hop. If it does, an assembly (a temporary file with a unique name) on the vessel also exists on
//! the shore's own disk. So one lookup on that disk per directory and connection, before anything is published, is
//! enough and costs no round trip. If a delivery needs no assembly, for example because the vessel seems to have the
//! file already, an assembly is created just for this check.

use std::time::Duration;

use super::acknowledge::enter;
use super::transfers::Transfers;
use crate::fault::Fault;
use crate::link::open_new;
use crate::local;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState};
use crate::settings::{self, Directory};

/// Timeout for the lookup on the shore's own disk.
const MOMENT: Duration = Duration::from_secs(5);

/// Returns the result of the check for the current place of a delivery's directory, its `RemoteLocation` on the vessel;
/// `None` if the place is unchecked. A reload may change the place.
fn known_of_place(transfers: &Transfers, delivery: &Delivery) -> Option<Option<Fault>> {
    let session = &transfers.session;
    let (directory, _) = transfers.directories.get(&delivery.version.directory)?;
    transfers.own_places.get(&directory.name, session.link.settings.remote_location(&directory))
}

/// Returns whether the place of the delivery's directory was checked and may receive deliveries.
pub(super) fn is_known_elsewhere(transfers: &Transfers, delivery: &Delivery) -> bool {
    matches!(known_of_place(transfers, delivery), Some(None))
}

/// Returns whether [`prove_elsewhere`] needs no lookup for a delivery.
pub(super) fn is_proven(transfers: &Transfers, delivery: &Delivery) -> bool {
    transfers.session.remote.is_this_host() || known_of_place(transfers, delivery).is_some()
}

/// Fails if the check has already found the place of the delivery's directory unfit, for example because its sources
/// are there.
pub(super) fn refuse_own_place(transfers: &Transfers, delivery: &Delivery) -> Result<(), Fault> {
    known_of_place(transfers, delivery).flatten().map_or(Ok(()), Err)
}

/// Checks the place like [`prove_elsewhere`], for deliveries without an assembly: creates an assembly and removes it
/// again.
pub(super) async fn prove_elsewhere_first(transfers: &Transfers, delivery: &Delivery) -> Result<(), Fault> {
    let session = &transfers.session;
    let assembly = transfers.assembly(delivery)?;
    if known_of_place(transfers, delivery).is_some() {
        // An earlier attempt that was interrupted after the check may have left the assembly.
        if delivery.state != DeliveryState::Pending {
            session.remote.remove(&assembly).await.map_err(|e| e.fault())?;
        }
        return refuse_own_place(transfers, delivery);
    }
    // The state is recorded before the assembly is created, so that the assembly is removed even if this attempt is
    // interrupted.
    if !enter(transfers, delivery, DeliveryState::Publishing).await? {
        return Ok(());
    }
    prove_elsewhere(transfers, delivery, &assembly, true).await?;
    if known_of_place(transfers, delivery).is_some() {
        match session.remote.remove(&assembly).await {
            // The account is not allowed to remove files there. The empty file that remains must not block deliveries.
            Err(e) if e.is_refusal() => {
                tracing::debug!(vessel = %session.link.settings.name, "Cannot remove the empty test file: {e}")
            }
            removed => removed.map_err(|e| e.fault())?,
        }
    }
    Ok(())
}

/// Fails if the place of the delivery's directory overlaps with the directory's `Location`. With `make`, creates the
/// assembly for the check if it is missing; otherwise the assembly must exist.
pub(super) async fn prove_elsewhere(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
    make: bool,
) -> Result<(), Fault> {
    let session = &transfers.session;
    let name = &delivery.version.directory;
    if is_proven(transfers, delivery) {
        return refuse_own_place(transfers, delivery);
    }
    let Some((directory, _)) = transfers.directories.get(name) else { return Ok(()) };
    let place = session.link.settings.remote_location(&directory);
    if make {
        match open_new(&session.remote, session.remote.main_channel(), assembly).await {
            Ok(file) => file.close().await.map_err(|e| e.fault())?,
            Err(e) if e.is_connection() => return Err(e.fault()),
            // If no file can be created at the place, no source can be overwritten. The place stays unchecked.
            Err(_) => return Ok(()),
        }
    }
    let (settings, path, made) = (session.link.settings.clone(), delivery.version.path.clone(), assembly.clone());
    let shown = directory.clone();
    let looking = tokio::task::spawn_blocking(move || {
        local::meeting(&shown, Some(&path), settings.remote_location(&shown), &made)
    });
    // If the shore's own disk does not respond at that path, the place is accepted.
    let Ok(Ok(met)) = tokio::time::timeout(MOMENT, looking).await else {
        transfers.own_places.set(name, place, None);
        return Ok(());
    };
    let fault = met.map(|met| fault(&session.link.settings, &directory, met));
    transfers.own_places.set(name, place, fault.clone());
    let Some(fault) = fault else { return Ok(()) };
    // An error is ignored, because a leftover assembly does no harm.
    let _ = session.remote.remove(assembly).await;
    Err(fault)
}

/// Returns the fault for a place on this host that overlaps with the directory's `Location`.
pub(crate) fn fault(vessel: &settings::Vessel, directory: &Directory, met: local::Meeting) -> Fault {
    let (name, place) = (&directory.name, vessel.remote_location(directory));
    let vessel = &vessel.name;
    let reason = format_args!(
        "[Vessel {vessel}] is this host itself, and RemoteLocation {place} {met} of [Directory {name}]: files would be \
         delivered among the sources"
    );
    let remedy = format_args!("in [Vessel {vessel}], set `RemoteLocation.{name} = …` to another directory");
    Fault::file(reason).mend(remedy)
}
