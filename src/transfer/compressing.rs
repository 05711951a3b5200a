//! Ranges of a file that are sent as compressed streams: decides when that is worth it, and makes and sends the
//! streams.
//!
//! A range is compressed if the link is slower than the compressor and the file shrinks when it is compressed. The rate
//! of the link is measured while the file is sent; before that, the rate limit, the rate of an earlier file, or a long
//! round trip decides. A trial with the first missing bytes shows whether the file shrinks. Each range is compressed by
//! itself, and is sent uncompressed if it does not shrink.
//!
//! Each stream is a separate part, whose name tells its range and its length. So the vessel can expand the stream when
//! it joins the parts, and an interrupted stream can be continued.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::ranges::expanded_share;
use super::transfers::source_fault;
use super::write::{Taken, note_sent};
use crate::compression::Codec;
use crate::fault::Fault;
use crate::link::{Compressed, Memory, Session};
use crate::local::Source;
use crate::names::Stream;
use crate::records::{Delivery, Version};
use crate::settings::Compression;
use crate::transport::{OpenFlags, SftpChannel};

/// Minimum and maximum length of a range that is compressed, in bytes. Longer ranges shrink a little more, and need
/// more memory.
pub(super) const LENGTHS: (u64, u64) = (128 << 10, 2 << 20);
/// Length of the trial, in bytes.
const TRIAL: u64 = 1 << 20;
/// A stream is sent if it is shorter than this share of its range, in percent.
const WORTH: u64 = 90;
/// Compression starts if the compressor is at least this many times faster than the link. The margin is needed because
/// the compressor shares the processors with the encryption, and the vessel expands the streams with one processor.
const FASTER: f64 = 4.0;
/// Compression ends if the compressor is less than this many times faster than the link.
const STILL_FASTER: f64 = 2.0;
/// Rate of a long or rate-limited link, in bytes per second, from which on nothing is compressed.
const FASTEST: f64 = 100e6;
/// The same rate of a short link. It is lower, because a short link may look slow while the processors are busy, but is
/// still above 100 Mbit/s.
const FASTEST_SHORT: f64 = 13e6;
/// Interval between measurements of the link's rate.
const GLANCE: Duration = Duration::from_millis(500);
/// Minimum time between two trials of a file that shrinks, but for which the compressor was too slow.
const AGAIN: Duration = Duration::from_secs(2);
/// Round-trip time from which a link counts as slow until its rate was measured.
const LONG: Duration = Duration::from_millis(20);

/// The compression of one file.
pub(super) struct Compressing<'a> {
    session: &'a Session,
    delivery: &'a Delivery,
    source: Source,
    /// The format that the vessel expands; `None` if nothing is compressed.
    codec: Option<Codec>,
    /// Offset of the first byte that is not sent yet, where a trial begins.
    next: AtomicU64,
    trials: Mutex<Trials>,
    is_on: AtomicBool,
    /// Number of bytes of streams that the vessel has acknowledged.
    sent: AtomicU64,
}

/// The results of the trials of one file.
#[derive(Clone, Copy, Default)]
struct Trials {
    shrinks: bool,
    /// The best rate of the compressor in bytes per second. Lower rates may only show that the processors were busy.
    rate: f64,
    last: Option<Instant>,
}

/// A range as a compressed stream, in memory.
pub(super) struct Shrunk {
    pub(super) stream: Stream,
    compressed: Compressed,
}

/// Returns the format in which ranges are compressed for a vessel; `None` if nothing is compressed.
pub(super) fn codec(session: &Session) -> Option<Codec> {
    let wanted = session.link.settings.compression == Compression::Auto && session.link.compressor.is_trusted();
    session.remote.capabilities().decompressor.filter(|_| wanted)
}

impl<'a> Compressing<'a> {
    pub(super) fn new(session: &'a Session, delivery: &'a Delivery, source: Source, first: u64) -> Self {
        let (codec, is_on, sent) = (codec(session), AtomicBool::new(false), AtomicU64::new(0));
        let (next, trials) = (AtomicU64::new(first), Mutex::default());
        Self { session, delivery, source, codec, next, trials, is_on, sent }
    }

    fn version(&self) -> &Version {
        &self.delivery.version
    }

    fn trials(&self) -> MutexGuard<'_, Trials> {
        self.trials.lock().expect("no code panics while it holds this lock")
    }

    /// Records the offset of the first byte that is not sent yet.
    pub(super) fn goes_on_at(&self, next: u64) {
        self.next.store(next, Ordering::Relaxed);
    }

    /// Returns whether ranges are compressed now.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed) && self.session.link.compressor.is_trusted()
    }

    /// Returns the format and the number of bytes of all streams that were sent; `None` if there were none.
    pub(super) fn sent(&self) -> Option<(Codec, u64)> {
        let sent = self.sent.load(Ordering::Relaxed);
        self.codec.filter(|_| sent > 0)?;
        self.codec.map(|codec| (codec, sent))
    }

    /// Decides whether the first ranges are compressed. `has_streams` tells whether an earlier attempt compressed
    /// ranges.
    pub(super) async fn begin(&self, has_streams: bool) -> Result<(), Fault> {
        if self.codec.is_none() {
            return Ok(());
        }
        if has_streams {
            self.is_on.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let known = self.limit().into_iter().chain(self.session.link_rate()).reduce(f64::min);
        match known {
            Some(rate) => self.decide(rate).await,
            None if self.is_long() => self.decide(0.0).await,
            None => Ok(()),
        }
    }

    /// Returns the configured limit of the rate in bytes per second.
    fn limit(&self) -> Option<f64> {
        self.session.link.way.limit.rate().map(|rate| rate as f64)
    }

    fn is_long(&self) -> bool {
        self.session.remote.main_channel().round_trip() >= LONG
    }

    /// Measures the link and decides anew at intervals. Returns only if the source can't be read.
    pub(super) async fn keep_deciding(&self) -> Result<(), Fault> {
        if self.codec.is_none() {
            return std::future::pending().await;
        }
        loop {
            let (answered, since) = (self.session.channels.answered(), Instant::now());
            tokio::time::sleep(GLANCE).await;
            let answered = self.session.channels.answered().saturating_sub(answered);
            // Without any answer, the rate is unknown: a channel may just have ended.
            if answered > 0 {
                let rate = answered as f64 / since.elapsed().as_secs_f64();
                self.session.note_link_rate(rate);
                self.decide(rate).await?;
            }
        }
    }

    async fn decide(&self, rate: f64) -> Result<(), Fault> {
        let was_on = self.is_on();
        let is_fast = rate >= if self.is_long() || self.limit().is_some() { FASTEST } else { FASTEST_SHORT };
        if is_fast && !was_on {
            return Ok(());
        }
        let needed = rate * if was_on { STILL_FASTER } else { FASTER };
        let Trials { shrinks, rate: best, last } = *self.trials();
        if last.is_none_or(|last| shrinks && best < needed && last.elapsed() >= AGAIN) {
            self.try_out().await?;
        }
        let Trials { shrinks, rate: compressor, .. } = *self.trials();
        let is_on = shrinks && needed <= compressor && !is_fast;
        if is_on != was_on {
            let (vessel, file) = (&self.session.link.settings.name, &self.version().path);
            let (link, compressor) = (rate as u64, compressor as u64);
            tracing::debug!(%vessel, %file, compressed = is_on, link, compressor, "Decided how to send the file");
        }
        self.is_on.store(is_on, Ordering::Relaxed);
        Ok(())
    }

    /// Compresses the next bytes, and records whether they shrink. If memory is short, records nothing.
    async fn try_out(&self) -> Result<(), Fault> {
        let start = self.next.load(Ordering::Relaxed);
        let range = start..self.version().stamp.size.min(start.saturating_add(TRIAL));
        let Some(memory) = self.session.link.compressor.reserve(range.end.saturating_sub(start)) else { return Ok(()) };
        let shrunk = self.shrink_in(memory, &range).await?;
        let mut trials = self.trials();
        trials.shrinks |= shrunk.is_some();
        trials.last = Some(Instant::now());
        Ok(())
    }

    /// Reads and compresses a range; `None` if it does not shrink, or memory is short.
    pub(super) async fn shrink(&self, range: &Range<u64>) -> Result<Option<Shrunk>, Fault> {
        match self.session.link.compressor.reserve(range.end - range.start) {
            Some(memory) => self.shrink_in(memory, range).await,
            None => Ok(None),
        }
    }

    async fn shrink_in(&self, memory: Memory, range: &Range<u64>) -> Result<Option<Shrunk>, Fault> {
        let Some(codec) = self.codec else { return Ok(None) };
        let (mut at, mut pieces) = (range.start, Vec::new());
        while at < range.end {
            let read = self.source.read(at, range.end - at).await;
            let bytes: Bytes = read.map_err(|error| source_fault(self.version(), &error))?;
            at += bytes.len() as u64;
            pieces.push(bytes);
        }
        let Some(compressed) = self.session.link.compressor.compress(codec, pieces, memory).await else {
            return Ok(None);
        };
        let (length, bytes) = (range.end.saturating_sub(range.start), compressed.bytes.len() as u64);
        let rate = length as f64 / compressed.took.as_secs_f64().max(1e-6);
        let mut trials = self.trials();
        trials.rate = trials.rate.max(rate);
        drop(trials);
        let stream = Stream { start: range.start, end: range.end, bytes, codec };
        Ok((bytes < length / 100 * WORTH).then_some(Shrunk { stream, compressed }))
    }

    /// Sends a stream from its byte `acknowledged` on, and keeps `acknowledged` at the number of its bytes that the
    /// vessel has. Calls `all_sent` when the last byte was sent.
    pub(super) async fn send(
        &self,
        channel: &SftpChannel,
        shrunk: &Shrunk,
        acknowledged: &AtomicU64,
        taken: &Taken<'_>,
        all_sent: impl FnOnce(),
    ) -> Result<(), Fault> {
        let (session, stream) = (self.session, &shrunk.stream);
        let path = session.compressed_part(self.delivery, *stream);
        let mut at = acknowledged.load(Ordering::Relaxed);
        let flags = if at == 0 { OpenFlags::FRESH } else { OpenFlags::WRITE };
        let file = session.open_ours(channel, &path, flags, stream.bytes - at).await?;
        let mut left = shrunk.compressed.bytes.slice(usize::try_from(at).unwrap_or(usize::MAX)..);
        let mut unanswered = FuturesUnordered::new();
        while !left.is_empty() {
            let per_write = usize::try_from(session.bytes_per_write(&file)).unwrap_or(usize::MAX);
            let piece = left.split_to(per_write.min(left.len()));
            let length = piece.len() as u64;
            let turn = session.may_send(self.version(), length, file.route()).await;
            session.wrote(self.version(), length);
            let sent = file.send(at, piece).await;
            drop(turn);
            let sent = session.explained(sent, &path, stream.bytes - at).await?;
            unanswered.push(sent.taken());
            at += length;
            // Processes the answers that have arrived, without waiting for more.
            while let Some(Some(answer)) = unanswered.next().now_or_never() {
                self.note(session.explained(answer, &path, 1).await?, stream, acknowledged, taken);
            }
        }
        all_sent();
        while let Some(answer) = unanswered.next().await {
            self.note(session.explained(answer, &path, 1).await?, stream, acknowledged, taken);
        }
        session.explained(file.close().await, &path, 1).await
    }

    /// Counts acknowledged bytes of a stream, and reports the share of the range that they stand for.
    fn note(&self, bytes: u64, stream: &Stream, acknowledged: &AtomicU64, taken: &Taken<'_>) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        let before = acknowledged.fetch_add(bytes, Ordering::Relaxed);
        let share = |has| expanded_share(stream.end - stream.start, has, stream.bytes);
        note_sent(self.session, self.version(), share(before + bytes) - share(before), taken);
    }
}
