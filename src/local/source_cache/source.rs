//! The handle of a source: reads it at any offset and returns its digest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::cache::SourceId;
use super::hashing::Hashing;
use super::pace::wait_for_others;
use super::table::{Entry, Identity};
use super::{BLOCK, SourceCache, broken};
use crate::digest::{Digest, FileDigests};
use crate::local::{DiskError, hash_chunks};
use crate::signature::Signature;

/// One reader of a source. Each delivery has its own; clones count as the same reader. Readers share no read position.
#[derive(Clone)]
pub struct Source(Arc<Reader>);

struct Reader {
    source_cache: SourceCache,
    id: SourceId,
    number: u64,
    identity: Arc<Identity>,
    moved: Arc<Notify>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.source_cache.table().close(self.id, self.number);
    }
}

/// Marks that a task waits for the digest. Dropping it removes the mark.
struct Waiting<'a>(&'a Reader);

impl<'a> Waiting<'a> {
    fn new(reader: &'a Reader) -> Self {
        if let Some(entry) = reader.source_cache.table().entry(reader.id) {
            entry.hashing.waiting += 1;
        }
        // Wakes the hasher, because it no longer has to stay near the readers.
        reader.moved.notify_waiters();
        Self(reader)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.0.source_cache.table().entry(self.0.id) {
            entry.hashing.waiting -= 1;
        }
    }
}

impl Source {
    pub(super) fn new(source_cache: &SourceCache, id: SourceId, number: u64, entry: &Entry) -> Self {
        let (identity, moved) = (entry.identity.clone(), entry.moved.clone());
        Self(Arc::new(Reader { source_cache: source_cache.clone(), id, number, identity, moved }))
    }

    pub(super) fn id(&self) -> SourceId {
        self.0.id
    }

    #[cfg(test)]
    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    pub(super) fn identity(&self) -> &Arc<Identity> {
        &self.0.identity
    }

    /// Enables hashing during the transfer, from the first read on. Otherwise the source is hashed when the digest is
    /// requested.
    pub fn hash_on_the_way(&self) {
        if let Some(entry) = self.0.source_cache.table().entry(self.0.id) {
            entry.hashing.wanted = true;
        }
    }

    /// Requests a signature in blocks of this average length, computed together with the hash. Returns `false` if that
    /// is impossible now, because the source is already being hashed without a signature, or with a signature of
    /// another average length.
    pub fn sign_on_the_way(&self, average: u32) -> bool {
        let mut table = self.0.source_cache.table();
        let Some(entry) = table.entry(self.0.id) else { return false };
        entry.hashing.wanted = true;
        entry.hashing.want_signature(average)
    }

    /// Reads at most `most` bytes from `offset`. A read ends at the end of a block, so it may return fewer bytes; it
    /// returns none only if `most` is 0.
    ///
    /// # Errors
    /// [`DiskError::Changed`] when the source is another version by now, or ends before `offset`; any other error of
    /// the disk.
    pub async fn read(&self, offset: u64, most: u64) -> Result<Bytes, DiskError> {
        let reader = &*self.0;
        let end = reader.identity.stamp.size.min(offset.saturating_add(most));
        if most == 0 {
            return Ok(Bytes::new());
        }
        if offset >= end {
            return Err(DiskError::Changed { path: reader.identity.whole() });
        }
        let index = offset / BLOCK;
        self.begin(index);
        self.wait(|| self.patience_with_arrivals(index)).await;
        self.wait_for_others(index).await;
        let block = reader.source_cache.block(reader.id, index, &reader.source_cache.disk(&reader.identity)).await?;
        let within = |at: u64| ((at - index * BLOCK) as usize).min(block.len());
        if within(end) == block.len() {
            reader.source_cache.table().pass(reader.id, reader.number, index);
        }
        Ok(block.slice(within(offset)..within(end)))
    }

    fn begin(&self, index: u64) {
        let reader = &*self.0;
        let mut table = reader.source_cache.table();
        let Some(entry) = table.entry(reader.id) else { return };
        let hashed = entry.hashing.done();
        if let Some(progress) = entry.readers.get_mut(&reader.number) {
            progress.asks(index, hashed, Instant::now());
        }
        if entry.hashing.wanted {
            reader.source_cache.start_hashing(&mut entry.hashing, reader.id);
        }
    }

    /// Waits while close followers still need the block that this read would evict. See [`pace`](super::pace).
    async fn wait_for_others(&self, index: u64) {
        let began = Instant::now();
        self.wait(|| self.patience(index, began)).await;
        let mut table = self.0.source_cache.table();
        if let Some(progress) = table.entry(self.0.id).and_then(|entry| entry.readers.get_mut(&self.0.number)) {
            progress.note_waited(began.elapsed());
        }
    }

    /// Waits up to the duration that `patience` returns. Calls `patience` again whenever a reader or the hasher
    /// advances.
    async fn wait(&self, patience: impl Fn() -> Duration) {
        loop {
            // The notification is registered before `patience` is called, so that no later progress is missed.
            let moved = self.0.moved.notified();
            let patience = patience();
            if patience.is_zero() || timeout(patience, moved).await.is_err() {
                break;
            }
        }
    }

    /// Returns how long to wait for vessels that are still connecting, before a read that would evict a block of the
    /// same source.
    fn patience_with_arrivals(&self, index: u64) -> Duration {
        let reader = &*self.0;
        let table = reader.source_cache.table();
        let patience = table.patience_with_arrivals();
        if patience.is_zero() || table.pushes_out(reader.id, index).is_none() { Duration::ZERO } else { patience }
    }

    fn patience(&self, index: u64, began: Instant) -> Duration {
        let reader = &*self.0;
        let mut table = reader.source_cache.table();
        let window = table.cache.bound() / BLOCK;
        let Some(out) = table.pushes_out(reader.id, index) else { return Duration::ZERO };
        let Some(entry) = table.entry(reader.id) else { return Duration::ZERO };
        let others = entry.readers.iter().filter(|(number, _)| **number != reader.number).map(|(_, other)| other);
        match entry.readers.get(&reader.number) {
            Some(progress) => wait_for_others(progress, others, out, window, (began, Instant::now())),
            None => Duration::ZERO,
        }
    }

    /// Returns the SHA-256 of the whole file. Reads only the parts that were not hashed during the transfer.
    ///
    /// # Errors
    /// [`DiskError::Changed`] when the source is another version by now; any other error of the disk.
    pub async fn digest(&self) -> Result<Digest, DiskError> {
        self.hashed(|hashing| hashing.digest).await
    }

    /// Returns the SHA-256 of the whole file and its signature, in blocks of this average length. Reads only the parts
    /// that were not processed during the transfer. Returns `None` if [`sign_on_the_way`](Self::sign_on_the_way) is
    /// impossible.
    ///
    /// # Errors
    /// As [`digest`](Self::digest).
    pub async fn signature(&self, average: u32) -> Result<Option<(Digest, Arc<Signature>)>, DiskError> {
        if !self.sign_on_the_way(average) {
            return Ok(None);
        }
        self.hashed(|hashing| hashing.digest.zip(hashing.signature.clone())).await.map(Some)
    }

    async fn hashed<T>(&self, found: impl Fn(&Hashing) -> Option<T>) -> Result<T, DiskError> {
        let reader = &*self.0;
        let _waiting = Waiting::new(reader);
        loop {
            let moved = reader.moved.notified();
            {
                let mut table = reader.source_cache.table();
                let entry = table.entry(reader.id).expect("an entry exists as long as its readers");
                if let Some(found) = found(&entry.hashing) {
                    return Ok(found);
                }
                if let Some(failure) = entry.hashing.failure.take() {
                    return Err(failure);
                }
                reader.source_cache.start_hashing(&mut entry.hashing, reader.id);
            }
            moved.await;
        }
    }

    /// Returns the digests of the whole file and of its chunks, read from the disk and not from the cache.
    ///
    /// # Errors
    /// As [`digest`](Self::digest).
    pub async fn read_again(&self, chunk_size: u64) -> Result<FileDigests, DiskError> {
        let identity = self.0.identity.clone();
        let disk = self.0.source_cache.disk(&identity);
        let permit = disk.permit().await?;
        let (read, whole) = (identity.clone(), identity.whole());
        let mut reading = spawn_blocking(move || {
            let _permit = permit;
            let file = read.open()?;
            let digests = hash_chunks(&file, chunk_size)?;
            read.check(&file)?;
            Ok(digests)
        });
        loop {
            tokio::select! {
                read = &mut reading => return read.map_err(|error| broken("read", error))?,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            // The read may take long, so a separate call checks whether the disk responds at all.
            let path = whole.clone();
            let look = move || {
                // Any answer, even an error, shows that the disk responds.
                let _ = std::fs::symlink_metadata(path);
                Ok(())
            };
            disk.call("read the status of", look).await?;
        }
    }

    /// Makes the next open of this source read the file again. Call it when the file changed although its metadata did
    /// not.
    pub fn forget(&self) {
        self.0.source_cache.table().forget(&self.0.identity);
    }
}
