//! Watches over one directory: hints and scans in, ledger entries out.
//!
//! Hints only say where to look; the scan is the truth, so a lost hint costs a delay and never a file. One loop, which
//! never reads a file itself and never sleeps on anything but its own timer.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Directory;
use super::deletions::Deletions;
use super::intake::{self, Batch};
use super::interval::Interval;
use super::mounts::Mounted;
use super::scans::Scans;
use super::settle::Settling;
use super::troubles::Concern;
use crate::fault::Fault;
use crate::local::{DiskError, Hint, Kind, Rules, Watcher};
use crate::names::RelPath;
use crate::records::NewVersion;

/// Batches that are read at once: large files leave room for small ones to overtake them.
const BATCHES: usize = 3;
/// Hints that wait for us; when there are more, a rescan finds the rest.
const HINTS: usize = 16 * 1024;
/// Directories and links that are entered at once.
const THINGS: usize = 1024;
/// How soon a location that is missing is looked for again.
pub(super) const LOOK_FOR_LOCATION: Duration = Duration::from_secs(2);
/// How soon a file that couldn't be read is tried again at first, and at last.
const READ_SOON: Duration = Duration::from_secs(2);
const READ_AGAIN: Duration = Duration::from_secs(30);
/// How long a single run (`--once`) waits for files that go on changing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Watches over a directory until it is stopped.
///
/// # Errors
/// A [`Fault`] of the daemon's when the ledger can't be used. Trouble with the directory itself is logged and tried again.
pub async fn ingest(directory: Directory) -> Result<(), Fault> {
    let stop = directory.stop.clone();
    // Elsewhere it is done before anything retires.
    if directory.settings.is_mirror() {
        stop.run_until_cancelled(directory.tidy_up()).await.unwrap_or(Ok(()))?;
    }
    let mut ingest = DirectoryIngest::new(Arc::new(directory));
    let ended = stop.run_until_cancelled(ingest.run()).await.unwrap_or(Ok(()));
    // Once this task has ended, nothing is entered any more for the vessels that it was given.
    ingest.batches.shutdown().await;
    ended
}

pub(super) struct DirectoryIngest {
    pub(super) directory: Arc<Directory>,
    pub(super) rules: Rules,
    pub(super) watcher: Option<Watcher>,
    /// Whether the location was away or replaced, and something has been missing in it since.
    pub(super) displaced: bool,
    hints: mpsc::Receiver<Hint>,
    pub(super) hint_sender: mpsc::Sender<Hint>,
    pub(super) settling: Settling,
    /// Finished, waiting to be read.
    ready: VecDeque<RelPath>,
    /// How many of them the gate has let pass.
    passed: usize,
    /// Directories and links, waiting to be entered.
    pub(super) things: BTreeMap<RelPath, NewVersion>,
    /// Gone, waiting to be entered so.
    pub(super) deletions: Deletions,
    /// Directories that are to be looked through.
    pub(super) walks: BTreeSet<RelPath>,
    /// Waiting or being read: a hint for one of them must wait too.
    pub(super) busy: HashSet<RelPath>,
    /// Hints that came while their path was busy.
    pub(super) again: HashSet<RelPath>,
    pub(super) interval: Interval,
    batches: JoinSet<Result<Batch, Fault>>,
    pub(super) scans: Scans,
    pub(super) rescan_at: Instant,
    started: Instant,
    pub(super) scanned: bool,
    /// Whether the location can't be read.
    pub(super) away: bool,
    pub(super) mounted: Mounted,
    /// How often files couldn't be read in a row.
    pub(super) unreadable: HashMap<RelPath, u32>,
    pub(super) skipped: HashMap<RelPath, Kind>,
    /// Why nothing is taken in for now, and what of it was passed on.
    no_room: watch::Receiver<Option<String>>,
    said_of_room: Option<String>,
}

impl DirectoryIngest {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        let (hint_sender, hints) = mpsc::channel(HINTS);
        let (settings, no_room) = (&directory.settings, directory.no_room.clone());
        Self {
            settling: Settling::new(settings.settle_time.max(settings.min_age)),
            rules: Rules::new(settings),
            interval: Interval::new(settings.interval),
            displaced: directory.relocated,
            directory,
            watcher: None,
            hints,
            hint_sender,
            ready: VecDeque::new(),
            passed: 0,
            things: BTreeMap::new(),
            deletions: Deletions::default(),
            walks: BTreeSet::new(),
            busy: HashSet::new(),
            again: HashSet::new(),
            batches: JoinSet::new(),
            scans: Scans::new(),
            rescan_at: Instant::now(),
            started: Instant::now(),
            scanned: false,
            away: false,
            mounted: Mounted::default(),
            unreadable: HashMap::new(),
            skipped: HashMap::new(),
            no_room,
            said_of_room: None,
        }
    }

    async fn run(&mut self) -> Result<(), Fault> {
        loop {
            if self.watcher.as_ref().is_some_and(Watcher::missed) {
                self.lose_events();
            }
            self.begin_scans();
            self.look_at(self.settling.due(Instant::now())).await?;
            if self.has_room() {
                self.let_go().await?;
                self.let_pass().await?;
                self.start_batches();
            }
            self.announce();
            let wake_at = self.wake_at();
            tokio::select! {
                Some(hint) = self.hints.recv() => self.take_hints(hint).await?,
                Some(ended) = self.scans.ended() => self.end_scans(ended?).await?,
                Some(batch) = self.batches.join_next() => self.end_batch(batch).await?,
                Ok(()) = self.no_room.changed() => {}
                paths = self.directory.recheck.asked() => self.look_at(paths).await?,
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
        }
    }

    /// Begins to look through the directory, or through new ones below it, unless a scan is running.
    fn begin_scans(&mut self) {
        // At start, what was found missing is dealt with first: another scan would find it again, and again.
        let first_deletions = self.scanned && !*self.directory.taken_in.borrow() && !self.deletions.is_empty();
        if !self.scans.is_idle() || first_deletions {
            return;
        }
        if self.scans.may_begin_at(self.rescan_at) <= Instant::now() {
            self.begin_rescan();
        } else {
            self.begin_walks();
        }
    }

    /// Whether the ledger has room for more. Without, what comes waits here, and the directory says why.
    fn has_room(&mut self) -> bool {
        let why = self.no_room.borrow_and_update().clone();
        if why != self.said_of_room {
            match &why {
                Some(why) => self.directory.trouble_with(Concern::Room, why),
                None => self.directory.mended(|concern| *concern == Concern::Room),
            }
            self.said_of_room = why;
        }
        self.said_of_room.is_none()
    }

    /// When there is something to do without anything happening.
    fn wake_at(&self) -> Instant {
        // A hint that found no room has no successor to report it.
        let soon = Instant::now() + Duration::from_secs(5);
        let soon = if self.scans.is_idle() { soon.min(self.scans.may_begin_at(self.rescan_at)) } else { soon };
        if self.said_of_room.is_some() {
            return self.settling.next_look().into_iter().fold(soon, Instant::min);
        }
        let waits = !self.things.is_empty() || !self.deletions.is_empty() || self.ready.len() > self.passed;
        let gate = self.interval.opens_at().filter(|_| waits);
        let deletions = self.deletions.due_at().map(|due| gate.map_or(due, |gate| gate.max(due)));
        let passing = gate.filter(|_| !self.things.is_empty() || self.ready.len() > self.passed);
        [self.settling.next_look(), deletions, passing].into_iter().flatten().fold(soon, Instant::min)
    }

    /// Says, once, that what was there at start is in the ledger.
    fn announce(&self) {
        let settled =
            self.settling.is_empty() || self.started.elapsed() > PATIENCE + self.directory.settings.settle_time;
        let idle = self.ready.is_empty()
            && self.batches.is_empty()
            && self.things.is_empty()
            && self.walks.is_empty()
            && self.scans.is_idle()
            && self.deletions.is_empty();
        // Where there is no room, a single run need not wait for some.
        let done = settled && idle || self.said_of_room.is_some();
        if self.scanned && done && !*self.directory.taken_in.borrow() {
            self.directory.taken_in.send_replace(true);
            self.directory.ring_vessels();
        }
    }

    /// Whether what is deleted here is to be deleted on the vessels.
    pub(super) fn repeats_deletions(&self) -> bool {
        self.directory.settings.is_mirror() && self.directory.settings.delete
    }

    /// Events were lost, and with them perhaps the news of which directories are still the ones that are watched.
    fn lose_events(&mut self) {
        self.watcher.iter().for_each(Watcher::forget);
        self.rescan_at = Instant::now();
    }

    pub(super) fn complain(&mut self, error: &DiskError) {
        self.directory.trouble_with(Concern::of(error), &error.fault().to_string());
    }

    /// A file can't be read: that is said, and how soon it is tried again.
    pub(super) fn complain_of_file(&mut self, path: &RelPath, error: &DiskError) -> Duration {
        self.directory.trouble_with(Concern::File(path.clone()), &error.fault().to_string());
        let failures = self.unreadable.entry(path.clone()).or_default();
        *failures = failures.saturating_add(1);
        READ_AGAIN.min(READ_SOON * 2_u32.saturating_pow(*failures - 1))
    }

    /// A file could be read, or is not there any more.
    pub(super) fn mend_file(&mut self, path: &RelPath) {
        if self.unreadable.remove(path).is_some() {
            self.directory.mended(|concern| matches!(concern, Concern::File(mended) if mended == path));
        }
    }

    pub(super) fn make_ready(&mut self, path: RelPath) {
        if self.busy.insert(path.clone()) {
            self.ready.push_back(path);
        } else {
            self.again.insert(path);
        }
    }

    async fn take_hints(&mut self, first: Hint) -> Result<(), Fault> {
        let mut next = Some(first);
        let mut gone = Vec::new();
        let mut taken = 0;
        while let Some(hint) = next {
            taken += 1;
            match hint {
                Hint::Rescan => self.lose_events(),
                Hint::Directory(path) => drop(self.walks.insert(path)),
                Hint::Finished(path) if self.rules.may_take(&path) => self.finish(path),
                Hint::Touched(path) if self.rules.may_take(&path) => self.settling.touched(path, Instant::now()),
                Hint::Finished(_) | Hint::Touched(_) => {}
                Hint::Gone(path) => gone.push(path),
            }
            // However fast hints come, the loop goes on.
            next = if taken < HINTS { self.hints.try_recv().ok() } else { None };
        }
        self.look_at(gone).await
    }

    /// A file was closed, or something was moved in.
    fn finish(&mut self, path: RelPath) {
        if self.directory.settings.min_age.is_zero() {
            self.settling.forget(&path);
            self.make_ready(path);
        } else {
            self.settling.touched(path, Instant::now());
        }
    }

    /// Lets what has collected go, where the interval says that it is time. What is there at start needs not wait.
    async fn let_pass(&mut self) -> Result<(), Fault> {
        if self.things.is_empty() && self.ready.len() <= self.passed {
            return Ok(());
        }
        if *self.directory.taken_in.borrow() && !self.interval.pass(Instant::now()) {
            return Ok(());
        }
        self.passed = self.ready.len();
        // Directories before what lies in them.
        let things: Vec<NewVersion> = std::mem::take(&mut self.things).into_values().collect();
        for some in things.chunks(THINGS) {
            self.enter(some).await?;
        }
        Ok(())
    }

    /// Enters versions in the ledger, for the vessels that take the directory.
    pub(super) async fn enter(&self, versions: &[NewVersion]) -> Result<(), Fault> {
        if self.directory.vessels.is_empty() { Ok(()) } else { intake::enter(&self.directory, versions).await }
    }

    /// Takes what is waiting to be read.
    pub(super) fn take_ready(&mut self) -> Vec<RelPath> {
        self.passed = 0;
        self.ready.drain(..).collect()
    }

    fn start_batches(&mut self) {
        // Nobody takes this directory: its files stay where they are, and unread.
        if self.directory.vessels.is_empty() {
            self.busy.clear();
            self.ready.clear();
            self.passed = 0;
        }
        while self.batches.len() < BATCHES && self.passed > 0 {
            let paths: Vec<_> = self.ready.drain(..intake::batch_size(self.passed)).collect();
            self.passed -= paths.len();
            self.batches.spawn(intake::take_in(self.directory.clone(), paths));
        }
    }

    /// Has files looked at again later that may be open for writing.
    fn wait_for_writers(&mut self, batch: &mut Batch) {
        let now = Instant::now();
        for path in &batch.paths {
            if !batch.open.contains(path) {
                self.settling.not_open(path);
            }
        }
        for path in batch.open.drain(..) {
            tracing::debug!(directory = %self.directory.settings.name, file = %path, "not finished: it is open for writing");
            self.settling.found_open(path, now);
        }
        for (path, left) in batch.unquiet.drain(..) {
            self.settling.look_in(path, left, now);
        }
        self.directory.writers.tidy();
    }

    async fn end_batch(&mut self, ended: Result<Result<Batch, Fault>, tokio::task::JoinError>) -> Result<(), Fault> {
        let mut batch = ended.map_err(|e| Fault::daemon(format_args!("intake: {e}")))??;
        for path in &batch.paths {
            self.busy.remove(path);
        }
        self.wait_for_writers(&mut batch);
        let mut failed: HashSet<RelPath> = batch.left.iter().cloned().collect();
        for path in batch.left.into_iter().rev() {
            if self.busy.insert(path.clone()) {
                self.ready.push_front(path);
                self.passed += 1;
            }
        }
        for path in batch.changing {
            self.settling.touched(path, Instant::now());
        }
        self.note_gone(batch.gone).await?;
        for (path, error) in batch.failed {
            failed.insert(path.clone());
            let wait = self.complain_of_file(&path, &error);
            self.settling.touched(path, Instant::now() + wait);
        }
        batch.paths.iter().filter(|path| !failed.contains(path)).for_each(|path| self.mend_file(path));
        let mut again: Vec<_> = batch.paths.into_iter().filter(|path| self.again.remove(path)).collect();
        again.extend(batch.others);
        self.look_at(again).await
    }
}
