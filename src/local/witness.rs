//! Records the watcher's events about writers: which files are open for writing, and how often each file was closed.
//!
//! The watcher records the kernel's events here in order and before it sends hints, so no record is lost when the
//! channel of the hints is full. If the kernel itself lost events, all records are dropped, and callers have to use
//! other methods (see `open_writers`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::names::RelPath;

/// Expired records are removed only when there are more records than this.
const MANY: usize = 1024;
/// How long a file that was created and not closed counts as open. The time is limited, because a new hard link is
/// reported as a created file that is never closed.
const MADE: Duration = Duration::from_secs(60);

/// The last event of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note {
    state: State,
    at: Instant,
    /// How often the file was closed after writing. The number is kept when the file is renamed within the location.
    closes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The file was created, possibly by a process that still has it open.
    Made,
    /// A process has written to the file, and still has it open.
    Open,
    /// The file was closed after writing, or moved in.
    Closed,
}

/// Records of one directory's watcher. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    files: BTreeMap<PathBuf, Note>,
    /// The record of the file that was just moved away, kept until the event with its new path arrives.
    leaving: Option<(PathBuf, Note)>,
    tidied: Option<Instant>,
}

/// The known state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A process wrote to the file and has not closed it.
    Open,
    /// The file was closed, or moved in, this long ago.
    Closed(Duration),
    /// There are no usable events for the file.
    Nothing,
}

impl Witness {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        // A panic in another thread leaves no half-written record.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn made(&self, path: &RelPath) {
        let note = Note { state: State::Made, at: Instant::now(), closes: 0 };
        self.notes().files.insert(path.as_path().to_owned(), note);
    }

    pub(super) fn wrote(&self, path: &RelPath) {
        self.notes().enter(path, State::Open, 0);
    }

    pub(super) fn closed(&self, path: &RelPath) {
        self.notes().enter(path, State::Closed, 1);
    }

    /// Records that a file was moved to this path. The file counts as closed.
    pub(super) fn moved_in(&self, path: &RelPath) {
        let note = Note { state: State::Closed, at: Instant::now(), closes: 1 };
        self.notes().files.insert(path.as_path().to_owned(), note);
    }

    pub(super) fn moved_away(&self, path: &RelPath) {
        let mut notes = self.notes();
        let note = notes.files.remove(path.as_path());
        notes.leaving = note.map(|note| (path.as_path().to_owned(), note));
    }

    /// Takes the record that `moved_away` kept for `from`, and stores it under the new path `to`. The record stays
    /// valid, because a rename does not close the file.
    pub(super) fn renamed(&self, from: &RelPath, to: &RelPath) {
        let mut notes = self.notes();
        if let Some((_, note)) = notes.leaving.take_if(|(path, _)| path == from.as_path()) {
            notes.files.insert(to.as_path().to_owned(), note);
        }
    }

    pub(super) fn deleted(&self, path: &RelPath) {
        self.notes().files.remove(path.as_path());
    }

    /// Drops the records of a directory that was moved away or deleted.
    pub(super) fn left(&self, directory: &RelPath) {
        let mut notes = self.notes();
        let below = notes.files.range(directory.as_path().to_owned()..).map(|(path, _)| path);
        let left: Vec<_> = below.take_while(|path| path.starts_with(directory.as_path())).cloned().collect();
        for path in left {
            notes.files.remove(&path);
        }
    }

    /// Drops all records, because events were lost.
    pub(super) fn forget(&self) {
        *self.notes() = Notes::default();
    }

    pub(super) fn seen(&self, path: &RelPath) -> Seen {
        match self.notes().files.get(path.as_path()) {
            Some(Note { state: State::Open, .. }) => Seen::Open,
            Some(Note { state: State::Made, at, .. }) if at.elapsed() < MADE => Seen::Open,
            Some(Note { state: State::Closed, at, .. }) => Seen::Closed(at.elapsed()),
            Some(Note { state: State::Made, .. }) | None => Seen::Nothing,
        }
    }

    /// Returns whether more than one close after writing was recorded for a file. If so, its writer is likely to reopen
    /// it.
    pub(super) fn comes_back(&self, path: &RelPath) -> bool {
        self.notes().files.get(path.as_path()).is_some_and(|note| note.closes > 1)
    }

    /// Drops the records that are older than `keep` and older than 60 s, except records of open files. Does nothing if
    /// there are few records, or if the last cleanup was less than half of `keep` ago.
    pub(super) fn tidy(&self, keep: Duration) {
        let mut notes = self.notes();
        let lately = notes.tidied.is_some_and(|at| at.elapsed() < keep / 2);
        if notes.files.len() > MANY && !lately {
            notes.tidied = Some(Instant::now());
            notes.files.retain(|_, note| note.state == State::Open || note.at.elapsed() < keep.max(MADE));
        }
    }
}

impl Notes {
    fn enter(&mut self, path: &RelPath, state: State, closed: u32) {
        let at = Instant::now();
        if let Some(note) = self.files.get_mut(path.as_path()) {
            *note = Note { state, at, closes: note.closes.saturating_add(closed) };
        } else {
            self.files.insert(path.as_path().to_owned(), Note { state, at, closes: closed });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    #[test]
    fn a_file_is_open_from_the_first_write_to_the_close_however_long_that_takes() {
        let witness = Witness::default();
        assert_eq!(witness.seen(&path("f")), Seen::Nothing);
        witness.wrote(&path("f"));
        assert_eq!(witness.seen(&path("f")), Seen::Open);
        witness.closed(&path("f"));
        assert!(matches!(witness.seen(&path("f")), Seen::Closed(_)) && !witness.comes_back(&path("f")));
        witness.wrote(&path("f"));
        witness.closed(&path("f"));
        assert!(witness.comes_back(&path("f")));
        witness.moved_in(&path("f"));
        assert!(!witness.comes_back(&path("f")), "another file");
    }

    #[test]
    fn a_file_that_is_renamed_while_it_is_open_stays_open() {
        let witness = Witness::default();
        witness.wrote(&path("f.new"));
        witness.moved_away(&path("f.new"));
        witness.moved_in(&path("f"));
        witness.renamed(&path("f.new"), &path("f"));
        assert_eq!((witness.seen(&path("f")), witness.seen(&path("f.new"))), (Seen::Open, Seen::Nothing));
    }

    #[test]
    fn what_was_seen_below_a_directory_goes_with_it() {
        let witness = Witness::default();
        ["a", "a-b", "a/f", "a/b/f", "b"].iter().for_each(|name| witness.wrote(&path(name)));
        witness.left(&path("a"));
        let open = ["a", "a-b", "a/f", "a/b/f", "b"].map(|name| witness.seen(&path(name)) == Seen::Open);
        assert_eq!(open, [false, true, false, false, true]);
        witness.forget();
        assert_eq!(witness.seen(&path("b")), Seen::Nothing);
    }
}
