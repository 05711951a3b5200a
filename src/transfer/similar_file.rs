//! Finds other files on the vessel that have blocks of a version, for example a log that was rotated and then changed,
//! or an image that was changed under a new name. Only the remaining blocks are sent.
//!
//! A few stretches of the source, about a 64th of it, are divided into blocks, and the ledger is searched for files of
//! the directory whose signatures have some of these blocks. The signature of the whole source is computed before
//! sending only if there are such files. The result is verified by its hash, like every delta.

use futures_util::future::try_join_all;
use tokio::task::spawn_blocking;

use super::copy_source::{may_use, open};
use super::delta::{Delta, copies_by_command, copies_in_order};
use super::resume_state::ResumeState;
use super::signing::{signature, wish};
use super::transfers::{Transfers, source_fault};
use crate::fault::Fault;
use crate::ledger::SimilarFile;
use crate::local::Source;
use crate::names::RemotePath;
use crate::records::{Delivery, Version, VersionKind};
use crate::settings::Delta as Wish;
use crate::signature::{Block, Signature, SignatureBuilder};
use crate::transport::RemoteFile;

/// Number of stretches of a source that are compared, and their length in blocks of average length.
const STRETCHES: u64 = 8;
const BLOCKS: u64 = 32;
/// Number of bytes that are divided into blocks at once.
const PIECE: usize = 4 << 20;
/// A delta that sends at most 1/`GOOD` of the bytes is good enough, so other files are not compared.
const GOOD: u64 = 8;

/// An open file on the vessel that has blocks of a version.
pub(super) struct OpenSimilar {
    found: SimilarFile,
    path: RemotePath,
    file: RemoteFile,
}

impl OpenSimilar {
    /// Returns the version that was delivered to the file.
    pub(super) fn held(&self) -> &Version {
        &self.found.held.version
    }
}

/// Returns whether other files are searched for blocks: for large files, if the vessel can copy ranges.
pub(super) fn is_possible(transfers: &Transfers, delivery: &Delivery) -> bool {
    let (session, version) = (&transfers.session, &delivery.version);
    let is_large = version.kind == VersionKind::File && version.plan().count() > 1;
    is_large
        && may_use(transfers, delivery)
        && wish(transfers, version) != Wish::No
        && (copies_in_order(session) || copies_by_command(session))
}

/// Finds files that have blocks of a version whose signature was not computed yet.
pub(super) async fn find(transfers: &Transfers, delivery: &Delivery) -> Result<Vec<OpenSimilar>, Fault> {
    let version = &delivery.version;
    let averages = transfers.ledger.averages_beside(version).await.map_err(|e| e.fault())?;
    let size = version.stamp.size;
    let fits = |average: &u32| Signature::average_for(size, Some(*average)) == *average;
    let averages: Vec<u32> = averages.into_iter().filter(fits).collect();
    if averages.is_empty() {
        return Ok(Vec::new());
    }
    let source = transfers.open_unhashed(version).await?;
    let blocks = some_blocks(version, &source, &averages).await?;
    find_with(transfers, version, &blocks).await
}

/// Finds files that have some of these blocks.
async fn find_with(transfers: &Transfers, version: &Version, blocks: &[i64]) -> Result<Vec<OpenSimilar>, Fault> {
    let vessel = &transfers.session.link.settings.name;
    let found = transfers.ledger.similar(vessel, version, blocks).await.map_err(|e| e.fault())?;
    let opening = found.into_iter().filter_map(|found| {
        let path = transfers.destination(&found.held.version).ok()?;
        Some(async move {
            let file = open(transfers, &found.held, &path).await?;
            Ok::<_, Fault>(file.map(|file| OpenSimilar { found, path, file }))
        })
    });
    Ok(try_join_all(opening).await?.into_iter().flatten().collect())
}

/// Returns the keys of the blocks of a few stretches of a source, for each of these average lengths.
async fn some_blocks(version: &Version, source: &Source, averages: &[u32]) -> Result<Vec<i64>, Fault> {
    let size = version.stamp.size;
    let longest = averages.iter().copied().max().unwrap_or_default();
    let length = (u64::from(longest) * BLOCKS).min(size);
    let mut keys = Vec::new();
    let stretches = STRETCHES.min(size.div_ceil(length.max(1)));
    for stretch in 0..stretches {
        let start = (size - length) / (stretches - 1).max(1) * stretch;
        let mut builders: Vec<_> = averages.iter().map(|average| SignatureBuilder::new(*average)).collect();
        let mut at = start;
        while at < start + length {
            let mut pieces = Vec::new();
            let mut read = 0;
            while at < start + length && read < PIECE {
                let bytes = source.read(at, start + length - at).await;
                let bytes = bytes.map_err(|error| source_fault(version, &error))?;
                (at, read) = (at + bytes.len() as u64, read + bytes.len());
                pieces.push(bytes);
            }
            let cutting = spawn_blocking(move || {
                builders.iter_mut().for_each(|builder| pieces.iter().for_each(|piece| builder.update(piece)));
                builders
            });
            builders = cutting
                .await
                .map_err(|e| Fault::attempt(format_args!("dividing {} into blocks failed: {e}", version.path)))?;
        }
        keys.extend(
            builders
                .into_iter()
                .flat_map(|builder| builder.finish().blocks().iter().map(Block::key).collect::<Vec<_>>()),
        );
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// Plans to build a version from the file that saves most bytes. Returns the plan and the index of the file in `files`.
pub(super) async fn plan(
    transfers: &Transfers,
    version: &Version,
    source: &Source,
    held: &ResumeState,
    files: &[OpenSimilar],
) -> Result<Option<(Delta, usize)>, Fault> {
    let Some(first) = files.first() else { return Ok(None) };
    let average = first.found.signature.average();
    if Signature::average_for(version.stamp.size, Some(average)) != average {
        return Ok(None);
    }
    let Some(signature) = signature(transfers, version, source, average).await? else { return Ok(None) };
    let plans = files.iter().enumerate().filter_map(|(index, file)| {
        let signatures = (&file.found.signature, &*signature);
        let opened = Some(file.file.clone());
        Some((Delta::from_blocks(&transfers.session, signatures, held, file.path.clone(), opened)?, index))
    });
    Ok(plans.min_by_key(|(delta, _)| delta.sent_bytes()))
}

/// Finds files with blocks of a version, unless `own`, the delta from the file's earlier version, is good enough.
/// Planning that delta recorded the version's signature; it was not planned if the vessel no longer has the earlier
/// version.
pub(super) async fn find_better(
    transfers: &Transfers,
    delivery: &Delivery,
    own: Option<&Delta>,
) -> Result<Vec<OpenSimilar>, Fault> {
    let version = &delivery.version;
    let is_good = own.is_some_and(|own| own.sent_bytes() <= version.stamp.size / GOOD);
    if is_good || !is_possible(transfers, delivery) {
        return Ok(Vec::new());
    }
    let Some(signature) = transfers.ledger.signature(version).await.map_err(|e| e.fault())? else {
        return find(transfers, delivery).await;
    };
    let mut found = find_with(transfers, version, &signature.samples()).await?;
    // Files whose signatures have another average block length would require another pass over the source.
    found.retain(|file| file.found.signature.average() == signature.average());
    Ok(found)
}
