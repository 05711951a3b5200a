//! Writes a range of the source into a file on the vessel, many writes in flight.

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

/// Counts what the vessel has taken of a range.
pub(crate) struct Taken<'a> {
    pub(crate) bytes: AtomicU64,
    job: &'a Job,
    /// Told about every so many bytes.
    told: Option<&'a (dyn Fn(u64) + Send + Sync)>,
    /// Whether the file holds something else already where it is written to: then zeros must be sent too.
    over: bool,
}

/// From so many bytes on, zeros are not sent.
const ZEROS: usize = 4096;

/// How often progress is told, in bytes.
const STEP: u64 = 2 << 20;

impl<'a> Taken<'a> {
    /// Nothing yet; what is taken is no more to be done of `job`.
    pub(crate) fn of(job: &'a Job) -> Self {
        Self { bytes: AtomicU64::new(0), job, told: None, over: false }
    }

    /// Has `told` hear now and then how many bytes were taken so far.
    pub(super) fn telling(self, told: &'a (dyn Fn(u64) + Send + Sync)) -> Self {
        Self { told: Some(told), ..self }
    }

    /// What is written goes over what the file holds.
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

/// Writes bytes `range` of the source into `file`, those of offset `range.start` at `range.start - base`.
///
/// Bytes go out in order, so that after a cut the file on the vessel holds a prefix and nothing but a prefix. How many
/// it has answered for is counted in `taken`.
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

/// As [`write_range`]; where the range ends, `further` may say that it goes on, and to where.
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
    let most = session.remote.capabilities().bytes_per_write();
    let mut sent = FuturesUnordered::new();
    let (mut at, mut end) = (range.start, range.end);
    // Not taken yet: what a vessel that is full must make room for.
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
            let per_write = usize::try_from(most.min(file.worth_writing())).unwrap_or(usize::MAX);
            let piece = bytes.split_to(per_write.min(bytes.len()));
            let length = piece.len() as u64;
            let write = if !taken.over && is_hole(&piece) {
                file.send_zeros(at - base, length).await
            } else {
                session.may_send(length).await;
                file.send(at - base, piece).await
            };
            sent.push(session.explained(write, file.path(), missing).await?.taken());
            at += length;
            // What has been answered meanwhile is taken note of, without waiting for more.
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

/// Whether a piece is worth leaving out. Most pieces show with their first byte that they aren't.
pub(super) fn is_hole(piece: &[u8]) -> bool {
    piece.len() >= ZEROS && piece.iter().all(|byte| *byte == 0)
}
