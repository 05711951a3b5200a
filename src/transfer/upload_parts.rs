//! Parts: ranges of a file on their way through TempDir, joined beside the destination by the vessel's own `cat`.
//!
//! The range that comes right after what is joined is appended as it is: one channel alone needs no parts. With several,
//! every channel takes the next missing range, uploads it as a part, and takes another. Parts are joined while later ones
//! still upload and are removed as they are joined, so that the vessel needs room for the file and a few chunks. How far
//! the assembly has come is told by its size alone: an append checks the size before and after, for the `cat` of an
//! earlier session may still run, and one that was cut off is cut away and made again. The vessel hashes the assembly
//! while it grows.
//!
//! What a connection that was lost had still on its way may be written after all, for a moment. These are the right bytes
//! at the right place, so a part or an assembly may for a while hold more than is counted, and never anything else. It is
//! cut to what is counted before it is joined.

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

/// Parts that each of several channels sends at once, so that the round trip in which one is opened is not idle.
const PARTS_PER_LANE: usize = 2;
/// How many chunks' worth of parts may lie in TempDir, uploading or waiting to be joined.
const CHUNKS_IN_TEMP_DIR: u64 = 6;
/// How often an append is tried into which somebody else may write, and by how much the waits in between get longer.
const APPENDS: u32 = 4;
const STRAGGLERS: Duration = Duration::from_millis(50);

/// One file that goes up in parts.
pub(super) struct PartsUpload<'a> {
    session: &'a Session,
    delivery: &'a Delivery,
    source: Source,
    assembly: RemotePath,
    ranges: Mutex<RangeMap>,
    /// Tells that the ranges changed, or that nobody uploads any more.
    changed: Notify,
    job: Job,
}

impl<'a> PartsUpload<'a> {
    /// Prepares to upload what the vessel does not hold of a file. `job` is all of it, to be sent.
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

    /// Uploads and joins whatever is missing; gives the vessel's hash of it, which may still be going on.
    pub(crate) async fn run(&self) -> Result<Option<GrowingHash<'a>>, Fault> {
        let uploading = async {
            let _turn = self.session.large_upload.lock().await;
            // Looked at even where no part may be needed: a TempDir that is a trap should show before it matters.
            let uploaded = tokio::try_join!(self.prepare_temp_dir(), self.upload()).map(|_| ());
            self.changed.notify_waiters();
            uploaded
        };
        // Not `try_join`: parts that are complete are still joined when a later one fails, for that makes room.
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
            // It ends first only when it fails, and then there is nothing to upload for.
            joined = &mut joining => match joined {
                Ok(hash) => (uploading.await, Ok(hash)),
                Err(fault) => (Ok(()), Err(fault)),
            },
        }
    }

    /// TempDir that is full makes do with a single channel, which needs none.
    async fn prepare_temp_dir(&self) -> Result<(), Fault> {
        match self.session.prepare_temp_dir().await {
            Err(fault) if fault.scope == Scope::Place => {
                self.do_without_parts(&fault);
                Ok(())
            }
            prepared => prepared,
        }
    }

    /// Our own parts make room, and the file waits. A TempDir that is not to be used concerns no smaller file.
    async fn make_room(&self, full: Fault) -> Result<Fault, Fault> {
        let removed = remove_parts(self.session, |delivery| delivery == self.delivery.id.0).await;
        removed.map_err(|e| e.fault())?;
        Ok(Fault { scope: if full.scope == Scope::Vessel { Scope::File } else { full.scope }, ..full })
    }

    /// Has every channel that is there, and every one that comes, upload until nothing is missing.
    async fn upload(&self) -> Result<(), Fault> {
        let mut channels = self.session.channels.subscribe();
        let mut known: Vec<(SftpChannel, usize)> = Vec::new();
        let mut working = FuturesUnordered::new();
        loop {
            let now = channels.borrow_and_update().clone();
            // One that is not to be used any more ends with its last piece.
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
                // The channels' owner is the session, which outlives us.
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

    /// Uploads piece after piece on one channel. One is being sent; of those before it answers may still be due, which on a
    /// long path take longer than a piece.
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
                    // Also when it ended before all was sent.
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

    /// Uploads a piece on one channel, and tells when all of it was sent; gives back what the vessel did not take.
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
            // The others go on with what it left.
            Err(_) if channel.is_lost() => Ok(()),
            Err(fault) if is_part && fault.cause != Cause::Source && fault.scope != Scope::Daemon => {
                self.do_without_parts(&fault);
                Ok(())
            }
            uploaded => uploaded,
        }
    }

    /// The next piece for a channel; `None` when nothing is left to do for it.
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

    /// Appends a piece to the assembly, or uploads it as a part; it grows on the way.
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
            // What lies there before the first attempt is not of this delivery, whatever its name says.
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
                // Nobody may listen any more.
                let _ = all_sent.send(());
            }
            goes_on.then_some(piece.range.end)
        };
        write_on(self.session, version, source, &file, start..end, base, taken, further).await?;
        let closed = file.close().await;
        self.session.explained(closed, &path, 1).await?;
        tracing::trace!(vessel = %self.session.settings.name, file = %version.path, ?piece, "uploaded");
        Ok(())
    }

    /// TempDir takes no part, most likely for want of room, which may have come back before anybody could look. What is
    /// appended as it is needs none there; whatever else is wrong shows again then.
    fn do_without_parts(&self, fault: &Fault) {
        if self.ranges().stay_close() {
            let (vessel, file) = (&self.session.settings.name, &self.version().path);
            tracing::warn!(%vessel, %file, "Cannot write parts; one channel continues without them: {fault}");
        }
    }

    /// Joins parts in order, whatever is complete and next as soon as it is, until all is joined or nobody uploads; and
    /// has the vessel hash what is joined.
    async fn join(&self, ended: &CancellationToken) -> Result<Option<GrowingHash<'a>>, Fault> {
        let (mut hash, mut hashed) = (None, None);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            // Asked first: what was given before the end is joined after it.
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

    /// Appends parts to the assembly, which are this range of it.
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
                    tracing::debug!(vessel = %self.session.settings.name, file = %self.version().path, "{e}");
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

/// Whether a file goes up in parts that `cat` joins; else it is written straight into its assembly.
pub(super) fn goes_in_parts(session: &Session, delivery: &Delivery) -> bool {
    delivery.version.plan().count() > 1
        && session.remote.capabilities().shell
        && session.settings.assembly == Assembly::Cat
}
