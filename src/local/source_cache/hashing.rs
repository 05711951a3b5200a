//! How far the hash of a source has come. Plain state: `hasher` moves it on.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::digest::{Digest, Hasher};
use crate::local::DiskError;
use crate::outline::{Outline, Outliner};

/// What a block takes it, about.
const PER_BLOCK: Duration = Duration::from_millis(1);

/// Hashes a file, and outlines it where that is wanted.
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

/// How far the hash of a source has come.
pub(super) struct Hashing {
    /// Whether it is made along the way.
    pub(super) wanted: bool,
    /// Those who wait for it.
    pub(super) waiting: usize,
    pub(super) digest: Option<Digest>,
    /// The outline, where somebody wants one, and the average length of the stretches it is to have.
    pub(super) outline: Option<Arc<Outline>>,
    pub(super) average: Option<u32>,
    /// Why it can't be made; for one of those who wait.
    pub(super) failure: Option<DiskError>,
    /// Blocks hashed, and the hasher that took them; `None` while it takes another one.
    pub(super) done: u64,
    /// Boxed: of thousands of small files that wait, none is hashed here.
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

    /// How soon it will come for a block, if it will.
    pub(super) fn comes_in(&self, index: u64) -> Option<Duration> {
        let blocks = index.checked_sub(self.done).filter(|_| self.task.is_some())?;
        Some(PER_BLOCK.saturating_mul(u32::try_from(blocks).unwrap_or(u32::MAX)))
    }

    /// The hasher, if this is the block it takes next: one that was stopped may still have taken it.
    pub(super) fn take(&mut self, index: u64) -> Option<Box<FileHasher>> {
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

    pub(super) fn is_finished(&self) -> bool {
        self.digest.is_some() && (self.average.is_none() || self.outline.is_some())
    }
}
