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
//!
//! On a slow link, ranges of a compressible file are sent as compressed streams, each in a part of its own, and never
//! appended directly. If the vessel fails to expand a stream, its range is sent again.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::compressing::{LENGTHS, Shrunk};
use super::ranges::Piece;
use super::sweep::remove_parts;
use super::upload_state::PartsUpload;
use super::write::{Taken, write_and_close};
use crate::fault::{Cause, Fault, Scope};
use crate::link::UploadTurn;
use crate::transport::{GrowingHash, OpenFlags, SftpChannel};

/// Number of parts that each channel uploads concurrently if there are several channels, so that a channel is not idle
/// while it opens a part.
const PARTS_PER_CHANNEL: usize = 2;
/// Number of compressed ranges that a single channel handles concurrently: one is acknowledged, one sent, one
/// compressed.
const STREAMS_AT_ONCE: usize = 3;
/// Interval at which a channel on a slow way checks whether it is needed after all.
const LOOK: Duration = Duration::from_millis(100);

impl<'a> PartsUpload<'a> {
    /// Uploads and joins all missing ranges. Returns the vessel's hash of the assembly, which may still be running.
    pub(crate) async fn run(&self) -> Result<Option<GrowingHash<'a>>, Fault> {
        let uploading = async {
            let turn = self.session.large_upload(self.delivery).await;
            // TempDir is prepared even if no part is needed in the end, so that an unsafe TempDir is reported early.
            let uploaded = tokio::try_join!(self.prepare_temp_dir(), self.upload(&turn)).map(|_| ());
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
        match self.prepare_for_parts().await {
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
    async fn upload(&self, turn: &UploadTurn<'_>) -> Result<(), Fault> {
        let mut channels = self.session.channels.subscribe();
        let mut known: Vec<(SftpChannel, usize)> = Vec::new();
        let mut working = FuturesUnordered::new();
        let has_streams = self.ranges().has_streams();
        self.compressing.begin(has_streams).await?;
        let mut deciding = std::pin::pin!(self.compressing.keep_deciding());
        loop {
            let mut now = channels.borrow_and_update().clone();
            now.retain(|channel| self.session.carries(channel, self.version()));
            // A channel that was removed from the pool finishes its current piece and accepts no more.
            known.retain(|(channel, _)| now.contains(channel));
            let each = if now.len() == 1 { 1 } else { PARTS_PER_CHANNEL };
            for channel in now {
                let at_work = match known.iter_mut().find(|(known, _)| *known == channel) {
                    Some((_, at_work)) => std::mem::replace(at_work, each.max(*at_work)),
                    None => {
                        known.push((channel.clone(), each));
                        0
                    }
                };
                working.extend((at_work..each).map(|_| self.work(channel.clone(), turn)));
            }
            tokio::select! {
                Some(ended) = working.next() => ended?,
                stopped = &mut deciding => return stopped,
                // This can't fail: the channels belong to the session, which outlives this upload.
                _ = channels.changed() => {}
                else => return Ok(()),
            }
            if working.is_empty() {
                return Ok(());
            }
        }
    }

    fn is_in_time(&self, channel: &SftpChannel) -> bool {
        self.session.is_in_time(channel, self.version(), self.ranges().left_bytes())
    }

    fn may_use(&self, channel: &SftpChannel) -> bool {
        self.session.channels.has(channel) && self.session.carries(channel, self.version())
    }

    fn takers(&self) -> usize {
        match self.session.channels.count() {
            1 => 1,
            channels => channels * PARTS_PER_CHANNEL,
        }
    }

    /// Uploads one piece after another on a channel. Sends a piece while answers for earlier pieces are outstanding,
    /// because with a long round trip the answers take longer than the sending.
    async fn work(&self, channel: SftpChannel, turn: &UploadTurn<'_>) -> Result<(), Fault> {
        let mut pieces = FuturesUnordered::new();
        loop {
            let piece = tokio::select! {
                piece = self.next(&channel, turn) => piece,
                Some(ended) = pieces.next() => { ended?; continue }
            };
            let Some(piece) = piece else { break };
            let (all_sent, mut sent) = oneshot::channel();
            let (piece, is_stream) = piece;
            pieces.push(self.bring_either(&channel, piece, is_stream, all_sent));
            loop {
                // Streams are short, so a single channel prepares further streams meanwhile. If there are several
                // channels, this is not needed, because each has several workers.
                if is_stream && pieces.len() < STREAMS_AT_ONCE && self.takers() == 1 {
                    break;
                }
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

    /// Uploads a piece, compressed if `is_stream` is set and it shrinks.
    async fn bring_either(
        &self,
        channel: &SftpChannel,
        mut piece: Piece,
        is_stream: bool,
        all_sent: oneshot::Sender<()>,
    ) -> Result<(), Fault> {
        if !is_stream {
            return self.bring(channel, piece, all_sent).await;
        }
        let shrunk = match self.compressing.shrink(&piece.range).await {
            Ok(shrunk) => shrunk,
            Err(fault) => {
                self.give_back(piece);
                return Err(fault);
            }
        };
        // An unfinished stream that differs, for example because another version of the compressor made it, can't be
        // continued.
        if let Some((unfinished, _)) = piece.unfinished
            && shrunk.as_ref().is_none_or(|shrunk| shrunk.stream != unfinished)
        {
            let path = self.session.compressed_part(self.delivery, unfinished);
            self.session.remote.remove(&path).await.map_err(|e| e.fault())?;
            piece.unfinished = None;
        }
        match shrunk {
            Some(shrunk) => self.bring_stream(channel, piece, &shrunk, all_sent).await,
            None => self.bring(channel, piece, all_sent).await,
        }
    }

    /// Uploads the compressed stream of a piece. An unfinished stream is continued.
    async fn bring_stream(
        &self,
        channel: &SftpChannel,
        piece: Piece,
        shrunk: &Shrunk,
        all_sent: oneshot::Sender<()>,
    ) -> Result<(), Fault> {
        let stream = shrunk.stream;
        let acknowledged = AtomicU64::new(piece.unfinished.map_or(0, |(_, bytes)| bytes));
        let taken = Taken::of(&self.job);
        // The receiver may already be gone.
        let all_sent = || all_sent.send(()).unwrap_or_default();
        let sent = match self.prepare_for_parts().await {
            Ok(()) => self.compressing.send(channel, shrunk, &acknowledged, &taken, all_sent).await,
            Err(fault) => Err(fault),
        };
        match sent {
            Err(fault) if self.session.remote.is_lost() => return Err(fault),
            Ok(()) if self.session.link.compressor.is_trusted() => self.ranges().give_stream(piece, stream),
            // Another channel continues the stream.
            Err(_) if channel.is_lost() && acknowledged.load(Ordering::Relaxed) > 0 => {
                self.ranges().give_unfinished(stream, acknowledged.into_inner());
            }
            sent => {
                let path = self.session.compressed_part(self.delivery, stream);
                let removed = self.session.remote.remove(&path).await;
                self.give_back(piece);
                removed.map_err(|e| e.fault())?;
                match sent {
                    Err(fault) if fault.cause == Cause::Source || fault.scope == Scope::Daemon => return Err(fault),
                    Err(fault) if !channel.is_lost() => self.do_without_parts(&fault),
                    _ => {}
                }
            }
        }
        self.changed.notify_waiters();
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
        self.sent_plain.fetch_add(taken.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        if uploaded.is_err() && self.session.remote.is_lost() {
            return uploaded;
        }
        let end = match &uploaded {
            Ok(()) => piece.range.end,
            Err(_) => start + taken.bytes.into_inner(),
        };
        let is_part = !piece.next;
        if is_part && end == start {
            self.session.remote.remove(&self.session.part(self.delivery.id, start)).await.map_err(|e| e.fault())?;
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

    /// Returns the next piece for a channel, and whether it is to be compressed; `None` if there is nothing left for
    /// the channel.
    async fn next(&self, channel: &SftpChannel, turn: &UploadTurn<'_>) -> Option<(Piece, bool)> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if !self.may_use(channel) {
                return None;
            }
            if !self.is_in_time(channel) {
                // Another way uploads the rest, unless it fails or becomes slow.
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
                if self.ranges().is_uploaded() {
                    return None;
                }
                continue;
            }
            {
                let is_stream = self.compresses();
                let mut ranges = self.ranges();
                let piece = match is_stream || ranges.has_unfinished() {
                    true => ranges.take_whole(self.takers(), LENGTHS),
                    false => ranges.take(self.takers(), channel.worth_a_file()),
                };
                if let Some(piece) = piece {
                    self.compressing.goes_on_at(piece.range.end);
                    let is_stream = is_stream || piece.unfinished.is_some();
                    return Some((piece, is_stream));
                }
                if ranges.is_uploaded() {
                    return None;
                }
                if ranges.missing_bytes() == 0 {
                    turn.pass_on();
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
            // If no bytes are joined yet, nothing in an existing file with the assembly's name is needed.
            let flags = if start == 0 { OpenFlags::FRESH } else { OpenFlags::WRITE_EXISTING };
            (self.assembly.clone(), flags, 0)
        } else {
            self.prepare_for_parts().await?;
            (self.session.part(self.delivery.id, start), OpenFlags::FRESH, start)
        };
        let opened = if piece.next && start == 0 { self.take_opened(channel) } else { None };
        let file = match opened {
            Some(file) => file,
            None => {
                let _opening = self.session.channels.begin_opening(channel, end - start);
                self.session.open_ours(channel, &path, flags, end - start).await?
            }
        };
        let mut all_sent = Some(all_sent);
        let further = || {
            // A piece is not extended any more once ranges are compressed.
            let may_grow = self.may_use(channel) && !self.compresses() && self.is_in_time(channel);
            let goes_on = may_grow && self.ranges().lengthen(piece);
            if !goes_on && let Some(all_sent) = all_sent.take() {
                // The receiver may already be gone.
                let _ = all_sent.send(());
            }
            goes_on.then_some(piece.range.end)
        };
        write_and_close(self.session, version, source, file, (start..end, base), taken, further).await?;
        tracing::trace!(vessel = %self.session.link.settings.name, file = %version.path, ?piece, "Uploaded a piece");
        Ok(())
    }
}
