//! Hashes a source from the blocks that are read for the vessels.
//!
//! The hasher acts as one more reader: it takes the blocks in order, and hashes each one on a blocking thread. It stays
//! near the fastest reader, so that each of them finds the other's blocks in the cache. While a task waits for the
//! digest, the hasher runs ahead instead.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::cache::SourceId;
use super::hashing::{Hashed, Hashing};
use super::table::{Entry, Identity};
use super::{BLOCK, SourceCache, broken};
use crate::digest::Digest;
use crate::local::DiskError;

impl Entry {
    /// Returns whether the hasher may take the next block: a task waits for the digest, or the hasher is fewer than
    /// `lead` blocks ahead of the fastest reader.
    fn may_hash(&self, lead: u64) -> bool {
        let before =
            self.readers.values().filter(|reader| reader.has_begun()).map(|reader| reader.hashed_before()).min();
        self.hashing.hasher.is_some() && (self.hashing.waiting > 0 || before.is_some_and(|before| before < lead))
    }
}

impl SourceCache {
    /// Starts hashing a source, or resumes it.
    pub(super) fn start_hashing(&self, hashing: &mut Hashing, source: SourceId) {
        if hashing.task.is_none() && !hashing.is_finished() {
            let source_cache = self.clone();
            hashing.task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                let hashed = source_cache.hash(source).await;
                source_cache.end_hashing(source, hashed);
            })));
        }
    }

    /// Returns how many blocks the hasher may be ahead of the fastest reader. This is enough to read ahead for that
    /// reader, but small, to leave more of the cache to slower readers.
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

    /// Waits until the next block may be hashed, and returns its index; `None` when all blocks are hashed.
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

    /// Hashes a block on a blocking thread. Once started, the hashing of the block completes even if the caller is
    /// dropped.
    async fn hash_block(&self, source: SourceId, index: u64, bytes: Bytes) -> Result<(), DiskError> {
        let source_cache = self.clone();
        let Some(mut hasher) = self.table().entry(source).and_then(|entry| entry.hashing.take(index)) else {
            return Ok(());
        };
        let hashing = spawn_blocking(move || {
            hasher.update(&bytes);
            let mut table = source_cache.table();
            if let Some(entry) = table.entry(source) {
                entry.hashing.hasher = Some(hasher);
                entry.hashing.done = index + 1;
                entry.readers.values_mut().for_each(|reader| reader.note_hashed(index));
            }
            table.revalue(source, index);
        });
        hashing.await.map_err(|error| broken("hash", error))
    }

    /// Returns the digest of all blocks, if the source is still the same version.
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
        disk.call("read the status of", check).await?;
        Ok(hasher.finish())
    }

    fn end_hashing(&self, source: SourceId, hashed: Result<Hashed, DiskError>) {
        let mut table = self.table();
        let Some(entry) = table.entry(source) else { return };
        entry.hashing.pause();
        match hashed {
            Ok((digest, signature)) => {
                // Frees the buffers of the signature builder.
                entry.hashing.hasher = Some(Box::default());
                (entry.hashing.digest, entry.hashing.signature) = (Some(digest), signature);
            }
            Err(error) if entry.hashing.waiting > 0 => entry.hashing.failure = Some(error),
            // Not a warning, because the readers of the file get the same error and report it.
            Err(error) => tracing::debug!(file = %entry.identity.path, "Cannot hash the file: {error}"),
        }
        entry.moved.notify_waiters();
    }
}
