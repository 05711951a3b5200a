//! The table behind the cache's lock: open sources, their readers, and their cached blocks.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::BLOCK;
use super::cache::{Cache, Due, NEVER, SourceId};
use super::disks::OpenSource;
use super::hashing::Hashing;
use super::pace::Progress;
use crate::local::DiskError;
use crate::local::source::{SourceFile, wait_for_the_clock};
use crate::names::RelPath;
use crate::records::FileStamp;

/// Maximum number of sources without readers whose digest, complete or partial, is remembered.
const REMEMBERED: usize = 64;

/// How long readers wait for another reader whose vessel is still connecting when the program starts.
const ARRIVING: Duration = Duration::from_secs(5);

/// Some readers are announced when a file is taken in, before their vessels read it. This is the assumed time until such
/// a reader needs a block.
const TO_COME: Duration = Duration::from_secs(10);

/// One version of one source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) location: PathBuf,
    pub(super) path: RelPath,
    pub(super) stamp: FileStamp,
    /// Whether the file may be opened through a link.
    pub(super) follow: bool,
}

impl Identity {
    pub(super) fn whole(&self) -> PathBuf {
        self.location.join(self.path.as_path())
    }

    /// Returns the number of blocks.
    pub(super) fn blocks(&self) -> u64 {
        self.stamp.size.div_ceil(BLOCK)
    }

    /// Opens the file, which must still be this version. Blocks the calling thread.
    pub(super) fn open(&self) -> Result<SourceFile, DiskError> {
        let file = SourceFile::open(&self.location, &self.path, self.follow)?;
        wait_for_the_clock(&file)?;
        self.check(&file)?;
        Ok(file)
    }

    /// Fails when the file is another version by now. Blocks the calling thread.
    pub(super) fn check(&self, file: &SourceFile) -> Result<(), DiskError> {
        if file.stamp()? == self.stamp { Ok(()) } else { Err(DiskError::Changed { path: self.whole() }) }
    }
}

/// State that all handles of a source share.
pub(super) struct Entry {
    pub(super) identity: Arc<Identity>,
    pub(super) file: Option<Arc<OpenSource>>,
    pub(super) readers: HashMap<u64, Progress>,
    /// Number of readers that were announced at intake and have not finished yet.
    pub(super) expected: usize,
    /// Blocks that are being read from the disk, with the channels that receive their bytes.
    pub(super) coming: HashMap<u64, watch::Receiver<Option<Bytes>>>,
    pub(super) hashing: Hashing,
    /// Bytes of this source that were read from the disk.
    pub(super) read: u64,
    /// Notified whenever a reader or the hasher advances.
    pub(super) moved: Arc<Notify>,
}

impl Entry {
    /// Returns the number of microseconds until a block is needed; `None` when no reader will need it.
    fn needed_in(&self, index: u64) -> Option<u64> {
        let readers = self.readers.values().filter_map(|reader| reader.comes_in(index));
        let to_come = (self.expected > 0).then_some(TO_COME);
        let soonest = readers.chain(self.hashing.comes_in(index)).chain(to_come).min();
        soonest.map(|wait| u64::try_from(wait.as_micros()).unwrap_or(u64::MAX))
    }
}

/// The place of a block: in the cache, in a read in progress, or on the disk.
pub(super) enum Place {
    Here(Bytes),
    Coming(watch::Receiver<Option<Bytes>>),
    OnDisk,
}

/// All sources.
pub(super) struct Table {
    pub(super) cache: Cache,
    entries: HashMap<SourceId, Box<Entry>>,
    known: HashMap<Arc<Identity>, SourceId>,
    /// Sources that have neither readers nor cached blocks and whose digest is remembered, the oldest first.
    remembered: VecDeque<SourceId>,
    /// Readers whose vessels are still connecting, with their start times.
    arriving: HashMap<u64, Instant>,
    numbers: u64,
    began: Instant,
    /// Bytes read from the disk, of all sources since the program started.
    pub(super) bytes_read: u64,
}

impl Table {
    pub(super) fn new(bound: u64) -> Self {
        Self {
            cache: Cache::new(bound),
            entries: HashMap::new(),
            known: HashMap::new(),
            remembered: VecDeque::new(),
            arriving: HashMap::new(),
            numbers: 0,
            began: Instant::now(),
            bytes_read: 0,
        }
    }

    /// Returns the time on the cache's clock, in microseconds.
    pub(super) fn now(&self) -> Due {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Registers a reader whose vessel is still connecting, and returns the reader's number.
    pub(super) fn arrive(&mut self) -> u64 {
        let number = self.number();
        self.arriving.insert(number, Instant::now());
        number
    }

    /// Unregisters a reader that has arrived or will not arrive, and wakes the readers that wait for it.
    pub(super) fn arrived(&mut self, number: u64) {
        self.arriving.remove(&number);
        self.entries.values().for_each(|entry| entry.moved.notify_waiters());
    }

    /// Returns how much longer to wait for readers whose vessels are still connecting.
    pub(super) fn patience_with_arrivals(&self) -> Duration {
        let patience = self.arriving.values().map(|since| ARRIVING.saturating_sub(since.elapsed()));
        patience.max().unwrap_or_default()
    }

    fn due(&self, entry: &Entry, index: u64) -> Due {
        entry.needed_in(index).map_or(NEVER, |wait| self.now().saturating_add(wait))
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn entry(&mut self, source: SourceId) -> Option<&mut Entry> {
        self.entries.get_mut(&source).map(Box::as_mut)
    }

    pub(super) fn find(&self, identity: &Identity) -> Option<SourceId> {
        self.known.get(identity).copied()
    }

    /// Creates an entry for a source. An older entry with the same identity stays valid for its open readers, but is no
    /// longer found.
    pub(super) fn enter(&mut self, identity: Identity) -> SourceId {
        let (source, identity) = (self.number(), Arc::new(identity));
        self.forget(&identity);
        self.known.insert(identity.clone(), source);
        let entry = Entry {
            identity,
            file: None,
            readers: HashMap::new(),
            expected: 0,
            coming: HashMap::new(),
            hashing: Hashing::default(),
            read: 0,
            moved: Arc::default(),
        };
        self.entries.insert(source, Box::new(entry));
        source
    }

    /// Makes the next [`SourceCache::open`](super::SourceCache::open) of this source read it again.
    pub(super) fn forget(&mut self, identity: &Identity) {
        if let Some(source) = self.known.remove(identity) {
            self.cache.remove_all(source);
            self.tidy(source);
        }
    }

    pub(super) fn place(&self, source: SourceId, index: u64) -> Place {
        if let Some(bytes) = self.cache.get((source, index)) {
            return Place::Here(bytes);
        }
        // A sender that was dropped without a value means that the read failed.
        let coming = self.entries.get(&source).and_then(|entry| entry.coming.get(&index));
        match coming.filter(|coming| coming.borrow().is_some() || coming.has_changed().is_ok()) {
            Some(coming) => Place::Coming(coming.clone()),
            None => Place::OnDisk,
        }
    }

    /// Returns the block of this source that would be evicted if block `index` were read; `None` if no block or a block
    /// of another source would be evicted. Also returns `None` if `index` is in memory or being read, and a reader has
    /// passed it, because that reader has already waited; the hasher does not count here, because it reads ahead.
    pub(super) fn pushes_out(&self, source: SourceId, index: u64) -> Option<u64> {
        let (owner, out) = self.cache.next_out(BLOCK, self.now())?;
        let comes_first =
            || self.entries.get(&source)?.readers.values().all(|reader| !reader.has_passed(index)).then_some(());
        let is_new = || comes_first().is_some() || matches!(self.place(source, index), Place::OnDisk);
        (owner == source && is_new()).then_some(out)
    }

    /// Caches a block that was read, if its source still has readers or announced readers.
    pub(super) fn take(&mut self, source: SourceId, index: u64, bytes: Bytes) {
        let Some(entry) = self.entries.get(&source) else { return };
        if entry.readers.is_empty() && entry.expected == 0 {
            return;
        }
        let gone = self.cache.insert((source, index), bytes, self.due(entry, index), self.now());
        gone.into_iter().for_each(|source| self.tidy(source));
    }

    /// Records that a reader has read a block to its end.
    pub(super) fn pass(&mut self, source: SourceId, reader: u64, index: u64) {
        let Some(entry) = self.entries.get_mut(&source) else { return };
        if let Some(progress) = entry.readers.get_mut(&reader) {
            progress.passes(index, entry.hashing.done(), Instant::now());
        }
        self.revalue(source, index);
    }

    /// Updates when a block is needed next, and wakes the tasks that wait for progress.
    pub(super) fn revalue(&mut self, source: SourceId, index: u64) {
        let Some(entry) = self.entries.get(&source) else { return };
        self.cache.expect((source, index), self.due(entry, index));
        entry.moved.notify_waiters();
    }

    /// Removes a reader. When the last reader is removed, closes the file, and drops its blocks unless readers that
    /// were announced at intake still need them.
    pub(super) fn close(&mut self, source: SourceId, reader: u64) {
        let Some(entry) = self.entries.get_mut(&source) else { return };
        if entry.readers.remove(&reader).is_some_and(|progress| progress.has_begun()) {
            entry.expected = entry.expected.saturating_sub(1);
        }
        if !entry.readers.is_empty() {
            return;
        }
        let identity = &entry.identity;
        let (file, bytes) = (&identity.path, identity.stamp.size);
        tracing::debug!(%file, bytes, read = entry.read, read_in_all = self.bytes_read, "Source closed");
        entry.file = None;
        entry.hashing.pause();
        entry.hashing.forget_signature();
        if entry.expected == 0 {
            self.cache.remove_all(source);
        }
        self.tidy(source);
    }

    /// Drops the entry of a source that has neither readers nor cached blocks. If the source was hashed, keeps the
    /// entry for its digest until [`REMEMBERED`] newer entries follow.
    pub(super) fn tidy(&mut self, source: SourceId) {
        let Some(entry) = self.entries.get(&source) else { return };
        if !entry.readers.is_empty() || self.cache.holds_any(source) {
            return;
        }
        let mut dropped = Some(source);
        if entry.hashing.has_begun() && self.find(&entry.identity) == Some(source) {
            self.remembered.retain(|other| *other != source);
            self.remembered.push_back(source);
            dropped = if self.remembered.len() > REMEMBERED { self.remembered.pop_front() } else { None };
        }
        if let Some(source) = dropped
            && self.entries.get(&source).is_some_and(|entry| entry.readers.is_empty())
            && let Some(entry) = self.entries.remove(&source)
            && self.find(&entry.identity) == Some(source)
        {
            self.known.remove(&entry.identity);
        }
    }
}
