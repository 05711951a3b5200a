//! Paths on the vessel that a request of a lost connection may still change.
//!
//! When a connection is given up, requests on the way may reach the vessel after another connection has published newer
//! versions there. They would replace a newer version by an older one, or delete it. So only the delivery that sent such a
//! request may use its paths until no request of the lost connection can arrive any more.

use std::collections::VecDeque;
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
    until: Instant,
}

/// The locked paths, in the order in which their locks end.
#[derive(Default)]
pub(super) struct LateChanges {
    locks: PathLocks,
    late: VecDeque<Late>,
}

impl LateChanges {
    /// Locks the paths of a delivery whose connection was just given up.
    pub(super) fn add(&mut self, delivery: DeliveryId, directory: &DirectoryName, paths: Vec<RelPath>) {
        paths.iter().for_each(|path| self.locks.take(directory, path));
        let until = Instant::now() + ON_THE_WAY;
        self.late.push_back(Late { delivery, directory: directory.clone(), paths, until });
    }

    /// Ends the locks of requests that can't arrive any more. Returns whether there were any.
    pub(super) fn expire(&mut self) -> bool {
        let (now, before) = (Instant::now(), self.late.len());
        while let Some(late) = self.late.front().filter(|late| late.until <= now) {
            late.paths.iter().for_each(|path| self.locks.leave(&late.directory, path));
            self.late.pop_front();
        }
        self.late.len() < before
    }

    /// Returns how long it takes until the next lock ends.
    pub(super) fn next_end(&self) -> Option<Duration> {
        self.late.front().map(|late| late.until.saturating_duration_since(Instant::now()))
    }

    pub(super) fn count(&self) -> usize {
        self.late.len()
    }

    /// Returns whether a delivery may use a path.
    pub(super) fn leave_free(&self, delivery: DeliveryId, directory: &DirectoryName, path: &RelPath) -> bool {
        let is_locked = |late: &Late| {
            late.delivery != delivery
                && late.directory == *directory
                && late.paths.iter().any(|locked| overlap(locked, path))
        };
        self.locks.is_free(directory, path) || !self.late.iter().any(is_locked)
    }
}

/// Returns whether two paths are equal, or one is inside the other.
fn overlap(one: &RelPath, other: &RelPath) -> bool {
    let is_in = |inner: &[u8], outer: &[u8]| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    let (one, other) = (one.as_bytes(), other.as_bytes());
    is_in(one, other) || is_in(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_delivery_itself_may_use_its_paths_until_nothing_can_arrive() {
        let (directory, path) = (DirectoryName::new("d"), |path: &str| RelPath::new(path).unwrap());
        let mut late = LateChanges::default();
        late.add(DeliveryId(1), &directory, vec![path("a/b"), path("old")]);
        tokio::time::advance(ON_THE_WAY / 2).await;
        late.add(DeliveryId(2), &directory, vec![path("a/c")]);
        let free =
            |late: &LateChanges, delivery, at: &str| late.leave_free(DeliveryId(delivery), &directory, &path(at));
        for at in ["a", "a/b", "a/b/x", "old"] {
            assert!(!free(&late, 3, at), "{at}");
        }
        assert!(free(&late, 1, "a/b") && free(&late, 1, "old") && free(&late, 3, "a/bb"));
        // A second delivery has locked a path below.
        assert!(!free(&late, 1, "a"));
        assert!(late.leave_free(DeliveryId(3), &DirectoryName::new("e"), &path("a")));
        assert_eq!(late.next_end(), Some(ON_THE_WAY / 2));
        assert!(!late.expire());
        tokio::time::advance(ON_THE_WAY / 2).await;
        assert!(late.expire() && late.count() == 1);
        assert!(free(&late, 3, "a/b") && free(&late, 3, "old") && !free(&late, 3, "a"));
    }
}
