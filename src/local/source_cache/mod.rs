//! Reads each source once for all vessels: readers share its blocks, and the source is hashed while it is read.
//!
//! The program has one [`SourceCache`], which holds blocks up to a limit in bytes. Readers of the same version share
//! its blocks: the first one reads a block from the disk, the others find it in the cache or wait for the read in
//! progress. A reader that falls too far behind reads the block again. The digest is computed by a hasher, which acts
//! as one more reader. The stamp of the open file is compared after each read, so bytes of another version are never
//! returned.
//!
//! Every future here may be dropped at any point. A read that has started continues without its caller, and its block
//! is cached for the next reader. Blocking calls run on blocking threads, a limited number for each location (see
//! [`disks`]).

mod cache;
mod disks;
mod hasher;
mod hashing;
mod pace;
mod source;
mod table;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::DiskError;
use crate::digest::Digest;
use crate::names::RelPath;
use crate::records::FileStamp;

use cache::SourceId;
use disks::{Disk, Disks, OpenSource};
use pace::Progress;
use table::{Identity, Place, Table};

pub use source::Source;

/// Block size in bytes; only the last block of a file may be shorter. Large enough to be worth a thread switch, small
/// enough to cache many files at once.
pub const BLOCK: u64 = 512 << 10;
/// A file is cached at intake, before a reader requests it, if its size is at most the cache size divided by this
/// number.
const AHEAD_DIVISOR: u64 = 4;

/// Cache of the sources that are being sent. Clones are cheap and share one cache.
#[derive(Clone)]
pub struct SourceCache(Arc<Shared>);

struct Shared {
    table: Mutex<Table>,
    disks: Disks,
    bound: u64,
}

/// Announces a reader whose vessel is still connecting. Drop it when the reader starts to read, or when it is clear
/// that the reader won't.
pub struct Arrival {
    number: u64,
    source_cache: SourceCache,
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.source_cache.table().arrived(self.number);
    }
}

impl SourceCache {
    /// Creates a cache of at most `bound` bytes of blocks. Evicted blocks that readers still hold are not counted.
    pub fn new(bound: u64) -> Self {
        Self(Arc::new(Shared { table: Mutex::new(Table::new(bound)), disks: Disks::default(), bound }))
    }

    /// Announces a reader whose vessel is still connecting when the program starts. Meanwhile, for at most 5 s, other
    /// readers wait before they evict blocks of the source that they read, so that the new reader finds these blocks in
    /// the cache.
    pub fn arrival(&self) -> Arrival {
        Arrival { number: self.table().arrive(), source_cache: self.clone() }
    }

    /// Opens a version of a source for reading, through a link if `follow` is set. If all its blocks are cached, the
    /// file is not opened.
    ///
    /// # Errors
    /// [`DiskError::Changed`] when the file is another version by now, [`DiskError::is_gone`] when the file is missing,
    /// [`DiskError::NotAFile`] when it is not a regular file.
    pub async fn open(
        &self,
        location: &Path,
        path: &RelPath,
        stamp: FileStamp,
        follow: bool,
    ) -> Result<Source, DiskError> {
        let identity = Identity { location: location.into(), path: path.clone(), stamp, follow };
        let opened = self.join(identity);
        let identity = opened.identity().clone();
        if !self.table().cache.holds_all(opened.id(), identity.blocks()) {
            let file = self.disk(&identity).call("open", move || identity.open().map(OpenSource::from)).await?;
            self.adopt(opened.id(), Arc::new(file));
        }
        Ok(opened)
    }

    /// Returns whether a file of `size` bytes may be cached at intake.
    pub(super) fn may_put_by(&self, size: u64) -> bool {
        size <= self.0.bound / AHEAD_DIVISOR
    }

    /// Caches the blocks of a small file that was just read at intake, for `readers` readers. Uses only space that no
    /// other source needs, so that of many files the first ones stay cached, because these are also sent first.
    pub(super) fn put_by(
        &self,
        location: &Path,
        path: &RelPath,
        stamp: FileStamp,
        follow: bool,
        blocks: Vec<Bytes>,
        readers: usize,
    ) {
        let mut table = self.table();
        let source = table.enter(Identity { location: location.into(), path: path.clone(), stamp, follow });
        let room = blocks.iter().map(|block| block.len() as u64).sum();
        let kept = readers > 0 && table.cache.has_room(room, table.now());
        if let Some(entry) = table.entry(source).filter(|_| kept) {
            entry.expected = readers;
        }
        for (index, block) in (0..).zip(blocks) {
            table.take(source, index, block);
        }
        table.tidy(source);
    }

    /// Records the digest of a file that was read outside the cache. Drops the file's cached blocks, because the file
    /// may have changed although its metadata did not. If the version has no digest yet, uploads of the version are
    /// verified against `digest`. If the version already has a different digest, the next open reads the file again.
    pub(super) fn rehashed(&self, location: &Path, path: &RelPath, stamp: FileStamp, follow: bool, digest: &Digest) {
        let identity = Identity { location: location.into(), path: path.clone(), stamp, follow };
        let mut table = self.table();
        let Some(source) = table.find(&identity) else { return };
        table.cache.remove_all(source);
        match table.entry(source) {
            Some(entry) if entry.hashing.digest.is_none() => {
                entry.hashing.settle(*digest);
                entry.moved.notify_waiters();
            }
            Some(entry) if entry.hashing.digest == Some(*digest) => {}
            _ => table.forget(&identity),
        }
    }

    /// Returns how many bytes were read from sources so far.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests measure it"))]
    pub fn bytes_read(&self) -> u64 {
        self.table().bytes_read
    }

    fn bound(&self) -> u64 {
        self.0.bound
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().expect("no code panics while it holds this lock")
    }

    fn disk(&self, identity: &Identity) -> Arc<Disk> {
        self.0.disks.of(&identity.location)
    }

    fn join(&self, identity: Identity) -> Source {
        let mut table = self.table();
        let source = table.find(&identity).unwrap_or_else(|| table.enter(identity));
        let reader = table.number();
        let entry = table.entry(source).expect("the entry was found or made in the line before");
        entry.readers.insert(reader, Progress::new(Instant::now()));
        Source::new(self, source, reader, entry)
    }

    fn adopt(&self, source: SourceId, file: Arc<OpenSource>) {
        if let Some(entry) = self.table().entry(source).filter(|entry| !entry.readers.is_empty()) {
            entry.file.get_or_insert(file);
        }
    }

    /// Returns a block of a source: from the cache, from the read in progress, or from the disk.
    async fn block(&self, source: SourceId, index: u64, disk: &Arc<Disk>) -> Result<Bytes, DiskError> {
        loop {
            let place = self.table().place(source, index);
            match place {
                Place::Here(bytes) => return Ok(bytes),
                Place::Coming(mut coming) => {
                    // If the other task's read failed, this reader reads the block itself, to get the error.
                    if let Ok(come) = disk.patiently(coming.wait_for(Option::is_some)).await? {
                        return Ok(come.clone().expect("`wait_for` returned because the value was set"));
                    }
                }
                Place::OnDisk => {
                    let permit = disk.permit().await?;
                    if let Some(reading) = self.start_reading(source, index, (disk, permit)) {
                        return disk.patiently(reading).await?.map_err(|error| broken("read", error))?;
                    }
                }
            }
        }
    }

    /// Starts to read a block on a blocking thread; `None` if another task has started to read it meanwhile.
    fn start_reading(
        &self,
        source: SourceId,
        index: u64,
        (disk, permit): (&Arc<Disk>, OwnedSemaphorePermit),
    ) -> Option<Reading> {
        let mut table = self.table();
        if !matches!(table.place(source, index), Place::OnDisk) {
            return None;
        }
        let (arrives, coming) = watch::channel(None);
        let entry = table.entry(source)?;
        entry.coming.insert(index, coming);
        let (file, identity) = (entry.file.clone(), entry.identity.clone());
        let (source_cache, call) = (self.clone(), disk.begin());
        Some(spawn_blocking(move || {
            let read = source_cache.read_block(source, file, &identity, index);
            drop(call);
            let mut table = source_cache.table();
            if let Some(entry) = table.entry(source) {
                entry.coming.remove(&index);
            }
            if let Ok(bytes) = &read {
                table.take(source, index, bytes.clone());
                arrives.send_replace(Some(bytes.clone()));
            }
            drop(permit);
            read
        }))
    }

    fn read_block(
        &self,
        source: SourceId,
        file: Option<Arc<OpenSource>>,
        identity: &Identity,
        index: u64,
    ) -> Result<Bytes, DiskError> {
        let file = match file {
            Some(file) => file,
            None => Arc::new(identity.open()?.into()),
        };
        let len = BLOCK.min(identity.stamp.size - index * BLOCK);
        let bytes = file.read_at(index * BLOCK, len as usize)?;
        {
            let mut table = self.table();
            table.bytes_read += len;
            if let Some(entry) = table.entry(source) {
                entry.read += len;
            }
        }
        // Checked after the read, so that bytes of another version are not returned.
        identity.check(&file)?;
        self.adopt(source, file);
        Ok(bytes)
    }
}

type Reading = JoinHandle<Result<Bytes, DiskError>>;

/// Converts the error of a blocking thread that panicked, or that could not start because the program ends.
fn broken(act: &'static str, error: JoinError) -> DiskError {
    DiskError::io(act, Path::new("a source"), std::io::Error::other(error))
}

#[cfg(test)]
mod tests;
