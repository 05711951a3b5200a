//! Scans under way: on a thread of their own, one at a time, and never so often that nothing else is done.

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

/// What scans found.
pub(super) struct Scanned {
    /// Of the whole location, or of one directory below it.
    pub(super) scans: Vec<(Option<RelPath>, Result<Scan, DiskError>)>,
    /// What watches the location from now on.
    pub(super) watcher: Option<Watcher>,
    /// Whether the location was another directory than the one that was watched.
    pub(super) was_stale: bool,
    /// Why a directory could not be watched.
    pub(super) unwatched: Option<DiskError>,
    begun: Instant,
}

/// The scans of one directory.
pub(super) struct Scans {
    running: JoinSet<Result<Scanned, Fault>>,
    /// When the next scan of the whole directory may begin.
    next_at: Instant,
}

impl Scans {
    pub(super) fn new() -> Self {
        Self { running: JoinSet::new(), next_at: Instant::now() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// When a scan of the whole directory may begin that is wanted at this time.
    pub(super) fn may_begin_at(&self, wanted: Instant) -> Instant {
        wanted.max(self.next_at)
    }

    /// Begins to scan, watching each directory before it is listed, so that nothing falls between the two. With `hints`, a
    /// location that is not watched, or is another directory by now, is watched anew.
    pub(super) fn begin(
        &mut self,
        directory: &Arc<Directory>,
        rules: &Rules,
        watcher: Option<&Watcher>,
        below: Vec<Option<RelPath>>,
        hints: Option<mpsc::Sender<Hint>>,
    ) {
        let (rules, mut watcher, begun) = (rules.clone(), watcher.cloned(), Instant::now());
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
        let ended = ended.unwrap_or_else(|e| Err(Fault::daemon(format_args!("looking at the disk: {e}"))));
        if let Ok(Scanned { scans, begun, .. }) = &ended
            && scans.iter().any(|(below, _)| below.is_none())
        {
            self.next_at = Instant::now() + SPACING.max(begun.elapsed() * SHARE);
        }
        Some(ended)
    }
}
