//! State of a source's hash. Changed by `hasher`.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::digest::{Digest, Hasher};
use crate::local::DiskError;
use crate::outline::{Outline, Outliner};

/// Approximate time to hash a block.
const PER_BLOCK: Duration = Duration::from_millis(1);

/// Hashes a file, and creates its outline if requested.
#[derive(Clone, Default)]
pub(super) struct FileHasher {
    hasher: Hasher,
    outliner: Option<Outliner>,
}

impl FileHasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if let Some(outliner) = &mut self.outliner {
            outliner.update(bytes);
        }
    }

    pub(super) fn finish(self) -> Hashed {
        (self.hasher.finish(), self.outliner.map(|outliner| Arc::new(outliner.finish())))
    }
}

pub(super) type Hashed = (Digest, Option<Arc<Outline>>);

/// State of a source's hash.
pub(super) struct Hashing {
    /// Whether it is computed during the transfer.
    pub(super) wanted: bool,
    /// Number of tasks that wait for it.
    pub(super) waiting: usize,
    pub(super) digest: Option<Digest>,
    /// The outline, if one was requested, and the average length of its stretches.
    pub(super) outline: Option<Arc<Outline>>,
    pub(super) average: Option<u32>,
    /// Error for one of the waiting tasks.
    pub(super) failure: Option<DiskError>,
    /// Number of hashed blocks.
    pub(super) done: u64,
    /// The hasher; `None` while it processes a block. Boxed to save memory: thousands of small files wait without being
    /// hashed here.
    pub(super) hasher: Option<Box<FileHasher>>,
    pub(super) task: Option<AbortOnDropHandle<()>>,
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

    /// Returns how soon it needs a block; `None` if it won't.
    pub(super) fn comes_in(&self, index: u64) -> Option<Duration> {
        let blocks = index.checked_sub(self.done).filter(|_| self.task.is_some())?;
        Some(PER_BLOCK.saturating_mul(u32::try_from(blocks).unwrap_or(u32::MAX)))
    }

    /// Takes the hasher out if this is its next block; a stopped task may have hashed it already.
    pub(super) fn take(&mut self, index: u64) -> Option<Box<FileHasher>> {
        if self.done == index { self.hasher.take() } else { None }
    }

    /// Pauses hashing.
    pub(super) fn pause(&mut self) {
        self.task = None;
    }

    /// Sets the digest after another task has read the whole file.
    pub(super) fn settle(&mut self, digest: Digest) {
        self.pause();
        self.digest = Some(digest);
    }

    /// Enables an outline along with the hash. Returns `false` if the hash is already being computed without an outline
    /// or with another one.
    pub(super) fn want_outline(&mut self, average: u32) -> bool {
        if self.average == Some(average) {
            return true;
        }
        // Otherwise a block that is being hashed would count for the new hash.
        let is_idle = self.task.is_none() && self.hasher.is_some();
        if !is_idle || (self.done > 0 && self.digest.is_none()) {
            return false;
        }
        (self.done, self.outline, self.average) = (0, None, Some(average));
        self.hasher = Some(Box::new(FileHasher { outliner: Some(Outliner::new(average)), ..FileHasher::default() }));
        true
    }

    /// Drops the outline once no reader is left: unlike the digest, it is too large to be remembered.
    pub(super) fn forget_outline(&mut self) {
        if self.outline.take().is_some() {
            self.average = None;
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.digest.is_some() && (self.average.is_none() || self.outline.is_some())
    }
}
