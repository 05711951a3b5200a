//! A vessel that is this very host: nothing is delivered onto its own source.
//!
//! That shows nowhere in the settings: the address may lead back by a name, a port that is passed on, or a hop. But a file's
//! assembly, which is on the vessel before anything is published there and has a name that nobody else gives, would then be
//! here too. So one look at the shore's own disk, for each directory and connection, tells; it costs no round trip. Only
//! where the vessel seems to have a file already, the assembly is made just for that.

use std::time::Duration;

use super::acknowledge::enter;
use super::transfers::Transfers;
use crate::fault::Fault;
use crate::link::open_new;
use crate::local;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState};
use crate::settings::{self, Directory};

/// How long the shore's disk has for an answer.
const MOMENT: Duration = Duration::from_secs(5);

/// What is known of where a delivery's directory goes now: a reload may change that.
fn known_of_place(transfers: &Transfers, delivery: &Delivery) -> Option<Option<Fault>> {
    let session = &transfers.session;
    let (directory, _) = transfers.directories.get(&delivery.version.directory)?;
    transfers.own_places.get(&directory.name, session.settings.remote_location(&directory))
}

/// Fails when the place of this directory is known to be where its sources are.
pub(super) fn refuse_own_place(transfers: &Transfers, delivery: &Delivery) -> Result<(), Fault> {
    known_of_place(transfers, delivery).flatten().map_or(Ok(()), Err)
}

/// The same for what has no assembly: one is made, and removed again.
pub(super) async fn prove_elsewhere_first(transfers: &Transfers, delivery: &Delivery) -> Result<(), Fault> {
    let session = &transfers.session;
    let assembly = transfers.assembly(delivery)?;
    if known_of_place(transfers, delivery).is_some() {
        // An attempt that was cut off right here has left it.
        if delivery.state != DeliveryState::Pending {
            session.remote.remove(&assembly).await.map_err(|e| e.fault())?;
        }
        return refuse_own_place(transfers, delivery);
    }
    // Entered first, so that it is known to be there whatever becomes of the delivery.
    if !enter(transfers, delivery, DeliveryState::Publishing).await? {
        return Ok(());
    }
    prove_elsewhere(transfers, delivery, &assembly, true).await?;
    if known_of_place(transfers, delivery).is_some() {
        match session.remote.remove(&assembly).await {
            // Nobody may remove files there: an empty one is no reason to hold back what can be delivered.
            Err(e) if e.is_refusal() => tracing::debug!(vessel = %session.settings.name, "Assembly not removed: {e}"),
            removed => removed.map_err(|e| e.fault())?,
        }
    }
    Ok(())
}

/// Fails when the place of this directory is where its sources are. With `make`, the assembly may be missing; otherwise
/// it is there.
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
    let place = session.settings.remote_location(&directory);
    if make {
        match open_new(&session.remote, session.remote.main_channel(), assembly).await {
            Ok(file) => file.close().await.map_err(|e| e.fault())?,
            Err(e) if e.is_connection() => return Err(e.fault()),
            // Where nothing can be written, nothing is replaced; nor is anything proved.
            Err(_) => return Ok(()),
        }
    }
    let (settings, path, made) = (session.settings.clone(), delivery.version.path.clone(), assembly.clone());
    let shown = directory.clone();
    let looking = tokio::task::spawn_blocking(move || {
        local::meeting(&shown, Some(&path), settings.remote_location(&shown), &made)
    });
    // Where the shore's own disk hangs at that path, nothing is proved.
    let Ok(Ok(met)) = tokio::time::timeout(MOMENT, looking).await else {
        transfers.own_places.set(name, place, None);
        return Ok(());
    };
    let fault = met.map(|met| fault(&session.settings, &directory, met));
    transfers.own_places.set(name, place, fault.clone());
    let Some(fault) = fault else { return Ok(()) };
    // It is in the way of nobody but a person who looks at the directory.
    let _ = session.remote.remove(assembly).await;
    Err(fault)
}

/// The fault of a place that meets its `Location`.
pub(crate) fn fault(vessel: &settings::Vessel, directory: &Directory, met: local::Meeting) -> Fault {
    let (name, place) = (&directory.name, vessel.remote_location(directory));
    let reason = format_args!("[Vessel {}] is this host, and {place} there {met} of [Directory {name}]", vessel.name);
    let remedy = format_args!("write `RemoteLocation.{name} = …` in [Vessel {}], a directory of its own", vessel.name);
    Fault::file(reason).mend(remedy)
}
