//! The hash of a source, made of the blocks that go by on their way to the vessels.
//!
//! One more reader, in order, a block at a time on a blocking thread. It stays near the fastest of the others, so that
//! these find its blocks and it finds theirs, unless somebody waits for the digest.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::cache::SourceId;
use super::table::{Entry, Identity};
use super::{BLOCK, Feed, broken};
use crate::digest::{Digest, Hasher};
use crate::local::DiskError;
use crate::outline::{Outline, Outliner};

/// What a block takes it, about.
const PER_BLOCK: Duration = Duration::from_millis(1);

/// Hashes a file, and outlines it where that is wanted.
#[derive(Clone, Default)]
struct FileHasher {
    hasher: Hasher,
    outliner: Option<Outliner>,
}

impl FileHasher {
    fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if let Some(outliner) = &mut self.outliner {
            outliner.update(bytes);
        }
    }

    fn finish(self) -> Hashed {
        (self.hasher.finish(), self.outliner.map(|outliner| Arc::new(outliner.finish())))
    }
}

type Hashed = (Digest, Option<Arc<Outline>>);

/// How far the hash of a source has come.
pub(super) struct Hashing {
    /// Whether it is made along the way.
    pub(super) wanted: bool,
    /// Those who wait for it.
    pub(super) waiting: usize,
    pub(super) digest: Option<Digest>,
    /// The outline, where somebody wants one, and the average length of the stretches it is to have.
    pub(super) outline: Option<Arc<Outline>>,
    average: Option<u32>,
    /// Why it can't be made; for one of those who wait.
    pub(super) failure: Option<DiskError>,
    /// Blocks hashed, and the hasher that took them; `None` while it takes another one.
    done: u64,
    /// Boxed: of thousands of small files that wait, none is hashed here.
    hasher: Option<Box<FileHasher>>,
    task: Option<AbortOnDropHandle<()>>,
}

impl Default for Hashing {
    fn default() -> Self {
        let (digest, failure, task, hasher) = (None, None, None, Some(Box::default()));
        Self { wanted: false, waiting: 0, digest, outline: None, average: None, failure, done: 0, hasher, task }
    }
}

impl Hashing {
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn has_begun(&self) -> bool {
        self.done > 0 || self.digest.is_some()
    }

    /// How soon it will come for a block, if it will.
    pub(super) fn comes_in(&self, index: u64) -> Option<Duration> {
        let blocks = index.checked_sub(self.done).filter(|_| self.task.is_some())?;
        Some(PER_BLOCK.saturating_mul(u32::try_from(blocks).unwrap_or(u32::MAX)))
    }

    /// The hasher, if this is the block it takes next: one that was stopped may still have taken it.
    fn take(&mut self, index: u64) -> Option<Box<FileHasher>> {
        if self.done == index { self.hasher.take() } else { None }
    }

    /// Stops it where it is.
    pub(super) fn pause(&mut self) {
        self.task = None;
    }

    /// Somebody else has read the whole: it has this digest.
    pub(super) fn settle(&mut self, digest: Digest) {
        self.pause();
        self.digest = Some(digest);
    }

    /// Has an outline made along with the hash. `false`: the hash is being made without, or with another outline.
    pub(super) fn want_outline(&mut self, average: u32) -> bool {
        if self.average == Some(average) {
            return true;
        }
        // A block that is being hashed would count for the new hash otherwise.
        let is_idle = self.task.is_none() && self.hasher.is_some();
        if !is_idle || (self.done > 0 && self.digest.is_none()) {
            return false;
        }
        (self.done, self.outline, self.average) = (0, None, Some(average));
        self.hasher = Some(Box::new(FileHasher { outliner: Some(Outliner::new(average)), ..FileHasher::default() }));
        true
    }

    /// Nobody has the source open any more: the digest is worth remembering, the outline is too large for that.
    pub(super) fn forget_outline(&mut self) {
        if self.outline.take().is_some() {
            self.average = None;
        }
    }

    fn is_finished(&self) -> bool {
        self.digest.is_some() && (self.average.is_none() || self.outline.is_some())
    }

    /// Starts it, or lets it go on from where it was stopped.
    pub(super) fn start(&mut self, feed: &Feed, source: SourceId) {
        if self.task.is_none() && !self.is_finished() {
            let feed = feed.clone();
            self.task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                let hashed = feed.hash(source).await;
                feed.end_hashing(source, hashed);
            })));
        }
    }
}

impl Entry {
    /// Whether the hasher may take the next block, where it should be at most `lead` blocks before the fastest reader.
    fn may_hash(&self, lead: u64) -> bool {
        let before =
            self.readers.values().filter(|reader| reader.has_begun()).map(|reader| reader.hashed_before()).min();
        self.hashing.hasher.is_some() && (self.hashing.waiting > 0 || before.is_some_and(|before| before < lead))
    }
}

impl Feed {
    /// How far the hasher may be before the fastest reader, in blocks: far enough to read ahead for it. The less it is, the
    /// more of the cache is left for those who follow.
    fn lead(&self) -> u64 {
        (self.bound() / BLOCK / 16).max(2)
    }

    async fn hash(&self, source: SourceId) -> Result<Hashed, DiskError> {
        let Some(identity) = self.table().entry(source).map(|entry| entry.identity.clone()) else {
            return Ok((Digest::of(b""), None));
        };
        while let Some(index) = self.turn(source).await {
            let bytes = self.block(source, index, &self.disk(&identity)).await?;
            self.hash_block(source, index, bytes).await?;
        }
        self.finish(source, identity).await
    }

    /// Waits for the next block to hash; `None` when there is none any more.
    async fn turn(&self, source: SourceId) -> Option<u64> {
        loop {
            let moved = {
                let mut table = self.table();
                let entry = table.entry(source)?;
                if entry.hashing.hasher.is_some() && entry.hashing.done >= entry.identity.blocks() {
                    return None;
                }
                if entry.may_hash(self.lead()) {
                    return Some(entry.hashing.done);
                }
                entry.moved.clone().notified_owned()
            };
            moved.await;
        }
    }

    /// Hashes a block on a blocking thread. Once begun it is carried out, whoever stops waiting for it.
    async fn hash_block(&self, source: SourceId, index: u64, bytes: Bytes) -> Result<(), DiskError> {
        let feed = self.clone();
        let Some(mut hasher) = self.table().entry(source).and_then(|entry| entry.hashing.take(index)) else {
            return Ok(());
        };
        let hashing = spawn_blocking(move || {
            hasher.update(&bytes);
            let mut table = feed.table();
            if let Some(entry) = table.entry(source) {
                entry.hashing.hasher = Some(hasher);
                entry.hashing.done = index + 1;
                entry.readers.values_mut().for_each(|reader| reader.note_hashed(index));
            }
            table.revalue(source, index);
        });
        hashing.await.map_err(|error| broken("hash", error))
    }

    /// The digest of all blocks, if the source is still the same.
    async fn finish(&self, source: SourceId, identity: Arc<Identity>) -> Result<Hashed, DiskError> {
        let disk = self.disk(&identity);
        let (file, hasher) = {
            let mut table = self.table();
            let entry = table.entry(source);
            let stopped = || DiskError::Stopped { path: identity.whole() };
            let entry = entry.ok_or_else(stopped)?;
            (entry.file.clone(), entry.hashing.hasher.clone().unwrap_or_default())
        };
        let check = move || match file {
            Some(file) => identity.check(&file),
            None => identity.open().map(drop),
        };
        disk.call("look at", check).await?;
        Ok(hasher.finish())
    }

    fn end_hashing(&self, source: SourceId, hashed: Result<Hashed, DiskError>) {
        let mut table = self.table();
        let Some(entry) = table.entry(source) else { return };
        entry.hashing.pause();
        match hashed {
            Ok((digest, outline)) => {
                // What it kept for the outline is not needed any more.
                entry.hashing.hasher = Some(Box::default());
                (entry.hashing.digest, entry.hashing.outline) = (Some(digest), outline);
            }
            Err(error) if entry.hashing.waiting > 0 => entry.hashing.failure = Some(error),
            // Those who send it meet the same trouble and say so.
            Err(error) => tracing::debug!(file = %entry.identity.path, "not hashed: {error}"),
        }
        entry.moved.notify_waiters();
    }
}
