//! Computes the signatures of versions when they are needed, and records them in the ledger, so that later versions and
//! similar files can be sent as deltas.

use std::sync::Arc;

use super::transfers::{Transfers, source_fault};
use crate::fault::Fault;
use crate::ledger::LastDelivered;
use crate::local::Source;
use crate::records::Version;
use crate::settings::Delta as Wish;
use crate::signature::Signature;
use crate::transport::Attrs;

/// Returns whether deltas are wanted for a version's directory.
pub(super) fn wish(transfers: &Transfers, version: &Version) -> Wish {
    let session = &transfers.session;
    match transfers.directories.get(&version.directory) {
        // On this host, reading the old file takes as long as writing the new one, so a delta saves no time.
        Some((directory, _)) if directory.delta == Wish::Auto && session.remote.is_this_host() => Wish::No,
        Some((directory, _)) => directory.delta,
        None => Wish::No,
    }
}

/// Returns a version's signature for an average block size, and records the signature and the digest in the ledger if
/// they are new. Returns `None` if the signature can't be computed from the source.
pub(super) async fn signature(
    transfers: &Transfers,
    version: &Version,
    source: &Source,
    average: u32,
) -> Result<Option<Arc<Signature>>, Fault> {
    let ledger = &transfers.ledger;
    let known = ledger.signature(version).await.map_err(|e| e.fault())?;
    if let Some(known) = known.filter(|known| known.average() == average) {
        return Ok(Some(Arc::new(known)));
    }
    let signed = source.signature(average).await.map_err(|error| source_fault(version, &error))?;
    let Some((digest, signature)) = signed.filter(|(digest, _)| version.digest.is_none_or(|known| known == *digest))
    else {
        return Ok(None);
    };
    if version.digest.is_none() {
        ledger.hashed(version.id, &digest).await.map_err(|e| e.fault())?;
    }
    ledger.keep_signature_of(version, &signature).await.map_err(|e| e.fault())?;
    Ok(Some(signature))
}

/// Returns whether the version's signature must be recorded, so that later versions can be sent as deltas.
fn needs_signature(transfers: &Transfers, version: &Version, there: Option<&Attrs>) -> bool {
    let is_mirror = transfers.directories.get(&version.directory).is_some_and(|(d, _)| d.is_mirror());
    let will_change = is_mirror || there.is_some_and(Attrs::is_file);
    version.stamp.size >= Signature::SMALLEST_FILE
        && match wish(transfers, version) {
            Wish::Yes => true,
            Wish::Auto => will_change,
            Wish::No => false,
        }
}

/// Requests that the signature is computed while the version is sent, if it must be recorded and the digest is unknown.
pub(super) fn sign_on_the_way(
    transfers: &Transfers,
    version: &Version,
    source: &Source,
    there: Option<&Attrs>,
    last: Option<&LastDelivered>,
) {
    if version.digest.is_none() && needs_signature(transfers, version, there) {
        source.sign_on_the_way(average_for(version, last));
    }
}

/// Records the signature of a version, if later versions need it.
pub(super) async fn keep_signature(
    transfers: &Transfers,
    version: &Version,
    source: &Source,
    there: Option<&Attrs>,
    last: Option<&LastDelivered>,
) -> Result<(), Fault> {
    if !needs_signature(transfers, version, there) {
        return Ok(());
    }
    // If this version was compared with another file, its recorded signature has the average block length of that
    // file's signature. That is good enough if this length fits the version's size.
    let known = transfers.ledger.signature(version).await.map_err(|e| e.fault())?;
    let fits = |known: Signature| Signature::average_for(version.stamp.size, Some(known.average())) == known.average();
    if !known.is_some_and(fits) {
        signature(transfers, version, source, average_for(version, last)).await?;
    }
    Ok(())
}

fn average_for(version: &Version, last: Option<&LastDelivered>) -> u32 {
    Signature::average_for(version.stamp.size, last.map(|last| last.signature.average()))
}
