//! The result of a verification, and the digests of a version's chunks, which show which chunks are bad.

use super::transfers::{Transfers, source_changed, source_fault};
use crate::digest::Digest;
use crate::fault::Fault;
use crate::records::{NewVersion, Traits, Verified, Version};

/// Result of verifying the vessel's copy.
pub(super) enum Verdict {
    /// The copy is this version; the value tells how that was verified.
    Good(Verified),
    /// The copy differs in these chunks.
    Bad(Vec<u64>),
}

/// Computes the digests of a version's chunks from the source; they are not stored because they are rarely needed.
pub(super) async fn chunk_digests(
    transfers: &Transfers,
    version: &Version,
    digest: &Digest,
) -> Result<Vec<Digest>, Fault> {
    let source = transfers.open_source(version).await?;
    let digests = source.read_again(version.chunk_size).await.map_err(|error| source_fault(version, &error))?;
    if digests.file == *digest {
        return Ok(digests.chunks);
    }
    // The source changed while its size and time stayed the same, so the sent bytes may be a mixture of both contents.
    // Recording a skipped version makes ingest take in the current content.
    source.forget();
    let nothing_to_send = NewVersion::without_content(version.path.clone(), Traits::SKIPPED, Vec::new());
    transfers.ledger.admit(&version.directory, &[nothing_to_send], &[]).await.map_err(|e| e.fault())?;
    Err(source_changed(version))
}

pub(super) fn all_chunks(version: &Version) -> Vec<u64> {
    (0..version.plan().count()).collect()
}

pub(super) fn differing(wanted: &[Digest], found: &[Digest]) -> Vec<u64> {
    (0u64..).zip(wanted).filter(|(chunk, digest)| found.get(*chunk as usize) != Some(*digest)).map(|(c, _)| c).collect()
}
