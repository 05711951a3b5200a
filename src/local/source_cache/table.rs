//! The table behind the feed's lock: which sources are open, who reads them, and what of them is at hand.

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

/// Sources that nobody has open whose hash, or what there is of it, is remembered.
const REMEMBERED: usize = 64;

/// How long those who read wait for one that is being connected to when the program starts.
const ARRIVING: Duration = Duration::from_secs(5);

/// How soon those come who are known to come, about.
const TO_COME: Duration = Duration::from_secs(10);

/// One version of one source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) location: PathBuf,
    pub(super) path: RelPath,
    pub(super) stamp: FileStamp,
    /// Whether it may be opened through a link.
    pub(super) follow: bool,
}

impl Identity {
    pub(super) fn whole(&self) -> PathBuf {
        self.location.join(self.path.as_path())
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> u64 {
        self.stamp.size.div_ceil(BLOCK)
    }

    /// Opens the file, which must still be this version. Blocks.
    pub(super) fn open(&self) -> Result<SourceFile, DiskError> {
        let file = SourceFile::open_with(&self.location, &self.path, self.follow)?;
        wait_for_the_clock(&file)?;
        self.check(&file)?;
        Ok(file)
    }

    /// Fails when the file is another version by now. Blocks.
    pub(super) fn check(&self, file: &SourceFile) -> Result<(), DiskError> {
        if file.stamp()? == self.stamp { Ok(()) } else { Err(DiskError::Changed { path: self.whole() }) }
    }
}

/// What all handles of a source share.
pub(super) struct Entry {
    pub(super) identity: Arc<Identity>,
    pub(super) file: Option<Arc<OpenSource>>,
    pub(super) readers: HashMap<u64, Progress>,
    /// Readers that are known to come.
    pub(super) expected: usize,
    /// Blocks that are being read from the disk.
    pub(super) coming: HashMap<u64, watch::Receiver<Option<Bytes>>>,
    pub(super) hashing: Hashing,
    /// Bytes read from the disk.
    pub(super) read: u64,
    /// Told whenever somebody has come further.
    pub(super) moved: Arc<Notify>,
}

impl Entry {
    /// In how many microseconds a block will be needed; `None` when nobody will come for it.
    fn needed_in(&self, index: u64) -> Option<u64> {
        let readers = self.readers.values().filter_map(|reader| reader.comes_in(index));
        let to_come = (self.expected > 0).then_some(TO_COME);
        let soonest = readers.chain(self.hashing.comes_in(index)).chain(to_come).min();
        soonest.map(|wait| u64::try_from(wait.as_micros()).unwrap_or(u64::MAX))
    }
}

/// Where a block is.
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
    /// Entries that nobody has open and that have no block at hand, the oldest first.
    remembered: VecDeque<SourceId>,
    /// Who is being connected to, and since when.
    arriving: HashMap<u64, Instant>,
    numbers: u64,
    began: Instant,
    /// Bytes read from the disk, of all sources that ever were.
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

    /// The cache's clock.
    pub(super) fn now(&self) -> Due {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Notes that somebody is on his way; gives him a number.
    pub(super) fn arrive(&mut self) -> u64 {
        let number = self.number();
        self.arriving.insert(number, Instant::now());
        number
    }

    /// He has come, or won't.
    pub(super) fn arrived(&mut self, number: u64) {
        self.arriving.remove(&number);
        self.entries.values().for_each(|entry| entry.moved.notify_waiters());
    }

    /// How long those who are on their way are still worth waiting for.
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

    /// Enters a source; one of the same identity goes on for those who have it open, and is not found any more.
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

    /// Makes sure that whoever opens this source next reads it anew.
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
        // A sender that is gone without a value has failed.
        let coming = self.entries.get(&source).and_then(|entry| entry.coming.get(&index));
        match coming.filter(|coming| coming.borrow().is_some() || coming.has_changed().is_ok()) {
            Some(coming) => Place::Coming(coming.clone()),
            None => Place::OnDisk,
        }
    }

    /// The block of the same source that has to go for this one; `None` while nothing has to go, or another reader has
    /// paid for this one already. What the hasher has read ahead was read for the first that comes, who has to wait for it.
    pub(super) fn pushes_out(&self, source: SourceId, index: u64) -> Option<u64> {
        let (owner, out) = self.cache.next_out(BLOCK, self.now())?;
        let comes_first =
            || self.entries.get(&source)?.readers.values().all(|reader| !reader.has_passed(index)).then_some(());
        let is_new = || comes_first().is_some() || matches!(self.place(source, index), Place::OnDisk);
        (owner == source && is_new()).then_some(out)
    }

    /// Takes in a block that was read, unless nobody has its source open any more.
    pub(super) fn take(&mut self, source: SourceId, index: u64, bytes: Bytes) {
        let Some(entry) = self.entries.get(&source) else { return };
        if entry.readers.is_empty() && entry.expected == 0 {
            return;
        }
        let gone = self.cache.insert((source, index), bytes, self.due(entry, index), self.now());
        gone.into_iter().for_each(|source| self.tidy(source));
    }

    /// A reader has read a block to its end.
    pub(super) fn pass(&mut self, source: SourceId, reader: u64, index: u64) {
        let Some(entry) = self.entries.get_mut(&source) else { return };
        if let Some(progress) = entry.readers.get_mut(&reader) {
            progress.passes(index, entry.hashing.done(), Instant::now());
        }
        self.revalue(source, index);
    }

    /// Notes that a block was used, and tells those who wait for that.
    pub(super) fn revalue(&mut self, source: SourceId, index: u64) {
        let Some(entry) = self.entries.get(&source) else { return };
        self.cache.expect((source, index), self.due(entry, index));
        entry.moved.notify_waiters();
    }

    /// Ends a reader; the last one takes the open file and the blocks along, but those that others will come for.
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
        entry.hashing.forget_outline();
        if entry.expected == 0 {
            self.cache.remove_all(source);
        }
        self.tidy(source);
    }

    /// Drops an entry that nobody has open and nothing is at hand of; the latest that were hashed are remembered.
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
