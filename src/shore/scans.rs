//! Scans: when the next one is due, and the one under way, on a thread of its own. One runs at a time, and never so often that
//! nothing else is done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Directory;
use crate::fault::Fault;
use crate::local::{self, DiskError, Hint, Rules, Scan, Watcher};
use crate::names::RelPath;

/// The least pause between two scans of a whole directory, however many events are lost.
const SPACING: Duration = Duration::from_secs(1);
/// The pause is at least so many times as long as the last scan took.
const SHARE: u32 = 4;
/// New directories that are scanned together.
const WALKS: usize = 64;
/// Hints that wait for ingest; when there are more, a rescan finds the rest.
const HINTS: usize = 16 * 1024;

/// What scans found.
pub(super) struct Scanned {
    /// Of the whole location, or of one directory below it.
    pub(super) scans: Vec<(Option<RelPath>, Result<Scan, DiskError>)>,
    /// Whether the location was another directory than the one that was watched.
    pub(super) was_stale: bool,
    /// Why a directory could not be watched.
    pub(super) unwatched: Option<DiskError>,
    /// What watches the location from now on.
    watcher: Option<Watcher>,
    begun: Instant,
}

impl Scanned {
    /// Whether the whole location was scanned.
    pub(super) fn is_whole(&self) -> bool {
        self.scans.iter().any(|(below, _)| below.is_none())
    }
}

/// The scans of one directory, and what watches it between them.
pub(super) struct Scans {
    running: JoinSet<Result<Scanned, Fault>>,
    /// When the next scan of the whole directory is wanted, and when it may begin at the earliest.
    wanted_at: Instant,
    may_begin_at: Instant,
    /// Directories that are to be scanned.
    walks: BTreeSet<RelPath>,
    watcher: Option<Watcher>,
    hints: mpsc::Sender<Hint>,
}

impl Scans {
    /// No scan yet; the first is due at once. Hints of the watch arrive at the receiver.
    pub(super) fn new() -> (Self, mpsc::Receiver<Hint>) {
        let (hints, receiver) = mpsc::channel(HINTS);
        let (running, walks, now) = (JoinSet::new(), BTreeSet::new(), Instant::now());
        (Self { running, wanted_at: now, may_begin_at: now, walks, watcher: None, hints }, receiver)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether directories below the location wait to be scanned.
    pub(super) fn has_walks(&self) -> bool {
        !self.walks.is_empty()
    }

    /// When the whole directory is to be scanned next.
    pub(super) fn rescan_at(&self) -> Instant {
        self.wanted_at.max(self.may_begin_at)
    }

    /// The whole directory is to be scanned after this time, or sooner.
    pub(super) fn rescan_in(&mut self, wait: Duration) {
        self.wanted_at = Instant::now() + wait;
    }

    /// A directory that is new, or new at its place, is to be scanned.
    pub(super) fn walk(&mut self, path: RelPath) {
        self.walks.insert(path);
    }

    /// What watches the location.
    pub(super) fn watcher(&self) -> Option<Watcher> {
        self.watcher.clone()
    }

    /// Whether the kernel dropped events.
    pub(super) fn missed_events(&self) -> bool {
        self.watcher.as_ref().is_some_and(Watcher::missed)
    }

    /// Events were lost, and with them perhaps the news of which directories are still the ones that are watched.
    pub(super) fn lose_events(&mut self) {
        self.forget_watches();
        self.wanted_at = Instant::now();
    }

    /// Directories may not be the ones that are watched: the next scan watches them anew.
    pub(super) fn forget_watches(&self) {
        self.watcher.iter().for_each(Watcher::forget);
    }

    /// The location is not there: nothing is watched.
    pub(super) fn stop_watching(&mut self) {
        self.watcher = None;
    }

    /// Nothing lies below these paths any more.
    pub(super) fn leave(&self, paths: &[RelPath]) {
        let Some(watcher) = &self.watcher else { return };
        paths.iter().for_each(|path| watcher.leave(path));
    }

    /// Begins to scan the whole directory.
    pub(super) fn begin_rescan(&mut self, directory: &Arc<Directory>, rules: &Rules) {
        self.wanted_at = Instant::now() + directory.settings.rescan_interval;
        tracing::debug!(directory = %directory.settings.name, "Scanning the directory");
        self.begin(directory, rules, vec![None]);
    }

    /// Begins to scan directories that wait for it, if there are any.
    pub(super) fn begin_walks(&mut self, directory: &Arc<Directory>, rules: &Rules) {
        let walks = std::iter::from_fn(|| self.walks.pop_first()).filter(|path| rules.enters(path));
        let walks: Vec<_> = walks.take(WALKS).map(Some).collect();
        if !walks.is_empty() {
            self.begin(directory, rules, walks);
        }
    }

    /// Begins to scan, watching each directory before it is listed, so that nothing falls between the two. For a scan of the
    /// whole location, one that is not watched, or is another directory by now, is watched anew.
    fn begin(&mut self, directory: &Arc<Directory>, rules: &Rules, below: Vec<Option<RelPath>>) {
        let (rules, mut watcher, begun) = (rules.clone(), self.watcher.clone(), Instant::now());
        let hints = below.contains(&None).then(|| self.hints.clone());
        let (directory, witness) = (Arc::clone(directory), directory.writers.witness().clone());
        let work = move || {
            let (mut unwatched, mut was_stale) = (None, false);
            if let Some(hints) = hints.filter(|_| watcher.as_ref().is_none_or(Watcher::is_stale)) {
                was_stale = watcher.take().is_some();
                match Watcher::start(rules.location(), rules.is_recursive(), hints, &witness) {
                    Ok(started) => watcher = Some(started),
                    Err(error) => unwatched = Some(error),
                }
            }
            let mut scans = Vec::with_capacity(below.len());
            for below in below {
                let scan = local::scan(&rules, below.as_ref(), &mut |directory, inode| {
                    let entered = watcher.as_ref().map_or(Ok(()), |one| one.enter(directory, inode, below.is_some()));
                    if let Err(error) = entered {
                        unwatched.get_or_insert(error);
                    }
                });
                scans.push((below, scan));
            }
            Scanned { scans, watcher, was_stale, unwatched, begun }
        };
        self.running.spawn(async move { directory.on_disk(work).await });
    }

    /// What the running scan found, once it has ended; `None` when none runs.
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
