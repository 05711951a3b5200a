//! Locks paths on the vessel that a request of a lost connection may still change.
//!
//! When a connection is given up, its requests in flight may reach the vessel after another connection has published
//! newer versions at the same paths. Such a request would delete the newer version, or replace it with an older one. So
//! only the delivery that sent the request may use its paths, until no request of the lost connection can arrive any
//! more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::path_locks::PathLocks;
use crate::link::ON_THE_WAY;
use crate::names::{DirectoryName, RelPath};
use crate::records::DeliveryId;

/// The paths of one delivery, and until when they are locked.
struct Late {
    delivery: DeliveryId,
    directory: DirectoryName,
    paths: Vec<RelPath>,
    /// Whether everything below the paths is locked, too, because the delivery may rename a directory with its entries.
    with_all_below: bool,
    until: Instant,
}

impl Late {
    /// Returns whether a path is locked. A path above a locked one is locked, too, because its delivery may replace or
    /// move the directory with its entries.
    fn locks(&self, directory: &DirectoryName, path: &RelPath) -> bool {
        let is_in = |inner: &RelPath, outer: &RelPath| {
            let rest = inner.as_bytes().strip_prefix(outer.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let is_locked = |locked| is_in(locked, path) || self.with_all_below && is_in(path, locked);
        self.directory == *directory && self.paths.iter().any(is_locked)
    }
}

/// The locked paths.
#[derive(Default)]
struct Locked {
    /// All locks, in the order in which they end.
    late: VecDeque<Late>,
    /// The paths of all locks, so that most free paths are found quickly.
    paths: PathLocks,
}

/// The paths of one vessel that late requests may still change; clones share their state. The state outlives sessions
/// and changes of the settings.
#[derive(Clone, Default)]
pub struct LateChanges(Arc<Mutex<Locked>>);

impl LateChanges {
    fn locked(&self) -> MutexGuard<'_, Locked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the paths of a delivery whose connection was just given up. With `with_all_below`, everything below them
    /// is locked, too.
    pub(super) fn add(
        &self,
        delivery: DeliveryId,
        directory: DirectoryName,
        paths: Vec<RelPath>,
        with_all_below: bool,
    ) {
        let mut locked = self.locked();
        paths.iter().for_each(|path| locked.paths.take(&directory, path));
        let until = Instant::now() + ON_THE_WAY;
        locked.late.push_back(Late { delivery, directory, paths, with_all_below, until });
    }

    /// Ends the locks of requests that can't arrive any more. Returns whether there were any.
    pub(super) fn expire(&self) -> bool {
        let mut locked = self.locked();
        let (now, before) = (Instant::now(), locked.late.len());
        while locked.late.front().is_some_and(|late| late.until <= now)
            && let Some(Late { directory, paths, .. }) = locked.late.pop_front()
        {
            paths.iter().for_each(|path| locked.paths.leave(&directory, path));
        }
        locked.late.len() < before
    }

    /// Returns how long it takes until the next lock ends.
    pub(super) fn next_end(&self) -> Option<Duration> {
        self.locked().late.front().map(|late| late.until.saturating_duration_since(Instant::now()))
    }

    pub(super) fn count(&self) -> usize {
        self.locked().late.len()
    }

    /// Returns whether a delivery may use a path.
    pub(super) fn leave_free(&self, delivery: DeliveryId, directory: &DirectoryName, path: &RelPath) -> bool {
        let locked = self.locked();
        locked.paths.is_free(directory, path)
            || !locked.late.iter().any(|late| late.delivery != delivery && late.locks(directory, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_delivery_itself_may_use_its_paths_until_nothing_can_arrive() {
        let (directory, late) = (DirectoryName::new("d"), LateChanges::default());
        late.add(DeliveryId(1), directory.clone(), vec![path("a/b"), path("old")], false);
        tokio::time::advance(ON_THE_WAY / 2).await;
        late.add(DeliveryId(2), directory.clone(), vec![path("a/c")], false);
        let free = |delivery, at: &str| late.leave_free(DeliveryId(delivery), &directory, &path(at));
        for at in ["a", "a/b", "old"] {
            assert!(!free(3, at), "{at}");
        }
        assert!(free(1, "a/b") && free(1, "old") && free(3, "a/bb") && free(3, "a/b/x"));
        // Delivery 2 has locked a path below `a`.
        assert!(!free(1, "a"));
        assert!(late.leave_free(DeliveryId(3), &DirectoryName::new("e"), &path("a")));
        assert_eq!(late.next_end(), Some(ON_THE_WAY / 2));
        assert!(!late.expire());
        tokio::time::advance(ON_THE_WAY / 2).await;
        assert!(late.expire() && late.count() == 1);
        assert!(free(3, "a/b") && free(3, "old") && !free(3, "a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_moved_directory_locks_all_below_it() {
        let (directory, late) = (DirectoryName::new("d"), LateChanges::default());
        late.add(DeliveryId(1), directory.clone(), vec![path("new"), path("old")], true);
        for at in ["new", "new/x", "old/x/y"] {
            assert!(!late.leave_free(DeliveryId(2), &directory, &path(at)), "{at}");
        }
        assert!(late.leave_free(DeliveryId(1), &directory, &path("new/x")));
    }
}
