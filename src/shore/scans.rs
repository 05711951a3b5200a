//! Schedules a directory's scans. One scan runs at a time, on a separate thread. Pauses between scans of the whole
//! directory leave time for other work.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Directory;
use super::known::Known;
use crate::fault::Fault;
use crate::local::{self, DiskError, Found, Hint, MountTable, Rules, Scan, Watcher};
use crate::names::RelPath;

/// Minimum pause between two scans of a whole directory, even if many events are lost.
const SPACING: Duration = Duration::from_secs(1);
/// Minimum pause after a scan of a whole directory, as a multiple of the scan's duration.
const SHARE: u32 = 4;
/// Maximum number of new directories scanned together.
const WALKS: usize = 64;
/// Capacity of the hint queue. If it is full, hints are dropped, and a rescan finds the changes.
const HINTS: usize = 16 * 1024;

/// The mount tables from before and after a scan; `None` if they could not be read.
pub(super) type MountTables = [Option<Arc<MountTable>>; 2];

/// Results of scans.
pub(super) struct Scanned {
    /// Scans of the whole location (`None`) or of a directory below it.
    pub(super) scans: Vec<(Option<RelPath>, Result<Scan, DiskError>)>,
    /// The versions that the ledger knew before a scan of the whole location; empty for other scans.
    pub(super) known: Known,
    pub(super) mounts: MountTables,
    /// Whether the location was no longer the watched directory, for example because it was replaced.
    pub(super) was_stale: bool,
    /// Error of the first directory that could not be watched; `None` if all directories are watched.
    pub(super) unwatched: Option<DiskError>,
    /// The watcher to use for the location after this scan.
    watcher: Option<Watcher>,
    begun: Instant,
}

impl Scanned {
    /// Returns whether the whole location was scanned.
    pub(super) fn is_whole(&self) -> bool {
        self.scans.iter().any(|(below, _)| below.is_none())
    }

    /// Returns the links to directories that the scans followed.
    pub(super) fn followed_links(&self) -> BTreeSet<RelPath> {
        let links = self.scans.iter().filter_map(|(_, scan)| Some(&scan.as_ref().ok()?.links));
        links.flatten().cloned().collect()
    }
}

/// The scans of one directory, and the watcher that reports changes between scans.
pub(super) struct Scans {
    running: JoinSet<Result<Scanned, Fault>>,
    /// When the next scan of the whole directory is wanted. `may_begin_at` is the earliest time at which it may start.
    wanted_at: Instant,
    may_begin_at: Instant,
    /// Directories below the location that wait to be scanned.
    walks: BTreeSet<RelPath>,
    watcher: Option<Watcher>,
    hints: mpsc::Sender<Hint>,
}

impl Scans {
    /// Creates the schedule; the first scan is due at once. The watcher's hints arrive at the returned receiver.
    pub(super) fn new() -> (Self, mpsc::Receiver<Hint>) {
        let (hints, receiver) = mpsc::channel(HINTS);
        let (running, walks, now) = (JoinSet::new(), BTreeSet::new(), Instant::now());
        (Self { running, wanted_at: now, may_begin_at: now, walks, watcher: None, hints }, receiver)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Returns whether directories below the location wait to be scanned.
    pub(super) fn has_walks(&self) -> bool {
        !self.walks.is_empty()
    }

    /// Returns when the next scan of the whole directory is due.
    pub(super) fn rescan_at(&self) -> Instant {
        self.wanted_at.max(self.may_begin_at)
    }

    /// Schedules the next scan of the whole directory after `wait`.
    pub(super) fn rescan_in(&mut self, wait: Duration) {
        self.wanted_at = Instant::now() + wait;
    }

    /// Schedules the scan of a directory that is new or was replaced.
    pub(super) fn walk(&mut self, path: RelPath) {
        self.walks.insert(path);
    }

    /// Returns the watcher of the location; `None` if the location is not watched.
    pub(super) fn watcher(&self) -> Option<Watcher> {
        self.watcher.clone()
    }

    /// Returns whether hints were dropped because the hint queue was full.
    pub(super) fn missed_events(&self) -> bool {
        self.watcher.as_ref().is_some_and(Watcher::missed)
    }

    /// Requests a rescan with new watches. Needed after events were lost, because watched directories may have been
    /// replaced unnoticed.
    pub(super) fn lose_events(&mut self) {
        self.forget_watches();
        self.wanted_at = Instant::now();
    }

    /// Forgets which directories are watched, because they may have been replaced; the next scan watches them again.
    pub(super) fn forget_watches(&self) {
        self.watcher.iter().for_each(Watcher::forget);
    }

    /// Stops watching because the location is missing.
    pub(super) fn stop_watching(&mut self) {
        self.watcher = None;
    }

    /// Stops watching everything below these paths.
    pub(super) fn leave(&self, paths: &[RelPath]) {
        let Some(watcher) = &self.watcher else { return };
        paths.iter().for_each(|path| watcher.leave(path));
    }

    /// Starts to scan the whole directory.
    pub(super) fn begin_rescan(&mut self, directory: &Arc<Directory>, rules: &Rules) {
        self.wanted_at = Instant::now() + directory.settings.rescan_interval;
        tracing::debug!(directory = %directory.settings.name, "Scanning the directory");
        self.begin(directory, rules, vec![None]);
    }

    /// Starts to scan waiting directories, if there are any.
    pub(super) fn begin_walks(&mut self, directory: &Arc<Directory>, rules: &Rules) {
        let walks = std::iter::from_fn(|| self.walks.pop_first()).filter(|path| rules.enters(path));
        let walks: Vec<_> = walks.take(WALKS).map(Some).collect();
        if !walks.is_empty() {
            self.begin(directory, rules, walks);
        }
    }

    /// Starts a scan. Each directory is watched before it is listed, so that no change is missed in between. A scan of
    /// the whole location first starts a new watcher if there is none or if the location was replaced. It leaves out
    /// entries that the ledger already knows.
    fn begin(&mut self, directory: &Arc<Directory>, rules: &Rules, below: Vec<Option<RelPath>>) {
        let (rules, mut watcher, begun) = (rules.clone(), self.watcher.clone(), Instant::now());
        let (is_whole, minds_owners) = (below.contains(&None), rules.minds_owners());
        let hints = is_whole.then(|| self.hints.clone());
        let (directory, witness) = (Arc::clone(directory), directory.writers.witness().clone());
        let work = move |mut known: Known| {
            let (mut unwatched, mut was_stale) = (None, false);
            if let Some(hints) = hints.filter(|_| watcher.as_ref().is_none_or(Watcher::is_stale)) {
                was_stale = watcher.take().is_some();
                match Watcher::start(rules.location(), rules.is_recursive(), hints, &witness) {
                    Ok(started) => watcher = Some(started),
                    Err(error) => unwatched = Some(error),
                }
            }
            let mounts = || MountTable::read(rules.location()).ok().map(Arc::new);
            let mounts_before = mounts();
            let mut scans = Vec::with_capacity(below.len());
            for below in below {
                let mut enter = |directory: &Path, inode| {
                    let entered = watcher.as_ref().map_or(Ok(()), |one| one.enter(directory, inode, below.is_some()));
                    if let Err(error) = entered {
                        unwatched.get_or_insert(error);
                    }
                };
                let mut is_known = |found: &Found| known.see(&found.path, &found.traits);
                let scan = local::scan(&rules, below.as_ref(), &mut enter, &mut is_known);
                scans.push((below, scan));
            }
            Scanned { scans, known, mounts: [mounts_before, mounts()], watcher, was_stale, unwatched, begun }
        };
        self.running.spawn(async move {
            let known = match is_whole {
                true => Known::read(&directory, minds_owners).await?,
                false => Known::nothing(minds_owners),
            };
            directory.on_disk(move || work(known)).await
        });
    }

    /// Waits for the result of the running scan; `None` if none is running.
    pub(super) async fn ended(&mut self) -> Option<Result<Scanned, Fault>> {
        let ended = self.running.join_next().await?;
        let mut ended = ended.unwrap_or_else(|e| Err(Fault::daemon(format_args!("a disk task failed: {e}"))));
        if let Ok(scanned) = &mut ended
            && scanned.is_whole()
        {
            self.may_begin_at = Instant::now() + SPACING.max(scanned.begun.elapsed() * SHARE);
            self.watcher = scanned.watcher.take();
        }
        Some(ended)
    }
}
