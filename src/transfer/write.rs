//! Writing of a source range into a file on the vessel, with many writes in flight.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::{BoxFuture, join};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::transfers::source_fault;
use crate::fault::Fault;
use crate::link::Job;
use crate::link::Session;
use crate::local::Source;
use crate::records::Version;
use crate::transport::{RemoteError, RemoteFile};

/// Counter of the bytes of a range that the vessel has acknowledged.
pub(crate) struct Taken<'a> {
    pub(crate) bytes: AtomicU64,
    job: &'a Job,
    /// The progress function. It is called each time another [`STEP`] bytes are acknowledged, with the total so far.
    told: Option<&'a (dyn Fn(u64) + Send + Sync)>,
    /// Called when all bytes of a range are sent.
    all_sent: Option<&'a (dyn Fn() + Send + Sync)>,
    /// Whether the file may already contain other data in this range. Zeros are then sent like all other bytes.
    over: bool,
}

/// Minimum length in bytes of a run of zeros that is not sent, but left as a hole in the file.
const ZEROS: usize = 4096;

/// Number of bytes between two progress calls.
const STEP: u64 = 2 << 20;

impl<'a> Taken<'a> {
    /// Creates a counter at 0; acknowledged bytes are subtracted from `job`.
    pub(crate) fn of(job: &'a Job) -> Self {
        Self { bytes: AtomicU64::new(0), job, told: None, all_sent: None, over: false }
    }

    /// Sets a function that is called after every [`STEP`] bytes with the number of bytes acknowledged so far.
    pub(super) fn telling(self, told: &'a (dyn Fn(u64) + Send + Sync)) -> Self {
        Self { told: Some(told), ..self }
    }

    /// Sets a function that [`write_range`] calls when all bytes are sent, before they are answered.
    pub(super) fn then(self, all_sent: &'a (dyn Fn() + Send + Sync)) -> Self {
        Self { all_sent: Some(all_sent), ..self }
    }

    /// Declares that the range overwrites existing data, so zeros must be sent too.
    pub(crate) fn over(self) -> Self {
        Self { over: true, ..self }
    }

    fn add(&self, bytes: u64) {
        self.job.sent(bytes);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(told) = self.told
            && before / STEP < (before + bytes) / STEP
        {
            told(before + bytes);
        }
    }
}

/// Writes the bytes `range` of the source into `file`. The file begins at the source's offset `base`.
///
/// Bytes are sent in order, so that after a lost connection the file on the vessel holds exactly a prefix. `taken`
/// counts the bytes that the vessel has acknowledged.
pub(super) async fn write_range(
    session: &Session,
    version: &Version,
    source: &Source,
    file: &RemoteFile,
    range: Range<u64>,
    base: u64,
    taken: &Taken<'_>,
) -> Result<(), Fault> {
    let mut writes = Writes::new(session, version, file, taken);
    writes.send(source, (range, base), || None).await?;
    taken.all_sent.into_iter().for_each(|all_sent| all_sent());
    writes.answers().await
}

/// Writes a range as [`write_range`] does, and closes the file. When the whole range has been sent, `further` may
/// extend it by returning a new end.
///
/// The close is sent before the writes are answered, because the vessel processes requests in the order of sending.
pub(super) async fn write_and_close(
    session: &Session,
    version: &Version,
    source: &Source,
    file: RemoteFile,
    range_and_base: (Range<u64>, u64),
    taken: &Taken<'_>,
    further: impl FnMut() -> Option<u64>,
) -> Result<(), Fault> {
    let path = file.path().clone();
    let mut writes = Writes::new(session, version, &file, taken);
    writes.send(source, range_and_base, further).await?;
    let (closed, answered) = join(file.clone().close(), writes.answers()).await;
    answered?;
    session.explained(closed, &path, 1).await
}

/// The writes to a file whose answers are pending.
struct Writes<'a> {
    session: &'a Session,
    version: &'a Version,
    file: &'a RemoteFile,
    taken: &'a Taken<'a>,
    sent: FuturesUnordered<BoxFuture<'a, Result<u64, RemoteError>>>,
    /// Bytes not acknowledged yet, for which the vessel still needs space.
    missing: u64,
}

impl<'a> Writes<'a> {
    fn new(session: &'a Session, version: &'a Version, file: &'a RemoteFile, taken: &'a Taken<'a>) -> Self {
        Self { session, version, file, taken, sent: FuturesUnordered::new(), missing: 0 }
    }

    /// Sends the writes for a range.
    async fn send(
        &mut self,
        source: &Source,
        (range, base): (Range<u64>, u64),
        mut further: impl FnMut() -> Option<u64>,
    ) -> Result<(), Fault> {
        let Self { session, version, file, taken, .. } = *self;
        let (mut at, mut end) = (range.start, range.end);
        self.missing += end - at;
        loop {
            if at == end {
                let Some(new_end) = further() else { return Ok(()) };
                self.missing += new_end - end;
                end = new_end;
            }
            let read = source.read(at, end - at).await;
            let mut bytes = read.map_err(|error| source_fault(version, &error))?;
            while !bytes.is_empty() {
                let per_write = usize::try_from(session.bytes_per_write(file)).unwrap_or(usize::MAX);
                let piece = bytes.split_to(per_write.min(bytes.len()));
                let length = piece.len() as u64;
                let write = if !taken.over && is_hole(&piece) {
                    file.send_zeros(at - base, length).await
                } else {
                    let _turn = session.may_send(version, length, file.route()).await;
                    session.wrote(version, length);
                    file.send(at - base, piece).await
                };
                let sent = session.explained(write, file.path(), self.missing).await?;
                self.sent.push(sent.taken().boxed());
                at += length;
                // Processes the answers that have arrived, without waiting for more.
                while let Some(Some(answer)) = self.sent.next().now_or_never() {
                    self.note(answer).await?;
                }
            }
        }
    }

    /// Waits for all answers.
    async fn answers(&mut self) -> Result<(), Fault> {
        while let Some(answer) = self.sent.next().await {
            self.note(answer).await?;
        }
        Ok(())
    }

    async fn note(&mut self, answer: Result<u64, RemoteError>) -> Result<(), Fault> {
        let bytes = self.session.explained(answer, self.file.path(), self.missing).await?;
        self.missing -= bytes;
        note_sent(self.session, self.version, bytes, self.taken);
        Ok(())
    }
}

pub(super) fn note_sent(session: &Session, version: &Version, bytes: u64, taken: &Taken<'_>) {
    taken.add(bytes);
    session.sent(version, bytes);
}

/// Returns whether a piece consists of zeros and is long enough to be left out. Most other pieces are ruled out by
/// their first byte.
pub(super) fn is_hole(piece: &[u8]) -> bool {
    piece.len() >= ZEROS && piece.iter().all(|byte| *byte == 0)
}
