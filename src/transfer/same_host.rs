//! Detection of a vessel that is the shore's own host, so that nothing is delivered onto its own source.
//!
//! The settings don't show that: the address may lead back through a name, a forwarded port or a hop. But the assembly
//! of a file, which exists on the vessel before anything is published and has a unique name, would then exist here too.
//! So one lookup on the shore's own disk per directory and connection is enough; it costs no round trip. Only if the
//! vessel seems to have a file already, the assembly is created just for this check.

use std::time::Duration;

use super::acknowledge::enter;
use super::transfers::Transfers;
use crate::fault::Fault;
use crate::link::open_new;
use crate::local;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState};
use crate::settings::{self, Directory};

/// Timeout for the shore's own disk.
const MOMENT: Duration = Duration::from_secs(5);

/// Returns the known result for the current place of a delivery's directory, which a reload may change.
fn known_of_place(transfers: &Transfers, delivery: &Delivery) -> Option<Option<Fault>> {
    let session = &transfers.session;
    let (directory, _) = transfers.directories.get(&delivery.version.directory)?;
    transfers.own_places.get(&directory.name, session.link.settings.remote_location(&directory))
}

/// Fails if the place of this directory is known to be where its sources are.
pub(super) fn refuse_own_place(transfers: &Transfers, delivery: &Delivery) -> Result<(), Fault> {
    known_of_place(transfers, delivery).flatten().map_or(Ok(()), Err)
}

/// Does the same as [`prove_elsewhere`] for deliveries without an assembly: one is created and removed again.
pub(super) async fn prove_elsewhere_first(transfers: &Transfers, delivery: &Delivery) -> Result<(), Fault> {
    let session = &transfers.session;
    let assembly = transfers.assembly(delivery)?;
    if known_of_place(transfers, delivery).is_some() {
        // An attempt that was interrupted at this point has left it.
        if delivery.state != DeliveryState::Pending {
            session.remote.remove(&assembly).await.map_err(|e| e.fault())?;
        }
        return refuse_own_place(transfers, delivery);
    }
    // Recorded first, so that the assembly is cleaned up whatever happens to the delivery.
    if !enter(transfers, delivery, DeliveryState::Publishing).await? {
        return Ok(());
    }
    prove_elsewhere(transfers, delivery, &assembly, true).await?;
    if known_of_place(transfers, delivery).is_some() {
        match session.remote.remove(&assembly).await {
            // The account may not remove files there. An empty file is no reason to hold back deliveries.
            Err(e) if e.is_refusal() => {
                tracing::debug!(vessel = %session.link.settings.name, "Cannot remove the assembly: {e}")
            }
            removed => removed.map_err(|e| e.fault())?,
        }
    }
    Ok(())
}

/// Fails if the place of this directory is where its sources are. With `make`, the assembly may be missing and is
/// created; otherwise it must exist.
pub(super) async fn prove_elsewhere(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
    make: bool,
) -> Result<(), Fault> {
    let session = &transfers.session;
    let name = &delivery.version.directory;
    if session.remote.is_this_host() || known_of_place(transfers, delivery).is_some() {
        return refuse_own_place(transfers, delivery);
    }
    let Some((directory, _)) = transfers.directories.get(name) else { return Ok(()) };
    let place = session.link.settings.remote_location(&directory);
    if make {
        match open_new(&session.remote, session.remote.main_channel(), assembly).await {
            Ok(file) => file.close().await.map_err(|e| e.fault())?,
            Err(e) if e.is_connection() => return Err(e.fault()),
            // If nothing can be written there, nothing can be replaced; the result stays open.
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
    // Best effort: a leftover assembly disturbs nobody but a person who looks at the directory.
    let _ = session.remote.remove(assembly).await;
    Err(fault)
}

/// Returns the fault for a place that meets its `Location`.
pub(crate) fn fault(vessel: &settings::Vessel, directory: &Directory, met: local::Meeting) -> Fault {
    let (name, place) = (&directory.name, vessel.remote_location(directory));
    let reason = format_args!("[Vessel {}] is this host, and {place} there {met} of [Directory {name}]", vessel.name);
    let remedy = format_args!("write `RemoteLocation.{name} = …` in [Vessel {}], a directory of its own", vessel.name);
    Fault::file(reason).mend(remedy)
}
