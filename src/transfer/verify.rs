//! Verification: compares the digest of the vessel's copy with the version, and finds the bad chunks if they differ.

use futures_util::future::join;
use futures_util::{StreamExt, stream};

use super::check_file::verify_by_check_file;
use super::publish::{flush_together, flushes_together};
use super::repair::repair;
use super::transfers::{Transfers, source_changed};
use super::verdict::{Verdict, all_chunks, chunk_digests, differing};
use crate::digest::{Digest, FileDigests, FileHasher};
use crate::fault::{Cause, Fault};
use crate::link::Session;
use crate::names::RemotePath;
use crate::records::{Delivery, Verified, Version};
use crate::settings::Verify;
use crate::transport::{Attrs, GrowingHash, HashTool, OpenFlags, RemoteError};

/// Number of concurrent reads when a file is read back.
const READS: usize = 16;
/// Number of concurrent reads if the way has a budget.
const READS_WITHIN_A_BUDGET: usize = 2;
/// Maximum number of ranges hashed by one command.
const RANGES: usize = 256;

/// Maximum number of times that bad chunks are sent again before the file is parked.
pub(super) const REPAIRS: usize = 3;

/// Verifies the assembly and sends bad chunks again. Also returns whether it sent chunks again. `hash` is the vessel's
/// own hash, computed while the assembly grew.
pub(super) async fn verify_and_repair(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
    hash: Option<GrowingHash<'_>>,
) -> Result<(Verified, bool), Fault> {
    let session = &transfers.session;
    let version = &delivery.version;
    if let Some(hash) = hash {
        let (found, wanted) = tokio::join!(hash.finish(version.stamp.size), transfers.digest(version));
        match found {
            Ok(found) if found == wanted? => return Ok((Verified::ByVessel, false)),
            // The digest differs. The bad chunks are found below, when the stored file is hashed.
            Ok(_) => {}
            Err(e) => tracing::debug!(vessel = %session.link.settings.name, file = %version.path, "{e}"),
        }
    }
    for repairs in 0..REPAIRS {
        let bad = match verify(transfers, version, assembly).await? {
            Verdict::Good(verified) => return Ok((verified, repairs > 0)),
            Verdict::Bad(bad) => bad,
        };
        tracing::warn!(
            vessel = %session.link.settings.name, file = %version.path, chunks = ?bad,
            "The file arrived damaged; sending the bad chunks again"
        );
        // Opening fails if the source has changed, which would explain the damage and make a repair pointless.
        let source = transfers.open_source(version).await?;
        repair(session, version, &source, assembly, &bad).await?;
    }
    match verify(transfers, version, assembly).await? {
        Verdict::Good(verified) => Ok((verified, true)),
        Verdict::Bad(_) => {
            transfers.open_source(version).await.map_err(|_| source_changed(version))?;
            Err(Fault::file(format_args!("the file arrived damaged {} times in a row", REPAIRS + 1))
                .mend("check the vessel's disk and memory")
                .of(Cause::Damaged))
        }
    }
}

/// Verifies the assembly of a small file. Flushes it, too, if the vessel can flush many files at once.
pub(super) async fn verify_small(
    transfers: &Transfers,
    delivery: &Delivery,
    assembly: &RemotePath,
) -> Result<Verified, Fault> {
    let session = &transfers.session;
    let version = &delivery.version;
    let wanted = transfers.digest(version).await?;
    let (found, flushed) = match session.hash_tool() {
        Some(_) => session.commands.check(assembly, version.stamp.size).await.map_err(|e| e.fault())?,
        None => (None, false),
    };
    let (verified, repaired) = if found == Some(wanted) {
        (Verified::ByVessel, false)
    } else {
        Box::pin(verify_and_repair(transfers, delivery, assembly, None)).await?
    };
    if !repaired && flushes_together(session) && !flushed {
        flush_together(session, assembly).await?;
    }
    Ok(verified)
}

/// Verifies a file on the vessel against a version: by a hash that the vessel computes, by reading the file back, or by
/// its size, depending on `Verify` and on what the vessel can do.
pub(crate) async fn verify(transfers: &Transfers, version: &Version, path: &RemotePath) -> Result<Verdict, Fault> {
    let session = &transfers.session;
    let wanted = transfers.digest(version).await?;
    let Some(tool) = session.hash_tool() else {
        return verify_without_tool(transfers, version, &wanted, path).await;
    };
    let digest = if version.plan().count() > 1 {
        session.remote.hash(tool, path, version.stamp.size).await.map(Some)
    } else {
        session.commands.check(path, version.stamp.size).await.map(|(digest, _)| digest)
    };
    if digest.map_err(|e| e.fault())? == Some(wanted) {
        return Ok(Verdict::Good(Verified::ByVessel));
    }
    bad_chunks(transfers, version, &wanted, tool, path).await.map(Verdict::Bad)
}

async fn verify_without_tool(
    transfers: &Transfers,
    version: &Version,
    wanted: &Digest,
    path: &RemotePath,
) -> Result<Verdict, Fault> {
    let session = &transfers.session;
    let how = session.link.settings.verify;
    if how != Verify::ReadBack
        && let Some(verdict) = Box::pin(verify_by_check_file(transfers, version, wanted, path)).await?
    {
        return Ok(verdict);
    }
    match how {
        Verify::Size => compare_sizes(session, version, path).await,
        Verify::Hash | Verify::ReadBack => read_back(transfers, version, wanted, path).await,
    }
}

async fn bad_chunks(
    transfers: &Transfers,
    version: &Version,
    digest: &Digest,
    tool: HashTool,
    path: &RemotePath,
) -> Result<Vec<u64>, Fault> {
    let session = &transfers.session;
    let wanted = chunk_digests(transfers, version, digest).await?;
    let chunks: Vec<u64> = (0..version.plan().count()).collect();
    let mut found = Vec::with_capacity(chunks.len());
    for some in chunks.chunks(RANGES) {
        let ranges: Vec<_> = some.iter().map(|chunk| version.plan().range(*chunk)).collect();
        found.extend(session.remote.hash_ranges(tool, path, &ranges).await.map_err(|e| e.fault())?);
    }
    Ok(differing(&wanted, &found))
}

async fn read_back(
    transfers: &Transfers,
    version: &Version,
    wanted: &Digest,
    path: &RemotePath,
) -> Result<Verdict, Fault> {
    let session = &transfers.session;
    let (digests, changed) = match digests_of(session, version, path).await {
        Err(e) if e.is_refusal() => return compare_sizes(session, version, path).await,
        digests => digests.map_err(|e| e.fault())?,
    };
    if digests.file == *wanted {
        // If the file's size changed after reading, all chunks are sent again, although the bytes read were correct.
        return Ok(if changed { Verdict::Bad(all_chunks(version)) } else { Verdict::Good(Verified::ByReadBack) });
    }
    Ok(Verdict::Bad(differing(&chunk_digests(transfers, version, wanted).await?, &digests.chunks)))
}

/// Compares the sizes, with `Verify = size`, or if the account is allowed to write but not to read.
async fn compare_sizes(session: &Session, version: &Version, path: &RemotePath) -> Result<Verdict, Fault> {
    match session.remote.look(path).await {
        Ok(Some(Attrs { size: Some(size), .. })) if size == version.stamp.size => Ok(Verdict::Good(Verified::BySize)),
        Ok(Some(Attrs { size: None, .. })) => Ok(Verdict::Good(Verified::Not)),
        Ok(_) => Ok(Verdict::Bad(all_chunks(version))),
        Err(e) if e.is_refusal() => Ok(Verdict::Good(Verified::Not)),
        Err(e) => Err(e.fault()),
    }
}

/// Reads a file back. Returns its digests, and whether its size differed from the version's after reading.
async fn digests_of(
    session: &Session,
    version: &Version,
    path: &RemotePath,
) -> Result<(FileDigests, bool), RemoteError> {
    let file = session.remote.open(path, OpenFlags::READ, 0).await?;
    let per_read = session.remote.capabilities().bytes_per_read();
    let mut hasher = FileHasher::new(version.chunk_size);
    let size = version.stamp.size;
    let offsets = (0..size.div_ceil(u64::from(per_read))).map(|index| index * u64::from(per_read));
    // The last read checks for bytes beyond the expected end, because with such bytes the file differs even if all
    // chunks are good.
    let pieces = offsets.chain([size]).map(|at| {
        let (file, length) = (file.clone(), u64::from(per_read).min(size - at));
        async move {
            let _in_hand = session.may_receive(version, length).await;
            match length {
                0 => read_fully(&file, at, 1).await.or_else(unless_lost),
                _ => read_fully(&file, at, length).await,
            }
        }
    });
    // With a budget, only few requests are sent at once, because requested bytes reach the link only later.
    let at_once = if session.link.way.allowance.is_unlimited() { READS } else { READS_WITHIN_A_BUDGET };
    let mut pieces = stream::iter(pieces).buffered(at_once);
    while let Some(piece) = pieces.next().await {
        for bytes in piece? {
            hasher.update(&bytes);
        }
    }
    drop(pieces);
    // Both requests are sent at once, the size query last, so that little time passes between this check and the
    // rename.
    let (closed, after) = join(file.clone().close(), session.remote.look(path)).await;
    closed?;
    let after = after.map(|attrs| attrs.and_then(|attrs| attrs.size)).or_else(unless_lost)?;
    let changed = after.is_some_and(|after| after != size);
    Ok((hasher.finish(), changed))
}

/// Replaces an error with the default value, unless the connection is lost.
fn unless_lost<T: Default>(error: RemoteError) -> Result<T, RemoteError> {
    if error.is_connection() { Err(error) } else { Ok(T::default()) }
}

/// Reads `length` bytes, in several reads if the vessel returns fewer than requested. Returns fewer at the end of the
/// file.
async fn read_fully(
    file: &crate::transport::RemoteFile,
    mut at: u64,
    mut length: u64,
) -> Result<Vec<bytes::Bytes>, RemoteError> {
    let mut pieces = Vec::new();
    while let Ok(wanted @ 1..) = u32::try_from(length) {
        let Some(bytes) = file.read_at(at, wanted).await? else { break };
        at += bytes.len() as u64;
        length -= bytes.len() as u64;
        pieces.push(bytes);
    }
    Ok(pieces)
}
