//! Checks retired files for a while after their move, on file systems where writers on other hosts can't be detected.
//! Such a writer may still have a file open and write to it in `processed/`; then the file is moved back and
//! sent again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::local::Moved;

/// How long a moved file is checked, and the wait between two checks.
const LONG_ENOUGH: Duration = Duration::from_secs(120);
const OFTEN: Duration = Duration::from_secs(5);
/// Maximum number of files that are checked. If there are more, the oldest file is no longer checked.
const MOST: usize = 10_000;

#[derive(Default)]
pub(super) struct RetiredRechecks {
    moved: VecDeque<(Moved, Instant)>,
    next_look: Option<Instant>,
}

impl RetiredRechecks {
    /// Adds a file to be checked from now on.
    pub(super) fn note(&mut self, moved: Moved, now: Instant) {
        if self.moved.len() == MOST {
            self.moved.pop_front();
        }
        self.moved.push_back((moved, now + LONG_ENOUGH));
        self.next_look.get_or_insert(now + OFTEN);
    }

    /// Returns when the next check is due; `None` if there are no files to check.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.next_look
    }

    /// Returns the files to be checked now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Moved> {
        if self.next_look.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let due = self.moved.iter().map(|(moved, _)| moved.clone()).collect();
        while self.moved.front().is_some_and(|(_, until)| *until <= now) {
            self.moved.pop_front();
        }
        self.next_look = (!self.moved.is_empty()).then_some(now + OFTEN);
        due
    }

    /// Removes a file from the checks.
    pub(super) fn forget(&mut self, moved: &Moved) {
        self.moved.retain(|(one, _)| one != moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RelPath;
    use crate::records::FileStamp;

    #[test]
    fn a_moved_file_is_looked_at_for_two_minutes() {
        let path = RelPath::new("f").unwrap();
        let stamp = FileStamp { size: 1, mtime: 1, mtime_nanos: 0, inode: 1 };
        let moved = Moved { path: path.clone(), to: path, stamp };
        let (mut rechecks, now) = (RetiredRechecks::default(), Instant::now());
        rechecks.note(moved.clone(), now);
        assert_eq!((rechecks.due(now), rechecks.due_at()), (vec![], Some(now + OFTEN)));
        assert_eq!(rechecks.due(now + OFTEN), std::slice::from_ref(&moved));
        assert_eq!(rechecks.due(now + LONG_ENOUGH), [moved]);
        assert_eq!((rechecks.due(now + LONG_ENOUGH * 2), rechecks.due_at()), (vec![], None));
    }
}
