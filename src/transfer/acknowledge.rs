//! Updates of a delivery's state in the ledger, up to its acknowledgement.

use std::time::Instant;

use super::attributes::{looks_like, seen};
use super::transfers::Transfers;
use crate::compression::Codec;
use crate::fault::Fault;
use crate::monitor::Event;
use crate::records::{Delivery, DeliveryState, Seen, Verified, Version, VersionKind};
use crate::text::duration;

/// Result of a delivery that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged,
    Superseded,
}

/// Records that a delivery enters `state`; returns `false` if the delivery is not open any more. For every state except
/// `Uploading`, also waits until it is certain that no other process can do this vessel's work.
pub(super) async fn enter(transfers: &Transfers, delivery: &Delivery, state: DeliveryState) -> Result<bool, Fault> {
    let entered = transfers.ledger.enter(delivery.id, state).await.map_err(|e| e.fault())?;
    if entered && state != DeliveryState::Uploading {
        transfers.surely_ours().await?;
    }
    Ok(entered)
}

/// Records that the vessel has the version. `compressed` tells the format of compressed ranges, and how many bytes were
/// sent.
pub(super) async fn acknowledge(
    transfers: &Transfers,
    delivery: &Delivery,
    verified: Verified,
    started: Instant,
    compressed: Option<(Codec, u64)>,
) -> Result<Outcome, Fault> {
    let seen = seen_there(transfers, &delivery.version).await?;
    acknowledge_seen(transfers, delivery, (verified, seen), started, compressed).await
}

/// Records like [`acknowledge`] that the vessel has the version. The caller already has the value that [`seen_there`]
/// returns, and passes it as `seen`.
pub(super) async fn acknowledge_seen(
    transfers: &Transfers,
    delivery: &Delivery,
    (verified, seen): (Verified, Option<Seen>),
    started: Instant,
    compressed: Option<(Codec, u64)>,
) -> Result<Outcome, Fault> {
    let session = &transfers.session;
    let version = &delivery.version;
    let cost = session.costs.settle(version.id);
    if !transfers.ledger.acknowledge_there(delivery, verified, seen, cost).await.map_err(|e| e.fault())? {
        return Ok(Outcome::Superseded);
    }
    let (vessel, directory, took) = (&session.link.settings.name, &version.directory, started.elapsed());
    tracing::info!(
        %vessel, %directory, file = %version.path, bytes = version.stamp.size, took = %duration(took), verified = verified.as_str(),
        compressed = compressed.map(|(codec, _)| codec.name()), sent = compressed.map(|(_, sent)| sent),
        "{}", match (version.kind, verified) {
            (VersionKind::Gone, Verified::Kept) => "not deleted",
            (VersionKind::Gone, _) => "deleted",
            _ => "delivered",
        }
    );
    let (path, bytes) = (&version.path, version.stamp.size);
    // A path that was left on the vessel is not a deletion.
    let kind = Some(version.kind).filter(|kind| (*kind, verified) != (VersionKind::Gone, Verified::Kept));
    session.link.monitor.notice(&Event::Delivered { vessel, directory, path, kind, bytes, took });
    if let Some((_, retire_bell)) = transfers.directories.get(directory) {
        retire_bell.ring();
    }
    Ok(Outcome::Acknowledged)
}

/// Returns the size and time of a mirror's delivered file as the vessel reports them, if they differ from the source's:
/// the vessel may store no times or less precise ones. A later delivery uses them to check that the vessel's file is
/// still the delivered one.
pub(super) async fn seen_there(transfers: &Transfers, version: &Version) -> Result<Option<Seen>, Fault> {
    let session = &transfers.session;
    let is_mirrored = transfers.directories.get(&version.directory).is_some_and(|(it, _)| it.is_mirror());
    if version.kind != VersionKind::File || !is_mirrored {
        return Ok(None);
    }
    match session.remote.look(&transfers.destination(version)?).await {
        Ok(attrs) => Ok(attrs.filter(|attrs| !looks_like(&version.stamp, attrs)).and_then(|attrs| seen(&attrs))),
        Err(e) if e.is_connection() => Err(e.fault()),
        // The account can't read attributes. Without them, a later deletion can't check that the file is still the
        // delivered one.
        Err(_) => Ok(None),
    }
}
