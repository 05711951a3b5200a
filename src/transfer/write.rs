//! Writing of a source range into a file on the vessel, with many writes in flight.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::transfers::source_fault;
use crate::fault::Fault;
use crate::link::Job;
use crate::link::Session;
use crate::local::Source;
use crate::records::Version;
use crate::transport::RemoteFile;

/// Counter of the bytes of a range that the vessel has acknowledged.
pub(crate) struct Taken<'a> {
    pub(crate) bytes: AtomicU64,
    job: &'a Job,
    /// Called after every [`STEP`] bytes with the number of acknowledged bytes.
    told: Option<&'a (dyn Fn(u64) + Send + Sync)>,
    /// Whether the file may already hold other data in the range: then zeros must be sent too.
    over: bool,
}

/// Minimum length in bytes of a piece of zeros that is not sent.
const ZEROS: usize = 4096;

/// Number of bytes between two progress calls.
const STEP: u64 = 2 << 20;

impl<'a> Taken<'a> {
    /// Creates a counter at 0; acknowledged bytes are subtracted from `job`.
    pub(crate) fn of(job: &'a Job) -> Self {
        Self { bytes: AtomicU64::new(0), job, told: None, over: false }
    }

    /// Sets a function that is called after every [`STEP`] bytes with the number of bytes acknowledged so far.
    pub(super) fn telling(self, told: &'a (dyn Fn(u64) + Send + Sync)) -> Self {
        Self { told: Some(told), ..self }
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

/// Writes the bytes `range` of the source into `file`, where the source's offset `base` is the start of the file.
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
    write_on(session, version, source, file, range, base, taken, || None).await
}

/// Writes a range like [`write_range`]. When the range is written, `further` may return a new end for it.
#[expect(clippy::too_many_arguments, reason = "all of them are needed, and none belong together")]
pub(super) async fn write_on(
    session: &Session,
    version: &Version,
    source: &Source,
    file: &RemoteFile,
    range: Range<u64>,
    base: u64,
    taken: &Taken<'_>,
    mut further: impl FnMut() -> Option<u64>,
) -> Result<(), Fault> {
    let mut sent = FuturesUnordered::new();
    let (mut at, mut end) = (range.start, range.end);
    // Bytes not acknowledged yet, for which the vessel still needs space.
    let mut missing = end - at;
    loop {
        if at == end {
            let Some(new_end) = further() else { break };
            missing += new_end - end;
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
                let _turn = session.may_send(version, length).await;
                session.wrote(version, length);
                file.send(at - base, piece).await
            };
            sent.push(session.explained(write, file.path(), missing).await?.taken());
            at += length;
            // Processes the answers that have arrived, without waiting for more.
            while let Some(Some(answer)) = futures_util::FutureExt::now_or_never(sent.next()) {
                let bytes = session.explained(answer, file.path(), missing).await?;
                missing -= bytes;
                note_sent(session, version, bytes, taken);
            }
        }
    }
    while let Some(answer) = sent.next().await {
        let bytes = session.explained(answer, file.path(), missing).await?;
        missing -= bytes;
        note_sent(session, version, bytes, taken);
    }
    Ok(())
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
