//! The state of an upload in parts, which uploading and joining share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use futures_util::future::try_join_all;
use tokio::sync::{Notify, OnceCell};

use super::compressing::{Compressing, codec};
use super::ranges::{HeldPart, Piece, RangeMap};
use super::resume_state::ResumeState;
use crate::compression::Codec;
use crate::fault::Fault;
use crate::link::{Job, Session};
use crate::local::Source;
use crate::names::RemotePath;
use crate::records::{Delivery, Version};
use crate::settings::Assembly;
use crate::transport::{RemoteFile, SftpChannel};

/// Maximum total size, in chunks, of the parts in TempDir that are being uploaded or wait to be joined.
const CHUNKS_IN_TEMP_DIR: u64 = 6;

/// The upload of one file in parts.
pub(super) struct PartsUpload<'a> {
    pub(super) session: &'a Session,
    pub(super) delivery: &'a Delivery,
    pub(super) source: Source,
    pub(super) assembly: RemotePath,
    pub(super) destination: RemotePath,
    pub(super) ranges: Mutex<RangeMap>,
    /// Notified when the ranges change or the upload ends.
    pub(super) changed: Notify,
    pub(super) job: Job,
    pub(super) compressing: Compressing<'a>,
    /// Number of bytes that were sent uncompressed.
    pub(super) sent_plain: AtomicU64,
    /// The assembly, if it was opened in advance.
    pub(super) opened: Mutex<Option<RemoteFile>>,
    /// Parts of earlier attempts that are of no use, and whether they were removed.
    useless: Vec<HeldPart>,
    removed: OnceCell<()>,
}

impl<'a> PartsUpload<'a> {
    /// Prepares to upload the missing ranges of a file. `job` must cover the whole file. `opened` is the new, empty
    /// assembly, if it was opened in advance.
    pub(super) fn prepare(
        session: &'a Session,
        delivery: &'a Delivery,
        source: Source,
        (assembly, destination): (RemotePath, RemotePath),
        (job, opened): (Job, Option<RemoteFile>),
        held: ResumeState,
    ) -> Self {
        let (size, longest) = (delivery.version.stamp.size, delivery.version.chunk_size);
        let ahead = longest.saturating_mul(CHUNKS_IN_TEMP_DIR);
        // Streams that the vessel can't expand now are useless.
        let codec = codec(session);
        let is_usable = |part: &HeldPart| part.stream.is_none_or(|(stream, _)| Some(stream.codec) == codec);
        let (parts, mut useless): (Vec<_>, Vec<_>) = held.parts.into_iter().partition(is_usable);
        let (ranges, more) = RangeMap::new(size, longest, ahead, held.joined, parts);
        useless.extend(more);
        session.found(&delivery.version, size - ranges.missing_bytes());
        job.sent(size - ranges.missing_bytes());
        let compressing = Compressing::new(session, delivery, source.clone(), ranges.first_missing());
        let (ranges, changed, sent_plain) = (Mutex::new(ranges), Notify::new(), AtomicU64::new(0));
        let (opened, removed) = (Mutex::new(opened), OnceCell::new());
        Self {
            session,
            delivery,
            source,
            assembly,
            destination,
            ranges,
            changed,
            job,
            compressing,
            sent_plain,
            opened,
            useless,
            removed,
        }
    }

    /// Prepares TempDir for parts: ensures that it is usable, and removes unusable parts of earlier attempts, because
    /// new parts may get the same names.
    pub(super) async fn prepare_for_parts(&self) -> Result<(), Fault> {
        let removing = async {
            let paths = self.useless.iter().map(|part| part.path(self.session, self.delivery));
            let remove = async |path: RemotePath| self.session.remote.remove(&path).await.map_err(|e| e.fault());
            try_join_all(paths.map(remove)).await.map(|_| ())
        };
        let removing = self.removed.get_or_try_init(|| removing);
        tokio::try_join!(self.session.prepare_temp_dir(), removing).map(|_| ())
    }

    /// Returns the assembly if it was opened in advance on this channel. Only the first call can return it.
    pub(super) fn take_opened(&self, channel: &SftpChannel) -> Option<RemoteFile> {
        let opened = self.opened.lock().expect("no code panics while it holds this lock").take();
        opened.filter(|_| channel == self.session.remote.main_channel())
    }

    pub(super) fn version(&self) -> &Version {
        &self.delivery.version
    }

    pub(super) fn ranges(&self) -> MutexGuard<'_, RangeMap> {
        self.ranges.lock().expect("no code panics while it holds this lock")
    }

    /// Returns the format of the compressed ranges, and the number of all bytes that were sent; `None` if nothing was
    /// compressed.
    pub(super) fn compressed(&self) -> Option<(Codec, u64)> {
        let plain = self.sent_plain.load(Ordering::Relaxed);
        self.compressing.sent().map(|(codec, sent)| (codec, sent + plain))
    }

    /// Returns whether ranges are compressed now. Compressed streams are stored as parts, so nothing is compressed
    /// while parts are not allowed.
    pub(super) fn compresses(&self) -> bool {
        self.compressing.is_on() && self.ranges().allows_parts()
    }

    /// Makes the range of a piece missing again.
    pub(super) fn give_back(&self, piece: Piece) {
        let start = piece.range.start;
        self.ranges().give(piece, start);
        self.changed.notify_waiters();
    }

    /// Prevents further parts after a write to TempDir failed, most likely for lack of space. Uploading continues by
    /// appending, which needs no TempDir; a problem other than space will occur again while appending.
    pub(super) fn do_without_parts(&self, fault: &Fault) {
        if self.ranges().stay_close() {
            let (vessel, file) = (&self.session.link.settings.name, &self.version().path);
            tracing::warn!(%vessel, %file, "Cannot write parts; one channel sends the rest in order: {fault}");
        }
    }
}

/// Returns whether a file is uploaded in parts that `cat` joins; otherwise it is written directly into its assembly.
pub(super) fn goes_in_parts(session: &Session, delivery: &Delivery) -> bool {
    delivery.version.plan().count() > 1
        && session.remote.capabilities().shell
        && session.link.settings.assembly == Assembly::Cat
}
