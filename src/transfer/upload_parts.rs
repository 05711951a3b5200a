//! Upload in parts: ranges of a file are uploaded to TempDir and joined beside the destination by the vessel's own
//! `cat`.
//!
//! The range directly after the joined bytes is appended without a part, so a single channel needs no parts. If there
//! are several channels, each of them uploads the next missing range as a part, then another. Parts are joined while
//! later parts are uploaded, and are removed as they are joined, so the vessel needs space for the file and a few
//! chunks. The size of the assembly alone tells how many bytes are joined. An append checks this size before and after,
//! because the `cat` of an earlier session may still be running; an interrupted append is truncated and repeated. The
//! vessel hashes the assembly while it grows.
//!
//! Data in flight on a lost connection may still be written for a moment. The bytes and their offset are correct, so a
//! part or an assembly may hold more bytes than are counted, but no wrong bytes. A part that may be too long is
//! truncated to its counted size before it is joined.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::growing_hash::{grown, hash_as_it_grows};
use super::held::Held;
use super::ranges::{Part, Piece, RangeMap};
use super::sweep::remove_parts;
use super::write::{Taken, write_on};
use crate::fault::{Cause, Fault, Scope};
use crate::link::Job;
use crate::link::Session;
use crate::local::Source;
use crate::names::RemotePath;
use crate::records::{Delivery, Version};
use crate::settings::Assembly;
use crate::transport::{Attrs, ErrorKind, GrowingHash, OpenFlags, RemoteError, SftpChannel};

/// Number of parts that each channel uploads concurrently if there are several channels, so that a channel is not idle
/// while it opens a part.
const PARTS_PER_LANE: usize = 2;
/// Maximum size of the parts in TempDir, uploading or waiting to be joined, in chunks.
const CHUNKS_IN_TEMP_DIR: u64 = 6;
/// Maximum number of attempts of an append, which a `cat` of an earlier session may disturb, and the step by which the
/// waits between the attempts grow.
const APPENDS: u32 = 4;
const STRAGGLERS: Duration = Duration::from_millis(50);

/// The upload of one file in parts.
pub(super) struct PartsUpload<'a> {
    session: &'a Session,
    delivery: &'a Delivery,
    source: Source,
    assembly: RemotePath,
    ranges: Mutex<RangeMap>,
    /// Notified when the ranges change or the upload ends.
    changed: Notify,
    job: Job,
}

impl<'a> PartsUpload<'a> {
    /// Prepares to upload the missing ranges of a file. `job` must cover the whole file.
    pub(crate) async fn prepare(
        session: &'a Session,
        delivery: &'a Delivery,
        source: Source,
        assembly: RemotePath,
        job: Job,
        held: Held,
    ) -> Result<Self, Fault> {
        let (size, longest) = (delivery.version.stamp.size, delivery.version.chunk_size);
        let ahead = longest.saturating_mul(CHUNKS_IN_TEMP_DIR);
        let (ranges, useless) = RangeMap::new(size, longest, ahead, held.joined, held.parts);
        let remove = async |start| session.remote.remove(&session.part(delivery, start)).await.map_err(|e| e.fault());
        try_join_all(useless.into_iter().map(remove)).await?;
        session.found(&delivery.version, size - ranges.missing_bytes());
        job.sent(size - ranges.missing_bytes());
        let (ranges, changed) = (Mutex::new(ranges), Notify::new());
        Ok(Self { session, delivery, source, assembly, ranges, changed, job })
    }

    fn version(&self) -> &Version {
        &self.delivery.version
    }

    fn ranges(&self) -> MutexGuard<'_, RangeMap> {
        self.ranges.lock().expect("no code panics while it holds this lock")
    }

    /// Uploads and joins all missing ranges. Returns the vessel's hash of the assembly, which may still be running.
    pub(crate) async fn run(&self) -> Result<Option<GrowingHash<'a>>, Fault> {
        let uploading = async {
            let _turn = self.session.large_upload.lock().await;
            // TempDir is prepared even if no part is needed in the end, so that an unsafe TempDir is reported early.
            let uploaded = tokio::try_join!(self.prepare_temp_dir(), self.upload()).map(|_| ());
            self.changed.notify_waiters();
            uploaded
        };
        // Not `try_join`: complete parts must still be joined if the upload of a later part fails, because joining
        // frees space.
        let (uploaded, joined) = self.both(uploading).await;
        match joined.and_then(|hash| uploaded.map(|()| hash)) {
            Err(fault) if matches!(fault.scope, Scope::Place | Scope::Vessel) && !self.session.remote.is_lost() => {
                Err(self.make_room(fault).await?)
            }
            outcome => outcome,
        }
    }

    async fn both(
        &self,
        uploading: impl Future<Output = Result<(), Fault>>,
    ) -> (Result<(), Fault>, Result<Option<GrowingHash<'a>>, Fault>) {
        let ended = CancellationToken::new();
        let uploading = async {
            let uploaded = uploading.await;
            ended.cancel();
            uploaded
        };
        let mut joining = std::pin::pin!(self.join(&ended));
        let mut uploading = std::pin::pin!(uploading);
        tokio::select! {
            uploaded = &mut uploading => (uploaded, joining.await),
            // If joining fails, the upload is aborted.
            joined = &mut joining => match joined {
                Ok(hash) => (uploading.await, Ok(hash)),
                Err(fault) => (Ok(()), Err(fault)),
            },
        }
    }

    /// Prepares TempDir. If it is full, the upload falls back to a single channel, which needs no parts.
    async fn prepare_temp_dir(&self) -> Result<(), Fault> {
        match self.session.prepare_temp_dir().await {
            Err(fault) if fault.scope == Scope::Place => {
                self.do_without_parts(&fault);
                Ok(())
            }
            prepared => prepared,
        }
    }

    /// Removes the file's own parts to free space. Limits the fault of an unusable TempDir to this file, because
    /// smaller files don't need TempDir.
    async fn make_room(&self, full: Fault) -> Result<Fault, Fault> {
        let removed = remove_parts(self.session, |delivery| delivery == self.delivery.id.0).await;
        removed.map_err(|e| e.fault())?;
        Ok(Fault { scope: if full.scope == Scope::Vessel { Scope::File } else { full.scope }, ..full })
    }

    /// Uploads on all channels, including those added later, until nothing is missing.
    async fn upload(&self) -> Result<(), Fault> {
        let mut channels = self.session.channels.subscribe();
        let mut known: Vec<(SftpChannel, usize)> = Vec::new();
        let mut working = FuturesUnordered::new();
        loop {
            let now = channels.borrow_and_update().clone();
            // A channel that was removed from the pool finishes its current piece and takes no more.
            known.retain(|(channel, _)| now.contains(channel));
            let each = if now.len() == 1 { 1 } else { PARTS_PER_LANE };
            for channel in now {
                let at_work = match known.iter_mut().find(|(known, _)| *known == channel) {
                    Some((_, at_work)) => std::mem::replace(at_work, each.max(*at_work)),
                    None => {
                        known.push((channel.clone(), each));
                        0
                    }
                };
                working.extend((at_work..each).map(|_| self.work(channel.clone())));
            }
            tokio::select! {
                Some(ended) = working.next() => ended?,
                // This can't fail: the channels belong to the session, which outlives this upload.
                _ = channels.changed() => {}
                else => return Ok(()),
            }
            if working.is_empty() {
                return Ok(());
            }
        }
    }

    fn takers(&self) -> usize {
        match self.session.channels.count() {
            1 => 1,
            channels => channels * PARTS_PER_LANE,
        }
    }

    /// Uploads one piece after another on a channel. Sends a piece while answers for earlier pieces are outstanding,
    /// because with a long round trip the answers take longer than the sending.
    async fn work(&self, channel: SftpChannel) -> Result<(), Fault> {
        let mut pieces = FuturesUnordered::new();
        loop {
            let piece = tokio::select! {
                piece = self.next(&channel) => piece,
                Some(ended) = pieces.next() => { ended?; continue }
            };
            let Some(piece) = piece else { break };
            let (all_sent, mut sent) = oneshot::channel();
            pieces.push(self.bring(&channel, piece, all_sent));
            loop {
                tokio::select! {
                    // Also reached if the piece ended before all of its bytes were sent.
                    _ = &mut sent => break,
                    Some(ended) = pieces.next() => ended?,
                }
            }
        }
        while let Some(ended) = pieces.next().await {
            ended?;
        }
        Ok(())
    }

    /// Uploads a piece on one channel and signals when all of its bytes are sent. Bytes that the vessel did not
    /// acknowledge are missing again.
    async fn bring(&self, channel: &SftpChannel, mut piece: Piece, all_sent: oneshot::Sender<()>) -> Result<(), Fault> {
        let start = piece.range.start;
        let appended = |bytes| {
            self.ranges().join(start + bytes);
            self.changed.notify_waiters();
        };
        let taken = Taken::of(&self.job);
        let taken = if piece.next { taken.telling(&appended) } else { taken };
        let uploaded = self.upload_piece(channel, &mut piece, &taken, all_sent).await;
        if uploaded.is_err() && self.session.remote.is_lost() {
            return uploaded;
        }
        let end = match &uploaded {
            Ok(()) => piece.range.end,
            Err(_) => start + taken.bytes.into_inner(),
        };
        let is_part = !piece.next;
        if is_part && end == start {
            self.session.remote.remove(&self.session.part(self.delivery, start)).await.map_err(|e| e.fault())?;
        }
        self.ranges().give(piece, end);
        self.changed.notify_waiters();
        match uploaded {
            // The other channels upload the rest of the piece.
            Err(_) if channel.is_lost() => Ok(()),
            Err(fault) if is_part && fault.cause != Cause::Source && fault.scope != Scope::Daemon => {
                self.do_without_parts(&fault);
                Ok(())
            }
            uploaded => uploaded,
        }
    }

    /// Returns the next piece for a channel; `None` if there is nothing left for it.
    async fn next(&self, channel: &SftpChannel) -> Option<Piece> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if !self.session.channels.has(channel) {
                return None;
            }
            {
                let mut ranges = self.ranges();
                if let Some(piece) = ranges.take(self.takers(), channel.worth_a_file()) {
                    return Some(piece);
                }
                if ranges.is_uploaded() {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Appends a piece to the assembly, or uploads it as a part. The piece may be extended while it is sent.
    async fn upload_piece(
        &self,
        channel: &SftpChannel,
        piece: &mut Piece,
        taken: &Taken<'_>,
        all_sent: oneshot::Sender<()>,
    ) -> Result<(), Fault> {
        let Range { start, end } = piece.range;
        let (version, source) = (self.version(), &self.source);
        let (path, flags, base) = if piece.next {
            // If no bytes are joined yet, an existing file with the assembly's name does not belong to this delivery.
            let flags = if start == 0 { OpenFlags::FRESH } else { OpenFlags::WRITE_EXISTING };
            (self.assembly.clone(), flags, 0)
        } else {
            self.session.prepare_temp_dir().await?;
            (self.session.part(self.delivery, start), OpenFlags::FRESH, start)
        };
        let file = self.session.open_ours(channel, &path, flags, end - start).await?;
        let mut all_sent = Some(all_sent);
        let further = || {
            let goes_on = self.session.channels.has(channel) && self.ranges().lengthen(piece);
            if !goes_on && let Some(all_sent) = all_sent.take() {
                // The receiver may already be gone.
                let _ = all_sent.send(());
            }
            goes_on.then_some(piece.range.end)
        };
        write_on(self.session, version, source, &file, start..end, base, taken, further).await?;
        let closed = file.close().await;
        self.session.explained(closed, &path, 1).await?;
        tracing::trace!(vessel = %self.session.link.settings.name, file = %version.path, ?piece, "uploaded");
        Ok(())
    }

    /// Prevents further parts after TempDir rejected a part, most likely for lack of space. Uploading continues by
    /// appending, which needs no TempDir; a problem other than space will occur again while appending.
    fn do_without_parts(&self, fault: &Fault) {
        if self.ranges().stay_close() {
            let (vessel, file) = (&self.session.link.settings.name, &self.version().path);
            tracing::warn!(%vessel, %file, "Cannot write parts; one channel sends the rest in order: {fault}");
        }
    }

    /// Joins complete parts in order as soon as possible, until the file is joined or the upload has ended. Lets the
    /// vessel hash the joined bytes and returns that hash.
    async fn join(&self, ended: &CancellationToken) -> Result<Option<GrowingHash<'a>>, Fault> {
        let (mut hash, mut hashed) = (None, None);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            // The end of the upload is read before the parts, so that parts completed just before the end are still
            // joined.
            let last = ended.is_cancelled();
            let (parts, joined) = {
                let ranges = self.ranges();
                (ranges.joinable(), ranges.joined())
            };
            if joined > hashed.unwrap_or(0) {
                if hashed.is_none() {
                    hash = hash_as_it_grows(self.session, &self.assembly).await;
                }
                hash = grown(hash).await;
                hashed = Some(joined);
                continue;
            }
            let Some(end) = parts.last().map(|part| part.range.end) else {
                if last || self.ranges().is_joined() {
                    return Ok(hash);
                }
                tokio::select! {
                    () = changed => {}
                    () = ended.cancelled() => {}
                }
                continue;
            };
            let appended = self.append(&parts, joined..end).await;
            self.session.explained(appended, &self.assembly, end - joined).await?;
            self.ranges().join(end);
            self.changed.notify_waiters();
        }
    }

    /// Appends parts to the assembly. The parts hold the bytes `range` of the file.
    async fn append(&self, parts: &[Part], range: Range<u64>) -> Result<(), RemoteError> {
        let remote = &self.session.remote;
        let path = |part: &Part| self.session.part(self.delivery, part.range.start);
        let paths: Vec<RemotePath> = parts.iter().map(path).collect();
        for part in parts.iter().filter(|part| part.ragged) {
            self.cut(&path(part), part.range.end - part.range.start).await?;
        }
        for tried in 1..APPENDS {
            match remote.append(&paths, &self.assembly, range.clone()).await {
                Err(e) if e.kind == ErrorKind::Failed => {
                    tracing::debug!(vessel = %self.session.link.settings.name, file = %self.version().path, "{e}");
                }
                appended => return appended,
            }
            tokio::time::sleep(STRAGGLERS * tried).await;
            self.cut(&self.assembly, range.start).await?;
            for part in parts {
                self.cut(&path(part), part.range.end - part.range.start).await?;
            }
        }
        remote.append(&paths, &self.assembly, range).await
    }

    async fn cut(&self, path: &RemotePath, size: u64) -> Result<(), RemoteError> {
        self.session.remote.set(path, Attrs { size: Some(size), ..Attrs::default() }).await
    }
}

/// Returns whether a file is uploaded in parts that `cat` joins; otherwise it is written directly into its assembly.
pub(super) fn goes_in_parts(session: &Session, delivery: &Delivery) -> bool {
    delivery.version.plan().count() > 1
        && session.remote.capabilities().shell
        && session.link.settings.assembly == Assembly::Cat
}
