//! Verification by the SFTP extension `check-file`, for vessels without a shell.
//!
//! A hash that equals the expected one is certainly right. Any other hash may come from a server that hashes wrongly:
//! ProFTPD 1.3.8 hashes correctly up to the end of a file, but not ranges. So a difference counts only after a test,
//! which reads back a few bytes of the same file.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::transfers::Transfers;
use super::verdict::{Verdict, all_chunks, chunk_digests, differing};
use crate::digest::Digest;
use crate::fault::Fault;
use crate::link::Session;
use crate::names::RemotePath;
use crate::records::{Verified, Version};
use crate::settings::{Connections, Verify};
use crate::transport::{Attrs, OpenFlags, RemoteError, SftpChannel};

/// The size in bytes up to which a file is hashed on the main connection. While ProFTPD hashes, it answers nothing else
/// on the connection.
const BRIEF: u64 = 32 << 20;
/// The number of bytes that the test reads back.
const SAMPLE: u64 = 4096;

/// The ranges that the vessel hashes correctly.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hashes {
    Nothing,
    /// Files from any offset to the end.
    Ends,
    /// Any range.
    Ranges,
}

/// A file on the vessel, and the channel on which its hashes are requested.
struct Asked<'a> {
    session: &'a Session,
    channel: SftpChannel,
    path: &'a RemotePath,
    size: u64,
}

/// Verifies a file by `check-file`. Returns `None` if the vessel can't, or if the file must be read back to find the
/// bad chunks.
pub(super) async fn verify_by_check_file(
    transfers: &Transfers,
    version: &Version,
    wanted: &Digest,
    path: &RemotePath,
) -> Result<Option<Verdict>, Fault> {
    let (session, size) = (&*transfers.session, version.stamp.size);
    // Some servers refuse to hash an empty file, and reading it back costs nothing.
    if size == 0 || !session.remote.checks_files() {
        return Ok(None);
    }
    let _turn = if size > BRIEF { Some(session.large_hash.lock().await) } else { None };
    let Some(channel) = channel_for(session, size).await else { return Ok(None) };
    let on_main = channel == *session.remote.main_channel();
    let asked = Asked { session, channel, path, size };
    match verdict(transfers, version, wanted, &asked).await {
        // Only the connection that was opened for this file is lost.
        Err(Failed::Remote(e)) if !on_main && e.is_connection() => {
            session.remote.distrust_check_file(&e.to_string());
            Ok(None)
        }
        Err(Failed::Remote(e)) => Err(e.fault()),
        Err(Failed::Other(fault)) => Err(fault),
        Ok(verdict) => Ok(verdict),
    }
}

enum Failed {
    Remote(RemoteError),
    Other(Fault),
}

impl From<RemoteError> for Failed {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}

/// Returns the channel on which a file of `size` bytes is hashed: a separate one for a large file, or `None` if no
/// further connection is possible.
async fn channel_for(session: &Session, size: u64) -> Option<SftpChannel> {
    if size <= BRIEF {
        return Some(session.remote.main_channel().clone());
    }
    let (vessel, environment) = (&session.link.settings, &session.link.environment);
    if vessel.connections == Connections::Fixed(1) {
        return None;
    }
    match SftpChannel::connect_for_hashing(vessel, environment, size).await {
        Ok(channel) => Some(channel),
        Err(e) => {
            tracing::debug!(vessel = %vessel.name, "Cannot open a connection for hashing a large file: {e}");
            None
        }
    }
}

async fn verdict(
    transfers: &Transfers,
    version: &Version,
    wanted: &Digest,
    asked: &Asked<'_>,
) -> Result<Option<Verdict>, Failed> {
    let remote = &asked.session.remote;
    let Some(found) = asked.hash_to_end(0).await? else { return Ok(None) };
    let has_size = asked.size_now().await?.is_none_or(|size| size == asked.size);
    if found == *wanted {
        asked.session.check_file_matched.store(true, Ordering::Relaxed);
        let verdict = if has_size { Verdict::Good(Verified::ByVessel) } else { Verdict::Bad(all_chunks(version)) };
        return Ok(Some(verdict));
    }
    // The test needs a file of the expected size; another size is damage in any case.
    let hashes = if has_size { asked.test().await? } else { Hashes::Ends };
    match hashes {
        Hashes::Nothing => {
            remote.distrust_check_file("it returned a wrong hash");
            Ok(None)
        }
        _ if version.plan().count() == 1 => Ok(Some(Verdict::Bad(all_chunks(version)))),
        Hashes::Ranges => {
            let wanted = chunk_digests(transfers, version, wanted).await.map_err(Failed::Other)?;
            let Some(found) = asked.hash_chunks(version).await? else { return Ok(None) };
            Ok(Some(Verdict::Bad(differing(&wanted, &found))))
        }
        Hashes::Ends if asked.session.link.settings.verify == Verify::Size => {
            Ok(Some(Verdict::Bad(all_chunks(version))))
        }
        Hashes::Ends => Ok(None),
    }
}

impl Asked<'_> {
    async fn hash_to_end(&self, from: u64) -> Result<Option<Digest>, RemoteError> {
        self.session.remote.check_file(&self.channel, self.path, (from, 0), self.size - from).await
    }

    async fn hash_range(&self, range: Range<u64>) -> Result<Option<Digest>, RemoteError> {
        let length = range.end - range.start;
        // The timeout covers all bytes up to the end, because some servers hash up to the end of the file.
        self.session.remote.check_file(&self.channel, self.path, (range.start, length), self.size - range.start).await
    }

    /// Returns the file's current size if the vessel reports it.
    async fn size_now(&self) -> Result<Option<u64>, RemoteError> {
        match self.session.remote.look(self.path).await {
            Ok(Some(Attrs { size, .. })) => Ok(size),
            // A missing file counts as a file of the wrong size.
            Ok(None) => Ok(Some(u64::MAX)),
            Err(e) if e.is_connection() => Err(e),
            Err(_) => Ok(None),
        }
    }

    async fn hash_chunks(&self, version: &Version) -> Result<Option<Vec<Digest>>, RemoteError> {
        let mut found = Vec::new();
        for chunk in 0..version.plan().count() {
            let Some(digest) = self.hash_range(version.plan().range(chunk)).await? else { return Ok(None) };
            found.push(digest);
        }
        Ok(Some(found))
    }

    /// Tests which ranges the vessel hashes correctly: reads the last bytes of the file back, and compares their hash,
    /// and that of their first half, with the vessel's.
    async fn test(&self) -> Result<Hashes, RemoteError> {
        let from = self.size.saturating_sub(SAMPLE);
        let end = match self.read(from).await {
            Err(e) if e.is_connection() => return Err(e),
            // The hashes can't be tested if the account may not read files, but an earlier file may have shown that
            // they are right.
            Err(_) if self.session.check_file_matched.load(Ordering::Relaxed) => return Ok(Hashes::Ends),
            Err(_) => return Ok(Hashes::Nothing),
            Ok(end) => end,
        };
        if self.hash_to_end(from).await? != Some(Digest::of(&end)) {
            return Ok(Hashes::Nothing);
        }
        let half = &end[..end.len() / 2];
        if half.is_empty() || self.hash_range(from..from + half.len() as u64).await? != Some(Digest::of(half)) {
            return Ok(Hashes::Ends);
        }
        Ok(Hashes::Ranges)
    }

    /// Reads from an offset up to the end that the file should have.
    async fn read(&self, from: u64) -> Result<Vec<u8>, RemoteError> {
        let file = self.session.remote.open(self.path, OpenFlags::READ, 0).await?;
        let mut read = Vec::new();
        loop {
            let at = from + read.len() as u64;
            // Requests one byte beyond the expected end, because the vessel's hash of a file that is too long includes
            // the additional bytes.
            let length = u32::try_from(self.size + 1 - at).unwrap_or(u32::MAX);
            if length == 0 {
                break;
            }
            match file.read_at(at, length).await? {
                Some(bytes) => read.extend_from_slice(&bytes),
                None => break,
            }
        }
        file.close().await?;
        Ok(read)
    }
}
