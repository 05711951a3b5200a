//! Read once, fan out: a source is read in blocks that all who send it share, and hashed on the way.
//!
//! A [`SourceCache`] is made once for the whole program and holds at most so many bytes of blocks. Who opens the same version of
//! the same source shares its blocks: whoever comes first reads one from the disk, the others find it in the cache or
//! wait for the read that is under way. A reader that falls too far behind reads again. The digest is made by a hasher
//! that is one more reader. After each read the stamp of the open file is compared: bytes of another version are never
//! handed out.
//!
//! Everything here may be dropped at any point. A read that was begun goes on without whoever asked for it, and its block
//! is there for the next. All that blocks happens on blocking threads, a bounded number for each location (see [`disks`]).

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

/// The size of a block in bytes, the last one of a file aside: enough to be worth the way to a thread, little enough for
/// many files at once.
pub const BLOCK: u64 = 512 << 10;
/// The part of the cache (one in so many) that a single file may take before anybody asked for it.
const PUT_BY: u64 = 4;

/// The sources that are being sent. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct SourceCache(Arc<Shared>);

struct Shared {
    table: Mutex<Table>,
    disks: Disks,
    bound: u64,
}

/// Somebody who is on the way to read; dropped when he reads, or won't.
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
    /// A feed that keeps at most `bound` bytes of blocks; those that readers still hold come on top.
    pub fn new(bound: u64) -> Self {
        Self(Arc::new(Shared { table: Mutex::new(Table::new(bound)), disks: Disks::default(), bound }))
    }

    /// Says that somebody will read who is only being connected to, when the program starts. Others who read the same then
    /// wait for a moment before they leave the cache behind; what they had read would have to be read again.
    pub fn arrival(&self) -> Arrival {
        Arrival { number: self.table().arrive(), source_cache: self.clone() }
    }

    /// Opens a version of a source for reading, through a link where `follow` says so. A source that is all at hand is not
    /// looked at again.
    ///
    /// # Errors
    /// [`DiskError::Changed`] when it is another version by now, [`DiskError::is_gone`] when nothing has the name,
    /// [`DiskError::NotAFile`] when no regular file has it.
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

    /// Whether a file of `size` bytes may be put by.
    pub(super) fn may_put_by(&self, size: u64) -> bool {
        size <= self.0.bound / PUT_BY
    }

    /// Puts the blocks of a small file by that was read just now, for as many readers as will come. Only room that nobody
    /// else needs is taken: of a thousand files the first ones stay, which are the first to be sent.
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

    /// A file was read past the feed and has this digest, although it may look unchanged: nothing read before counts.
    /// A version whose digest nobody knew yet has this one, and what was sent of it is measured by it.
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
        let entry = table.entry(source).expect("what is found or entered is there");
        entry.readers.insert(reader, Progress::new(Instant::now()));
        Source::new(self, source, reader, entry)
    }

    fn adopt(&self, source: SourceId, file: Arc<OpenSource>) {
        if let Some(entry) = self.table().entry(source).filter(|entry| !entry.readers.is_empty()) {
            entry.file.get_or_insert(file);
        }
    }

    /// A block of a source: from the cache, by the read that is under way, or from the disk.
    async fn block(&self, source: SourceId, index: u64, disk: &Arc<Disk>) -> Result<Bytes, DiskError> {
        loop {
            let place = self.table().place(source, index);
            match place {
                Place::Here(bytes) => return Ok(bytes),
                Place::Coming(mut coming) => {
                    // Where the read failed, each one sees for himself.
                    if let Ok(come) = disk.patiently(coming.wait_for(Option::is_some)).await? {
                        return Ok(come.clone().expect("it was waited for"));
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

    /// Reads a block on a blocking thread; `None` when somebody else does so by now.
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
        // Looked at after the read: bytes that belong to another version are not sent for nothing.
        identity.check(&file)?;
        self.adopt(source, file);
        Ok(bytes)
    }
}

type Reading = JoinHandle<Result<Bytes, DiskError>>;

/// A blocking thread that panicked, or that the end of the program kept from starting.
fn broken(act: &'static str, error: JoinError) -> DiskError {
    DiskError::io(act, Path::new("a source"), std::io::Error::other(error))
}

#[cfg(test)]
mod tests;
