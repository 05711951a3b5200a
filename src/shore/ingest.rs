//! Ingests one directory: turns hints and scans into ledger entries.
//!
//! Hints from the watcher only say which paths to check. Scans find every change, so a lost hint delays a file but
//! never loses it. Ingest is one event loop; separate tasks read the files, so that a large file does not block the
//! loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Directory;
use super::admit::{self, Batch};
use super::deletions::{Deletions, Place};
use super::file_problems::FileProblems;
use super::interval::Interval;
use super::mounts::MountWatch;
use super::moves;
use super::pending::Pending;
use super::scans::Scans;
use super::settle::Settling;
use super::troubles::Concern;
use crate::fault::Fault;
use crate::local::{DiskError, Hint, Rules};
use crate::names::RelPath;
use crate::records::{NewVersion, Traits};

/// Maximum number of batches that are read concurrently, so that small files need not wait for large ones.
const BATCHES: usize = 3;
/// Maximum number of hints handled per pass of the loop.
const HINTS: usize = 16 * 1024;
/// Maximum number of versions recorded at once.
const VERSIONS: usize = 1024;
/// How long to wait before a location that can't be scanned is scanned again.
pub(super) const LOOK_FOR_LOCATION: Duration = Duration::from_secs(2);
/// How long a single run (`--once`) waits for files that keep changing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ingests the files of a directory until the directory is stopped.
///
/// # Errors
/// Returns a daemon-wide [`Fault`] if the ledger can't be used. The directory's own faults are logged and retried.
pub async fn ingest(directory: Directory) -> Result<(), Fault> {
    let stop = directory.stop.clone();
    // For other directories than mirrors, `retire()` tidies up before it moves files.
    if directory.settings.is_mirror() {
        stop.run_until_cancelled(directory.tidy_up()).await.unwrap_or(Ok(()))?;
    }
    let mut ingest = DirectoryIngest::new(Arc::new(directory));
    let ended = stop.run_until_cancelled(ingest.run()).await.unwrap_or(Ok(()));
    // No batch may outlive this task, because the batch would record versions for the vessels with which the task was
    // started.
    ingest.batches.shutdown().await;
    ended
}

/// The ingest of one directory. The loop is here; the handling of scan results is in `apply`.
pub(super) struct DirectoryIngest {
    pub(super) directory: Arc<Directory>,
    pub(super) rules: Rules,
    pub(super) scans: Scans,
    hints: mpsc::Receiver<Hint>,
    pub(super) settling: Settling,
    pub(super) pending: Pending,
    pub(super) deletions: Deletions,
    pub(super) mounts: MountWatch,
    pub(super) problems: FileProblems,
    interval: Interval,
    batches: JoinSet<Result<Batch, Fault>>,
    started: Instant,
    /// Whether a scan of the whole location has ended, successfully or not.
    pub(super) scanned: bool,
    /// How many of the latest scans in a row were discarded because mounts changed during the scan.
    pub(super) discarded: u32,
    /// Whether the last scan of the whole location failed.
    pub(super) away: bool,
    /// Whether the location was missing or replaced, and no scan since then has found all known paths.
    pub(super) displaced: bool,
    /// The reason why there is no disk space for new ledger entries; `None` if there is enough. `said_of_room` is the
    /// last value that was reported.
    low_space: watch::Receiver<Option<String>>,
    said_of_room: Option<String>,
}

impl DirectoryIngest {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        let (settings, low_space) = (&directory.settings, directory.low_space.clone());
        let (scans, hints) = Scans::new();
        Self {
            settling: Settling::new(settings.settle_time.max(settings.min_age)),
            rules: Rules::new(settings),
            interval: Interval::new(settings.interval),
            displaced: directory.relocated,
            directory,
            scans,
            hints,
            pending: Pending::default(),
            deletions: Deletions::default(),
            mounts: MountWatch::default(),
            problems: FileProblems::default(),
            batches: JoinSet::new(),
            started: Instant::now(),
            scanned: false,
            discarded: 0,
            away: false,
            low_space,
            said_of_room: None,
        }
    }

    async fn run(&mut self) -> Result<(), Fault> {
        loop {
            if self.scans.missed_events() {
                self.scans.lose_events();
            }
            self.begin_scans();
            self.look_at(self.settling.due(Instant::now())).await?;
            if self.has_room() {
                self.delete_due().await?;
                self.release().await?;
                self.start_batches();
            }
            self.announce();
            let wake_at = self.wake_at();
            tokio::select! {
                Some(hint) = self.hints.recv() => self.take_hints(hint).await?,
                Some(ended) = self.scans.ended() => self.end_scans(ended?).await?,
                Some(batch) = self.batches.join_next() => self.end_batch(batch).await?,
                Ok(()) = self.low_space.changed() => {}
                paths = self.directory.recheck.asked() => self.look_at(paths).await?,
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
        }
    }

    /// Starts a scan of the whole directory or, if none is due, of the waiting directories below it. Does nothing while
    /// a scan is running.
    fn begin_scans(&mut self) {
        // At start, missing paths are handled before another scan, because the scan would only find them again.
        let first_deletions = self.scanned && !*self.directory.taken_in.borrow() && !self.deletions.is_empty();
        if !self.scans.is_idle() || first_deletions {
            return;
        }
        if self.scans.rescan_at() <= Instant::now() {
            self.scans.begin_rescan(&self.directory, &self.rules);
        } else {
            self.scans.begin_walks(&self.directory, &self.rules);
        }
    }

    /// Returns whether there is disk space for more ledger entries. Reports when space runs out and when there is space
    /// again.
    pub(super) fn has_room(&mut self) -> bool {
        let why = self.low_space.borrow_and_update().clone();
        if why != self.said_of_room {
            match &why {
                Some(why) => self.directory.trouble_with(Concern::DiskSpace, why),
                None => self.directory.mended(|concern| *concern == Concern::DiskSpace),
            }
            self.said_of_room = why;
        }
        self.said_of_room.is_none()
    }

    /// Returns when the loop must wake up, even if no event arrives before.
    fn wake_at(&self) -> Instant {
        // If the hint queue is full, hints are dropped without waking the loop. So the loop checks for lost events at
        // least every 5 s.
        let soon = Instant::now() + Duration::from_secs(5);
        let soon = if self.scans.is_idle() { soon.min(self.scans.rescan_at()) } else { soon };
        if self.said_of_room.is_some() {
            return self.settling.next_look().into_iter().fold(soon, Instant::min);
        }
        let waits = self.pending.waits_for_interval();
        let interval = self.interval.opens_at().filter(|_| waits || !self.deletions.is_empty());
        let deletions = self
            .deletions
            .due_at()
            .filter(|_| !self.deletions_wait(Instant::now()))
            .map(|due| interval.map_or(due, |interval| interval.max(due)));
        let releasing = interval.filter(|_| waits);
        [self.settling.next_look(), deletions, releasing].into_iter().flatten().fold(soon, Instant::min)
    }

    /// Sets `taken_in` once all files present at start are in the ledger, or the wait for them has ended.
    fn announce(&self) {
        let settled =
            self.settling.is_empty() || self.started.elapsed() > PATIENCE + self.directory.settings.settle_time;
        let idle = self.pending.is_empty()
            && self.batches.is_empty()
            && !self.scans.has_walks()
            && self.scans.is_idle()
            && self.deletions.is_empty();
        // A single run (`--once`) doesn't wait for disk space.
        let done = settled && idle || self.said_of_room.is_some();
        if self.scanned && done && !*self.directory.taken_in.borrow() {
            self.directory.taken_in.send_replace(true);
            self.directory.ring_vessels();
        }
    }

    /// Returns whether deletions in the directory are repeated on the vessels.
    pub(super) fn repeats_deletions(&self) -> bool {
        self.directory.settings.is_mirror() && self.directory.settings.delete
    }

    pub(super) fn complain(&self, error: &DiskError) {
        self.directory.trouble_with(Concern::of(error), &error.fault().to_string());
    }

    async fn take_hints(&mut self, first: Hint) -> Result<(), Fault> {
        let mut next = Some(first);
        let mut gone = Vec::new();
        let mut taken = 0;
        while let Some(hint) = next {
            taken += 1;
            match hint {
                Hint::Rescan => self.scans.lose_events(),
                Hint::Directory(path) => self.scans.walk(path),
                Hint::Finished(path) if self.rules.may_take(&path) => self.finish(path),
                Hint::Touched(path) if self.rules.may_take(&path) => self.settling.touched(path, Instant::now()),
                Hint::Finished(_) | Hint::Touched(_) => {}
                Hint::Gone(path) => gone.push(path),
            }
            // The number of hints per pass is limited, so that the loop continues even under a stream of hints.
            next = if taken < HINTS { self.hints.try_recv().ok() } else { None };
        }
        self.look_at(gone).await
    }

    /// Handles a file that its writer has closed, or that was moved into the directory.
    fn finish(&mut self, path: RelPath) {
        if self.directory.settings.min_age.is_zero() {
            self.settling.forget(&path);
            self.pending.add_file(path);
        } else {
            self.settling.touched(path, Instant::now());
        }
    }

    /// Returns whether deletions wait until the found entries are recorded, because some of the missing paths may have
    /// been moved.
    fn deletions_wait(&self, now: Instant) -> bool {
        let is_busy = !self.scans.is_idle()
            || self.scans.has_walks()
            || !self.batches.is_empty()
            || (self.pending.released() > 0 && self.said_of_room.is_none());
        is_busy && moves::are_sought(&self.directory) && self.deletions.may_wait(now)
    }

    /// Handles the collected deletions if they are due and `Interval` permits it.
    async fn delete_due(&mut self) -> Result<(), Fault> {
        let now = Instant::now();
        let due = self.deletions.due_at().is_some_and(|at| at <= now) && !self.deletions_wait(now);
        if due && self.interval.opens_at().is_none_or(|at| at <= now) { self.delete().await } else { Ok(()) }
    }

    /// Checks the collected deletions once more and records those that are not held back.
    pub(super) async fn delete(&mut self) -> Result<(), Fault> {
        let mut paths = self.deletions.take();
        paths.retain(|path| !self.pending.note_if_busy(path));
        // A file that is being read may be recorded after the deletion of its directory. Then vessels would create the
        // directory again, and nothing would delete it.
        let (paths, wait) = self.pending.without_reading_below(paths);
        wait.into_iter().for_each(|path| self.deletions.note(path, Instant::now()));
        let place = Place { displaced: self.displaced, watcher: self.scans.watcher() };
        let confirmed = self.deletions.confirm(&self.directory, &self.rules, &mut self.mounts, place, paths).await?;
        self.look_at(confirmed.back).await?;
        // The entries that were found below these paths before this check no longer exist either.
        self.pending.remove_below(&confirmed.gone);
        // The paths are sorted with parents first. They are reversed, so that the entries of a directory are deleted
        // before the directory.
        let gone = confirmed.gone.into_iter().rev();
        let gone: Vec<_> = gone.map(|path| NewVersion::without_content(path, Traits::GONE, Vec::new())).collect();
        self.enter_with_parents(&gone).await
    }

    /// Releases the changes that wait for `Interval`, once it has passed. Files present at start are released at once.
    async fn release(&mut self) -> Result<(), Fault> {
        if !self.pending.waits_for_interval() {
            return Ok(());
        }
        if *self.directory.taken_in.borrow() && !self.interval.pass(Instant::now()) {
            return Ok(());
        }
        let others = self.pending.release();
        self.enter_with_parents(&others).await
    }

    /// Records versions like [`Self::enter`], together with their unknown parent directories.
    async fn enter_with_parents(&mut self, versions: &[NewVersion]) -> Result<(), Fault> {
        if self.directory.vessels.is_empty() {
            return Ok(());
        }
        let mut gone = Vec::new();
        for some in versions.chunks(VERSIONS) {
            gone.extend(admit::enter_with_parents(&self.directory, some.to_vec()).await?);
        }
        self.look_at(gone).await
    }

    /// Records versions in the ledger for the vessels that take the directory.
    pub(super) async fn enter(&self, versions: &[NewVersion]) -> Result<(), Fault> {
        if self.directory.vessels.is_empty() {
            return Ok(());
        }
        for some in versions.chunks(VERSIONS) {
            admit::enter(&self.directory, some).await?;
        }
        Ok(())
    }

    fn start_batches(&mut self) {
        // If no vessel takes this directory, its files stay where they are and are not read.
        if self.directory.vessels.is_empty() {
            self.pending.take_files();
        }
        while self.batches.len() < BATCHES && self.pending.released() > 0 {
            let paths = self.pending.take_batch(admit::BATCH_FILES);
            self.batches.spawn(admit::take_in(self.directory.clone(), paths));
        }
    }

    /// Schedules another check of files that may be open for writing.
    fn wait_for_writers(&mut self, batch: &mut Batch) {
        let now = Instant::now();
        for path in &batch.paths {
            if !batch.open.contains(path) {
                self.settling.not_open(path);
            }
        }
        for path in batch.open.drain(..) {
            tracing::debug!(
                directory = %self.directory.settings.name, file = %path,
                "Not taken in yet: the file is open for writing"
            );
            self.settling.found_open(path, now);
        }
        for (path, left) in batch.unquiet.drain(..) {
            self.settling.look_in(path, left, now);
        }
        self.directory.writers.tidy();
    }

    async fn end_batch(&mut self, ended: Result<Result<Batch, Fault>, tokio::task::JoinError>) -> Result<(), Fault> {
        let mut batch = ended.map_err(|e| Fault::daemon(format_args!("an ingest task failed: {e}")))??;
        self.pending.end_batch(&batch.paths);
        self.wait_for_writers(&mut batch);
        let unread =
            |path: &RelPath| batch.left.contains(path) || batch.failed.iter().any(|(failed, _)| failed == path);
        for path in batch.paths.iter().filter(|path| !unread(path)) {
            self.problems.solved(&self.directory, path);
        }
        self.pending.put_back(batch.left);
        for path in batch.changing {
            self.settling.touched(path, Instant::now());
        }
        self.note_gone(batch.gone).await?;
        for (path, error) in batch.failed {
            let wait = self.problems.unreadable(&self.directory, &path, &error);
            self.settling.touched(path, Instant::now() + wait);
        }
        let mut again = self.pending.take_changed(batch.paths);
        again.extend(batch.others);
        self.look_at(again).await
    }
}
