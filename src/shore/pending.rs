//! Entries that wait to be read or recorded in the ledger: finished files in the order in which they finished, and
//! directories and links in the order of their paths.
//!
//! This module only does bookkeeping in memory. A file that waits or is being read is *busy*: if its path changes
//! meanwhile, this is recorded, and the path is checked again when the file's batch has ended.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;

use crate::names::RelPath;
use crate::records::NewVersion;

#[derive(Default)]
pub(super) struct Pending {
    files: VecDeque<RelPath>,
    /// Number of files at the front of the queue that `Interval` has released to be read.
    released: usize,
    /// Directories and links that wait to be recorded.
    others: BTreeMap<RelPath, NewVersion>,
    /// Files that wait to be read or are being read.
    busy: HashSet<RelPath>,
    /// Files that are being read.
    reading: HashSet<RelPath>,
    /// Busy files that have changed since they were queued.
    changed: HashSet<RelPath>,
}

impl Pending {
    /// Adds a finished file, which waits to be read.
    pub(super) fn add_file(&mut self, path: RelPath) {
        if self.busy.insert(path.clone()) {
            self.files.push_back(path);
        } else {
            self.changed.insert(path);
        }
    }

    /// Adds a directory or link, which waits to be recorded.
    pub(super) fn add_other(&mut self, version: NewVersion) {
        self.others.insert(version.path.clone(), version);
    }

    /// Returns whether a path is busy, and records its change if so.
    pub(super) fn note_if_busy(&mut self, path: &RelPath) -> bool {
        let busy = self.busy.contains(path);
        if busy {
            self.changed.insert(path.clone());
        }
        busy
    }

    /// Returns whether a file at or below a path waits to be read or is being read.
    pub(super) fn is_busy_in(&self, path: &RelPath) -> bool {
        self.busy.iter().any(|busy| busy.as_path().starts_with(path.as_path()))
    }

    /// Splits paths into two lists: paths below which no file is being read, and the other paths.
    pub(super) fn without_reading_below(&self, paths: Vec<RelPath>) -> (Vec<RelPath>, Vec<RelPath>) {
        let above: HashSet<&Path> = self.reading.iter().flat_map(|path| path.as_path().ancestors().skip(1)).collect();
        paths.into_iter().partition(|path| !above.contains(path.as_path()))
    }

    /// Removes a waiting directory or link.
    pub(super) fn remove_other(&mut self, path: &RelPath) {
        self.others.remove(path);
    }

    /// Records that everything below these paths is gone: drops directories and links, and marks busy files as changed.
    pub(super) fn remove_below(&mut self, gone: &[RelPath]) {
        let gone: HashSet<&Path> = gone.iter().map(RelPath::as_path).collect();
        let is_below = |path: &RelPath| path.as_path().ancestors().skip(1).any(|above| gone.contains(above));
        self.others.retain(|path, _| !is_below(path));
        self.changed.extend(self.busy.iter().filter(|path| is_below(path)).cloned());
    }

    /// Returns whether any entry still waits for `Interval` to release it.
    pub(super) fn waits_for_interval(&self) -> bool {
        !self.others.is_empty() || self.files.len() > self.released
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.others.is_empty()
    }

    /// Releases all entries: files may be read now, and directories and links are returned, parents first.
    pub(super) fn release(&mut self) -> Vec<NewVersion> {
        self.released = self.files.len();
        std::mem::take(&mut self.others).into_values().collect()
    }

    /// Returns how many files may be read now.
    pub(super) fn released(&self) -> usize {
        self.released
    }

    /// Takes up to `files` released files to be read.
    pub(super) fn take_batch(&mut self, files: usize) -> Vec<RelPath> {
        let files = files.min(self.released);
        self.released -= files;
        let batch: Vec<RelPath> = self.files.drain(..files).collect();
        self.reading.extend(batch.iter().cloned());
        batch
    }

    /// Takes all files, released or not.
    pub(super) fn take_files(&mut self) -> Vec<RelPath> {
        self.released = 0;
        self.busy.clear();
        self.files.drain(..).collect()
    }

    /// Ends a batch: its paths are no longer busy.
    pub(super) fn end_batch(&mut self, paths: &[RelPath]) {
        for path in paths {
            self.busy.remove(path);
            self.reading.remove(path);
        }
    }

    /// Puts the unread files of a batch back to the front of the queue.
    pub(super) fn put_back(&mut self, unread: Vec<RelPath>) {
        for path in unread.into_iter().rev() {
            if self.busy.insert(path.clone()) {
                self.files.push_front(path);
                self.released += 1;
            }
        }
    }

    /// Returns the paths among these that changed while they were busy, and forgets the changes.
    pub(super) fn take_changed(&mut self, paths: Vec<RelPath>) -> Vec<RelPath> {
        paths.into_iter().filter(|path| self.changed.remove(path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Traits;

    fn path(name: &str) -> RelPath {
        RelPath::new(name).unwrap()
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_looked_at_when_its_batch_has_ended() {
        let mut pending = Pending::default();
        pending.add_file(path("a"));
        pending.release();
        let batch = pending.take_batch(10);
        assert_eq!(batch, [path("a")]);
        pending.add_file(path("a"));
        assert!(pending.note_if_busy(&path("a")) && !pending.note_if_busy(&path("b")));
        assert_eq!(pending.released(), 0);
        pending.end_batch(&batch);
        assert_eq!(pending.take_changed(batch), [path("a")]);
        assert!(!pending.note_if_busy(&path("a")));
    }

    #[test]
    fn what_was_released_goes_first_and_the_rest_waits() {
        let mut pending = Pending::default();
        ["a", "b"].map(path).into_iter().for_each(|path| pending.add_file(path));
        assert!(pending.waits_for_interval());
        pending.release();
        pending.add_file(path("c"));
        assert_eq!((pending.take_batch(10), pending.waits_for_interval()), (vec![path("a"), path("b")], true));
        pending.end_batch(&[path("a"), path("b")]);
        pending.put_back(vec![path("b")]);
        assert_eq!((pending.released(), pending.take_batch(10)), (1, vec![path("b")]));
    }

    #[test]
    fn what_lies_below_a_path_that_is_gone_is_dropped_or_looked_at_again() {
        let mut pending = Pending::default();
        ["gone", "gone/link", "gone-too"]
            .into_iter()
            .for_each(|name| pending.add_other(NewVersion::without_content(path(name), Traits::GONE, Vec::new())));
        pending.add_file(path("gone/file"));
        pending.remove_below(&[path("gone")]);
        let left: Vec<_> = pending.release().into_iter().map(|version| version.entry.path).collect();
        assert_eq!(left, ["gone", "gone-too"].map(path));
        assert_eq!(pending.take_changed(vec![path("gone/file")]), [path("gone/file")]);
    }

    #[test]
    fn a_path_below_which_a_file_is_being_read_is_told_apart() {
        let mut pending = Pending::default();
        pending.add_file(path("a/b/file"));
        let split = |pending: &Pending| pending.without_reading_below(["a", "a/b", "a/b/file", "b"].map(path).to_vec());
        assert_eq!(split(&pending).1, []);
        pending.release();
        let batch = pending.take_batch(10);
        assert_eq!(split(&pending), (["a/b/file", "b"].map(path).to_vec(), ["a", "a/b"].map(path).to_vec()));
        pending.end_batch(&batch);
        assert_eq!(split(&pending).1, []);
    }
}
