//! Watches over one directory: hints and scans in, ledger entries out.
//!
//! Hints only say where to look; the scan is the truth, so a lost hint costs a delay and never a file. One loop, which
//! never reads a file itself and never sleeps on anything but its own timer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Directory;
use super::intake::{self, Batch};
use super::settle::{Judgement, Settling};
use crate::fault::Fault;
use crate::local::{self, DiskError, Hint, Kind, Look, Scan, Watcher};
use crate::monitor::Event;
use crate::names::RelPath;
use crate::records::FileStamp;

/// Batches that are read at once: large files leave room for small ones to overtake them.
const BATCHES: usize = 3;
/// Hints that wait for us; when there are more, a rescan finds the rest.
const HINTS: usize = 16 * 1024;
/// How soon a location that is missing is looked for again.
const LOOK_FOR_LOCATION: Duration = Duration::from_secs(2);
/// How soon a file that couldn't be read is tried again.
const READ_AGAIN: Duration = Duration::from_secs(30);
/// How long a single run (`--once`) waits for files that go on changing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Watches over a directory until it is stopped.
///
/// # Errors
/// A [`Fault`] of the daemon's when the ledger can't be used. Trouble with the directory itself is logged and tried again.
pub async fn watch_over(directory: Directory) -> Result<(), Fault> {
    let stop = directory.stop.clone();
    let mut overseer = Overseer::new(Arc::new(directory));
    stop.run_until_cancelled(overseer.run()).await.unwrap_or(Ok(()))
}

struct Overseer {
    directory: Arc<Directory>,
    watcher: Option<Watcher>,
    hints: mpsc::Receiver<Hint>,
    hint_sender: mpsc::Sender<Hint>,
    settling: Settling,
    /// Finished, waiting to be read.
    ready: VecDeque<RelPath>,
    /// Waiting or being read: a hint for one of them must wait too.
    busy: HashSet<RelPath>,
    /// Hints that came while their path was busy.
    again: HashSet<RelPath>,
    batches: JoinSet<Result<Batch, Fault>>,
    rescan_at: Instant,
    started: Instant,
    scanned: bool,
    /// Whether the location can't be read.
    away: bool,
    /// What was said already: trouble is logged once, not with every scan.
    complained: HashSet<String>,
    skipped: HashMap<RelPath, Kind>,
}

impl Overseer {
    fn new(directory: Arc<Directory>) -> Self {
        let (hint_sender, hints) = mpsc::channel(HINTS);
        Self {
            settling: Settling::new(directory.settings.settle_time),
            directory,
            watcher: None,
            hints,
            hint_sender,
            ready: VecDeque::new(),
            busy: HashSet::new(),
            again: HashSet::new(),
            batches: JoinSet::new(),
            rescan_at: Instant::now(),
            started: Instant::now(),
            scanned: false,
            away: false,
            complained: HashSet::new(),
            skipped: HashMap::new(),
        }
    }

    async fn run(&mut self) -> Result<(), Fault> {
        loop {
            if self.rescan_at <= Instant::now() || self.watcher.as_ref().is_some_and(Watcher::missed) {
                self.rescan().await?;
            }
            self.look_at_due().await?;
            self.start_batches();
            self.announce();
            let wake = self.settling.next_look().map_or(self.rescan_at, |look| look.min(self.rescan_at));
            // A hint that found no room has no successor to report it.
            let wake = wake.min(Instant::now() + Duration::from_secs(5));
            tokio::select! {
                Some(hint) = self.hints.recv() => self.take_hints(hint).await?,
                Some(batch) = self.batches.join_next() => self.end_batch(batch).await?,
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// Says, once, that what was there at start is in the ledger.
    fn announce(&self) {
        let settled =
            self.settling.is_empty() || self.started.elapsed() > PATIENCE + self.directory.settings.settle_time;
        let idle = self.ready.is_empty() && self.batches.is_empty();
        if self.scanned && settled && idle && !*self.directory.taken_in.borrow() {
            self.directory.taken_in.send_replace(true);
            self.directory.ring_vessels();
        }
    }

    async fn rescan(&mut self) -> Result<(), Fault> {
        self.rescan_at = Instant::now() + self.directory.settings.rescan_interval;
        if let Err(e) = self.rewatch() {
            self.complain(&e);
        }
        let settings = self.directory.settings.clone();
        match blocking(move || local::scan(&settings.location, &settings.ignore_names)).await? {
            Ok(scan) => self.compare(scan).await?,
            Err(e) => {
                self.complain(&e);
                self.away = true;
                self.watcher = None;
                self.rescan_at = Instant::now() + LOOK_FOR_LOCATION.min(self.directory.settings.rescan_interval);
            }
        }
        self.scanned = true;
        Ok(())
    }

    /// Watches before it scans, so that nothing falls between the two.
    fn rewatch(&mut self) -> Result<(), DiskError> {
        if self.watcher.as_ref().is_some_and(|watcher| !watcher.is_stale()) {
            return Ok(());
        }
        self.watcher = None;
        self.watcher = Some(Watcher::start(&self.directory.settings.location, self.hint_sender.clone())?);
        Ok(())
    }

    fn complain(&mut self, error: &DiskError) {
        let fault = error.fault().to_string();
        if self.complained.insert(fault.clone()) {
            let name = &self.directory.settings.name;
            tracing::error!(directory = %name, "{fault}");
            self.directory.monitor.notice(&Event::DirectoryAway { directory: name, reason: &fault });
            self.directory.trouble.send_replace(Some(fault));
        }
    }

    /// Compares what lies there with what the ledger knows.
    async fn compare(&mut self, scan: Scan) -> Result<(), Fault> {
        if self.away {
            self.away = false;
            self.complained.clear();
            self.directory.trouble.send_replace(None);
            tracing::info!(directory = %self.directory.settings.name, "the directory can be used again");
        }
        self.mention_skipped(&scan);
        let name = &self.directory.settings.name;
        let known = self.directory.ledger.current(name).await.map_err(|e| e.fault())?;
        let mut known: HashMap<RelPath, FileStamp> = known.into_iter().map(|v| (v.path, v.stamp)).collect();
        for found in scan.files {
            if known.remove(&found.path) != Some(found.stamp) {
                self.judge(found.path, found.stamp);
            }
        }
        for path in known.into_keys() {
            self.look_at(path).await?;
        }
        Ok(())
    }

    fn mention_skipped(&mut self, scan: &Scan) {
        for skipped in &scan.skipped {
            if self.skipped.insert(skipped.path.clone(), skipped.kind) != Some(skipped.kind) {
                self.mention(&skipped.path, skipped.kind);
            }
        }
    }

    fn mention(&self, path: &RelPath, kind: Kind) {
        tracing::warn!(directory = %self.directory.settings.name, file = %path, "left alone: it is a {kind}");
    }

    fn judge(&mut self, path: RelPath, stamp: FileStamp) {
        let today = self.directory.clock.now();
        if self.busy.contains(&path) {
            self.again.insert(path);
        } else if self.settling.judge(&path, stamp, Instant::now(), today) == Judgement::Finished {
            self.make_ready(path);
        }
    }

    fn make_ready(&mut self, path: RelPath) {
        if self.busy.insert(path.clone()) {
            self.ready.push_back(path);
        } else {
            self.again.insert(path);
        }
    }

    async fn take_hints(&mut self, first: Hint) -> Result<(), Fault> {
        let mut next = Some(first);
        let mut gone = Vec::new();
        while let Some(hint) = next {
            match hint {
                Hint::Rescan => self.rescan_at = Instant::now(),
                Hint::Finished(path) if !self.is_ignored(&path) => {
                    self.settling.forget(&path);
                    self.make_ready(path);
                }
                Hint::Touched(path) if !self.is_ignored(&path) => self.settling.touched(path, Instant::now()),
                Hint::Finished(_) | Hint::Touched(_) => {}
                Hint::Gone(path) => gone.push(path),
            }
            next = self.hints.try_recv().ok();
        }
        for path in gone {
            self.look_at(path).await?;
        }
        Ok(())
    }

    fn is_ignored(&self, path: &RelPath) -> bool {
        local::ignored(&self.directory.settings.ignore_names, path)
    }

    async fn look_at_due(&mut self) -> Result<(), Fault> {
        for path in self.settling.due(Instant::now()) {
            self.look_at(path).await?;
        }
        Ok(())
    }

    /// Looks what a path is now, and does what follows.
    async fn look_at(&mut self, path: RelPath) -> Result<(), Fault> {
        match local::look(&self.directory.settings.location, &path) {
            Ok(Look::File { stamp, .. }) => {
                let name = &self.directory.settings.name;
                let known = self.directory.ledger.current_at(name, &path).await.map_err(|e| e.fault())?;
                if known.map(|version| version.stamp) == Some(stamp) {
                    self.settling.forget(&path);
                } else {
                    self.judge(path, stamp);
                }
            }
            Ok(Look::Gone) => self.note_gone(path).await?,
            Ok(Look::NotAFile(kind)) => {
                self.settling.forget(&path);
                if kind != Kind::Directory && self.skipped.insert(path.clone(), kind) != Some(kind) {
                    self.mention(&path, kind);
                }
                self.note_gone(path).await?;
            }
            Err(e) => {
                self.settling.forget(&path);
                self.complain(&e);
            }
        }
        Ok(())
    }

    async fn note_gone(&mut self, path: RelPath) -> Result<(), Fault> {
        self.settling.forget(&path);
        self.skipped.remove(&path);
        let name = &self.directory.settings.name;
        let dropped = self.directory.ledger.vanished(name, std::slice::from_ref(&path)).await.map_err(|e| e.fault())?;
        if dropped > 0 {
            tracing::info!(directory = %name, file = %path, "the source is gone before it was delivered everywhere");
            self.directory.ring_vessels();
        }
        Ok(())
    }

    fn start_batches(&mut self) {
        // Nobody takes this directory: its files stay where they are, and unread.
        if self.directory.vessels.is_empty() {
            self.busy.clear();
            self.ready.clear();
        }
        while self.batches.len() < BATCHES && !self.ready.is_empty() {
            let paths = self.ready.drain(..intake::batch_size(self.ready.len())).collect();
            self.batches.spawn(intake::take_in(self.directory.clone(), paths));
        }
    }

    async fn end_batch(&mut self, ended: Result<Result<Batch, Fault>, tokio::task::JoinError>) -> Result<(), Fault> {
        let batch = ended.map_err(|e| Fault::daemon(format_args!("intake: {e}")))??;
        for path in &batch.paths {
            self.busy.remove(path);
        }
        for path in batch.left.into_iter().rev() {
            if self.busy.insert(path.clone()) {
                self.ready.push_front(path);
            }
        }
        for path in batch.changing {
            self.settling.touched(path, Instant::now());
        }
        for path in batch.gone {
            self.note_gone(path).await?;
        }
        for (path, error) in batch.failed {
            self.complain(&error);
            self.settling.touched(path, Instant::now() + READ_AGAIN);
        }
        let again: Vec<RelPath> = batch.paths.into_iter().filter(|path| self.again.remove(path)).collect();
        for path in again {
            self.look_at(path).await?;
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Fault::daemon(format_args!("looking at the disk: {e}")))
}
