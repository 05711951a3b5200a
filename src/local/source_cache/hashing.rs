//! The progress of hashing a source. The module `hasher` does the hashing.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::digest::{Digest, Hasher};
use crate::local::DiskError;
use crate::signature::{Signature, SignatureBuilder};

/// Approximate time to hash a block.
const PER_BLOCK: Duration = Duration::from_millis(1);

/// Hashes a file, and creates its signature if requested.
#[derive(Clone, Default)]
pub(super) struct FileHasher {
    hasher: Hasher,
    signature_builder: Option<SignatureBuilder>,
}

impl FileHasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if let Some(signature_builder) = &mut self.signature_builder {
            signature_builder.update(bytes);
        }
    }

    pub(super) fn finish(self) -> Hashed {
        (self.hasher.finish(), self.signature_builder.map(|signature_builder| Arc::new(signature_builder.finish())))
    }
}

pub(super) type Hashed = (Digest, Option<Arc<Signature>>);

/// The progress of hashing a source.
pub(super) struct Hashing {
    /// Whether the digest is to be computed during the transfer.
    pub(super) wanted: bool,
    /// Number of tasks that wait for the digest.
    pub(super) waiting: usize,
    pub(super) digest: Option<Digest>,
    /// The signature, if one was requested. `average` is the requested average length of its blocks.
    pub(super) signature: Option<Arc<Signature>>,
    pub(super) average: Option<u32>,
    /// The error of a failed attempt, until one of the waiting tasks returns it.
    pub(super) failure: Option<DiskError>,
    /// Number of blocks that are hashed, which is also the index of the next block to hash.
    pub(super) done: u64,
    /// The hasher; `None` while it processes a block. Boxed to save memory, because thousands of small files have a
    /// `Hashing` although they are not hashed here.
    pub(super) hasher: Option<Box<FileHasher>>,
    pub(super) task: Option<AbortOnDropHandle<()>>,
}

impl Default for Hashing {
    fn default() -> Self {
        let (digest, failure, task, hasher) = (None, None, None, Some(Box::default()));
        Self { wanted: false, waiting: 0, digest, signature: None, average: None, failure, done: 0, hasher, task }
    }
}

impl Hashing {
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn has_begun(&self) -> bool {
        self.done > 0 || self.digest.is_some()
    }

    /// Returns the estimated time until the hasher needs a block; `None` if it won't need the block.
    pub(super) fn comes_in(&self, index: u64) -> Option<Duration> {
        let blocks = index.checked_sub(self.done).filter(|_| self.task.is_some())?;
        Some(PER_BLOCK.saturating_mul(u32::try_from(blocks).unwrap_or(u32::MAX)))
    }

    /// Takes the hasher out if block `index` is the next one to hash. Returns `None` otherwise, because a task that was
    /// stopped may have hashed this block already.
    pub(super) fn take(&mut self, index: u64) -> Option<Box<FileHasher>> {
        if self.done == index { self.hasher.take() } else { None }
    }

    /// Stops the task that hashes. Hashing can be resumed later.
    pub(super) fn pause(&mut self) {
        self.task = None;
    }

    /// Sets the digest after another task has read the whole file.
    pub(super) fn settle(&mut self, digest: Digest) {
        self.pause();
        self.digest = Some(digest);
    }

    /// Requests a signature, which is computed together with the hash. Returns `false` if the source is already being
    /// hashed without a signature, or with a signature of another average length.
    pub(super) fn want_signature(&mut self, average: u32) -> bool {
        if self.average == Some(average) {
            return true;
        }
        // A new hash can't begin while a block is being hashed, because that block would then count for the new hash.
        let is_idle = self.task.is_none() && self.hasher.is_some();
        if !is_idle || (self.done > 0 && self.digest.is_none()) {
            return false;
        }
        (self.done, self.signature, self.average) = (0, None, Some(average));
        self.hasher = Some(Box::new(FileHasher {
            signature_builder: Some(SignatureBuilder::new(average)),
            ..FileHasher::default()
        }));
        true
    }

    /// Drops the signature once no reader is left. Unlike the digest, the signature is too large to be kept.
    pub(super) fn forget_signature(&mut self) {
        if self.signature.take().is_some() {
            self.average = None;
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.digest.is_some() && (self.average.is_none() || self.signature.is_some())
    }
}
