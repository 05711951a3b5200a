//! Retired files that are looked at for a while after their move, on file systems where nobody can tell whether a program of
//! another host still has one open: what such a program writes then goes into `processed/`, and is not lost there.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::local::Moved;

/// For how long a moved file is looked at, and how often.
const LONG_ENOUGH: Duration = Duration::from_secs(120);
const OFTEN: Duration = Duration::from_secs(5);
/// The most files that are kept in mind; the oldest make room.
const MOST: usize = 10_000;

#[derive(Default)]
pub(super) struct MovedFiles {
    moved: VecDeque<(Moved, Instant)>,
    next_look: Option<Instant>,
}

impl MovedFiles {
    /// Has a file looked at from now on.
    pub(super) fn note(&mut self, moved: Moved, now: Instant) {
        if self.moved.len() == MOST {
            self.moved.pop_front();
        }
        self.moved.push_back((moved, now + LONG_ENOUGH));
        self.next_look.get_or_insert(now + OFTEN);
    }

    /// When the next look is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.next_look
    }

    /// The files to be looked at now.
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

    /// Has a file looked at no more.
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
        let (mut moved_files, now) = (MovedFiles::default(), Instant::now());
        moved_files.note(moved.clone(), now);
        assert_eq!((moved_files.due(now), moved_files.due_at()), (vec![], Some(now + OFTEN)));
        assert_eq!(moved_files.due(now + OFTEN), std::slice::from_ref(&moved));
        assert_eq!(moved_files.due(now + LONG_ENOUGH), [moved]);
        assert_eq!((moved_files.due(now + LONG_ENOUGH * 2), moved_files.due_at()), (vec![], None));
    }
}
