//! Finds a file on the vessel that has the content of a version, so that the vessel copies it instead of receiving it.
//!
//! The digest of a source of one chunk is known since intake. A larger source is hashed to find a copy only if the
//! vessel holds a file of the same size with the same bytes at a few offsets. The SHA-256 decides: a file on the vessel
//! is copied only if it has the digest of the version, and the copy is verified like an upload.

use futures_util::future::try_join_all;

use super::attributes::{looks_like, seen};
use super::delta::{Delta, copies_by_command, copies_in_order};
use super::resume_state::ResumeState;
use super::signing::sign_on_the_way;
use super::transfers::{Transfers, source_fault};
use crate::digest::Digest;
use crate::fault::Fault;
use crate::local::Source;
use crate::monitor::Event;
use crate::names::RemotePath;
use crate::records::{Delivery, HeldVersion, Version, VersionKind};
use crate::settings::Dedup;
use crate::signature::Signature;
use crate::transport::{Attrs, OpenFlags, RemoteError, RemoteFile};

/// Length in bytes of a range that is compared before a large file is hashed.
const SAMPLE: u64 = 4 << 10;

/// A file on the vessel with the content of a version.
pub(super) struct CopySource {
    /// The version that was delivered to the file.
    held: Version,
    path: RemotePath,
    file: RemoteFile,
    /// The digest of the file, which is also that of the version.
    pub(super) digest: Digest,
}

/// Returns whether a delivery may use content that the vessel already has. After a failed attempt, the file is sent.
pub(super) fn may_use(transfers: &Transfers, delivery: &Delivery) -> bool {
    let directory = transfers.directories.get(&delivery.version.directory);
    delivery.failures == 0 && directory.is_some_and(|(directory, _)| directory.dedup == Dedup::Auto)
}

/// Returns whether a file on the vessel still has the size and time with which it was delivered.
pub(super) fn is_as_delivered(held: &HeldVersion, attrs: &Attrs) -> bool {
    attrs.is_file()
        && match held.seen {
            Some(before) => seen(attrs) == Some(before),
            None => looks_like(&held.version.stamp, attrs),
        }
}

/// Returns whether a delivery's file is large enough to be copied, and the vessel can copy.
pub(super) fn is_possible(transfers: &Transfers, delivery: &Delivery) -> bool {
    let (session, version) = (&transfers.session, &delivery.version);
    let is_large = version.kind == VersionKind::File && version.stamp.size >= Signature::SMALLEST_FILE;
    is_large && may_use(transfers, delivery) && (copies_in_order(session) || copies_by_command(session))
}

/// Finds a file on the vessel that can be copied; `None` if the version must be sent.
pub(super) async fn find(transfers: &Transfers, delivery: &Delivery) -> Result<Option<CopySource>, Fault> {
    let (session, version) = (&transfers.session, &delivery.version);
    let vessel = &session.link.settings.name;
    let mut source = None;
    let mut candidates = transfers.ledger.copies_of(vessel, version).await.map_err(|e| e.fault())?;
    let mut origin = None;
    if delivery.origin.is_some() {
        let there = transfers.ledger.origin_there(vessel, delivery).await.map_err(|e| e.fault())?;
        let there = there.map(|there| there.held).filter(|held| held.version.stamp == version.stamp);
        origin = there.as_ref().map(|held| held.version.id);
        candidates.retain(|held| Some(held.version.id) != origin);
        candidates.splice(0..0, there);
    }
    candidates.retain(|held| origin == Some(held.version.id) || !session.unequal.contains(version.id, held.version.id));
    let tried: Vec<_> = candidates.iter().map(|held| held.version.id).collect();
    // All files are opened concurrently. On a long network path, opening them one after another would take seconds.
    let opening = candidates.into_iter().filter_map(|held| {
        let path = transfers.destination(&held.version).ok()?;
        Some(async move { Ok(open(transfers, &held, &path).await?.map(|file| (held, path, file))) })
    });
    let opened: Vec<Option<_>> = try_join_all(opening).await?;
    for (held, path, file) in opened.into_iter().flatten() {
        let is_origin = origin == Some(held.version.id);
        if is_origin && copies_in_order(session) {
            transfers.moved_files.secured(delivery.id);
        }
        let digest = match version.digest {
            Some(digest) => digest,
            None => {
                let source = match &source {
                    Some(source) => source,
                    None => source.insert(transfers.open_unhashed(version).await?),
                };
                if !is_origin && !has_same_samples(version, source, &file).await? {
                    continue;
                }
                sign_on_the_way(transfers, version, source, None, None);
                transfers.digest(version).await?
            }
        };
        if held.version.digest == Some(digest) {
            tracing::debug!(
                %vessel, file = %version.path, from = %path,
                "The vessel copies a file that it already has"
            );
            return Ok(Some(CopySource { held: held.version, path, file, digest }));
        }
    }
    // A delivery that resumes after an interruption doesn't spend round trips on the same files again.
    session.unequal.add(version.id, &tried);
    Ok(None)
}

/// Opens a file for reading if it still has the size and time with which it was delivered. Compares the opened file
/// once more, because another delivery may just have replaced it.
pub(super) async fn open(
    transfers: &Transfers,
    held: &HeldVersion,
    path: &RemotePath,
) -> Result<Option<RemoteFile>, Fault> {
    let remote = &transfers.session.remote;
    let opening = async {
        // The path itself must be a file, because opening it would follow a link.
        let Some(named) = remote.look(path).await?.filter(|attrs| is_as_delivered(held, attrs)) else {
            return Ok::<_, RemoteError>(None);
        };
        let file = remote.open(path, OpenFlags::READ, 0).await?;
        let opened = file.attrs().await?;
        Ok((opened.size == named.size && opened.times == named.times).then_some(file))
    };
    match opening.await {
        Err(e) if e.is_connection() => Err(e.fault()),
        // A file that can't be read can't be copied.
        opened => Ok(opened.unwrap_or_default()),
    }
}

/// Returns whether the beginning, the middle and the end of a source have the same bytes as a file on the vessel.
async fn has_same_samples(version: &Version, source: &Source, file: &RemoteFile) -> Result<bool, Fault> {
    let size = version.stamp.size;
    let places = [0, size / 2, size.saturating_sub(SAMPLE)].map(|at| async move {
        let here = source.read(at, SAMPLE).await.map_err(|error| source_fault(version, &error))?;
        let wanted = u32::try_from(here.len()).unwrap_or(u32::MAX);
        match file.read_at(at, wanted).await {
            Err(e) if e.is_connection() => Err(e.fault()),
            // A server may return fewer bytes than asked for.
            Ok(Some(there)) => Ok(!there.is_empty() && here.starts_with(&there)),
            _ => Ok(false),
        }
    });
    Ok(try_join_all(places).await?.into_iter().all(|is_same| is_same))
}

impl CopySource {
    /// Plans the copy.
    pub(super) fn plan(&self, version: &Version, held: &ResumeState) -> Delta {
        Delta::whole(version.stamp.size, held, self.path.clone(), Some(self.file.clone()))
    }

    /// Records that a version was made from this file. The new version gets the signature of the old one, because the
    /// contents are equal.
    pub(super) async fn note(&self, transfers: &Transfers, delivery: &Delivery) -> Result<(), Fault> {
        note_made_from(transfers, delivery, &self.held).await
    }
}

/// Records that the vessel made a delivery's file from another one with the same content.
pub(super) async fn note_made_from(transfers: &Transfers, delivery: &Delivery, held: &Version) -> Result<(), Fault> {
    let (ledger, version) = (&transfers.ledger, &delivery.version);
    note_saved(transfers, delivery, held, version.stamp.size).await?;
    if version.stamp.size >= Signature::SMALLEST_FILE
        && ledger.signature(version).await.map_err(|e| e.fault())?.is_none()
        && let Some(signature) = ledger.signature(held).await.map_err(|e| e.fault())?
    {
        ledger.keep_signature_of(version, &signature).await.map_err(|e| e.fault())?;
    }
    Ok(())
}

/// Records that a number of bytes of a delivery's file were moved or copied from another file on the vessel.
pub(super) async fn note_saved(
    transfers: &Transfers,
    delivery: &Delivery,
    held: &Version,
    bytes: u64,
) -> Result<(), Fault> {
    let from = [held.directory.as_str().as_bytes(), b"/", held.path.as_bytes()].concat();
    transfers.ledger.made_from(delivery.id, &from, bytes).await.map_err(|e| e.fault())?;
    let vessel = &transfers.session.link.settings.name;
    transfers.session.link.monitor.notice(&Event::Saved { vessel, bytes });
    Ok(())
}
