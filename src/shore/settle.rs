//! Decides whether files have been unchanged for long enough to be finished. Whether a process still has such a file
//! open for writing is checked later, when the file is taken in (`local::take_in`, `local::open_writers`). Stores the
//! paths of files that may be unfinished, each with the time of its next check.
//!
//! A file that is open for writing is not finished. The watcher reports at once when the file is closed, but the file
//! is also checked from time to time, because events can be lost.
//!
//! This module only does bookkeeping in memory: the caller passes in the file's stamp and the current time.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::names::RelPath;
use crate::records::FileStamp;

/// Maximum wait between two checks of a file that is open for writing, unless `SettleTime` is longer.
const OPEN_LOOK: Duration = Duration::from_secs(30);

struct Entry {
    look_at: Instant,
    stamp: Option<FileStamp>,
}

/// The paths of files that may be unfinished.
pub(super) struct Settling {
    settle_time: Duration,
    entries: HashMap<RelPath, Entry>,
    /// Number of checks in a row that found each file open for writing.
    open: HashMap<RelPath, u32>,
}

/// The decision about a file that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The file has been unchanged for the settle time.
    Quiet,
    /// The file must be checked again later.
    Later,
}

impl Settling {
    pub(super) fn new(settle_time: Duration) -> Self {
        Self { settle_time, entries: HashMap::new(), open: HashMap::new() }
    }

    /// Records that a path has just changed, and schedules its check after the settle time.
    pub(super) fn touched(&mut self, path: RelPath, now: Instant) {
        let look_at = now + self.settle_time;
        self.entries.entry(path).and_modify(|e| e.look_at = look_at).or_insert(Entry { look_at, stamp: None });
    }

    /// Records that a file is open for writing. The file is checked again after the settle time, then at growing
    /// intervals.
    pub(super) fn found_open(&mut self, path: RelPath, now: Instant) {
        let times = self.open.entry(path.clone()).or_default();
        let wait = self.settle_time.saturating_mul(1 << (*times).min(16)).min(OPEN_LOOK.max(self.settle_time));
        *times += 1;
        self.look_in(path, wait, now);
    }

    /// Schedules the next check of a file that must stay unchanged for another `wait`.
    pub(super) fn look_in(&mut self, path: RelPath, wait: Duration, now: Instant) {
        self.entries.insert(path, Entry { look_at: now + wait, stamp: None });
    }

    /// Records that no process has a file open for writing.
    pub(super) fn not_open(&mut self, path: &RelPath) {
        self.open.remove(path);
    }

    /// Forgets a path.
    pub(super) fn forget(&mut self, path: &RelPath) {
        self.entries.remove(path);
        self.open.remove(path);
    }

    /// Decides by a file's stamp whether the file is unchanged for long enough. Either it was last modified at least
    /// the settle time ago or, if its modification time is in the future, two checks have found the same stamp.
    pub(super) fn judge(&mut self, path: &RelPath, stamp: FileStamp, now: Instant, today: SystemTime) -> Judgement {
        let modified = i64::try_from(today.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis())).unwrap_or(i64::MAX)
            - (stamp.mtime.saturating_mul(1000) + i64::from(stamp.mtime_nanos / 1_000_000));
        let unchanged = self.entries.get(path).is_some_and(|e| e.stamp == Some(stamp) && e.look_at <= now);
        let wait = match u64::try_from(modified).map(Duration::from_millis) {
            Ok(quiet) => self.settle_time.saturating_sub(quiet),
            Err(_) if unchanged => Duration::ZERO,
            Err(_) => self.settle_time,
        };
        if wait.is_zero() {
            self.entries.remove(path);
            return Judgement::Quiet;
        }
        self.entries.insert(path.clone(), Entry { look_at: now + wait, stamp: Some(stamp) });
        Judgement::Later
    }

    /// Returns the paths whose check is due. They stay stored until they are judged or forgotten.
    pub(super) fn due(&self, now: Instant) -> Vec<RelPath> {
        self.entries.iter().filter(|(_, e)| e.look_at <= now).map(|(path, _)| path.clone()).collect()
    }

    /// Returns when the next check is due; `None` if no path is stored.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.entries.values().map(|e| e.look_at).min()
    }

    /// Returns all stored paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = RelPath> {
        self.entries.keys().cloned()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(2);

    fn stamp(mtime: i64) -> FileStamp {
        FileStamp { size: 1, mtime, mtime_nanos: 0, inode: 1 }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn path() -> RelPath {
        RelPath::new("f").unwrap()
    }

    #[test]
    fn an_old_file_is_finished_at_once() {
        let mut settling = Settling::new(SETTLE);
        assert_eq!(settling.judge(&path(), stamp(100), Instant::now(), at(1000)), Judgement::Quiet);
    }

    #[test]
    fn a_fresh_file_waits_for_the_rest_of_the_settle_time() {
        let mut settling = Settling::new(SETTLE);
        let now = Instant::now();
        assert_eq!(settling.judge(&path(), stamp(999), now, at(1000)), Judgement::Later);
        assert_eq!(settling.next_look(), Some(now + Duration::from_secs(1)));
        let later = now + Duration::from_secs(1);
        assert_eq!(settling.due(later), [path()]);
        assert_eq!(settling.judge(&path(), stamp(999), later, at(1001)), Judgement::Quiet);
        assert!(settling.is_empty());
    }

    #[test]
    fn a_file_from_the_future_is_finished_when_two_looks_agree() {
        let mut settling = Settling::new(SETTLE);
        let now = Instant::now();
        assert_eq!(settling.judge(&path(), stamp(5000), now, at(1000)), Judgement::Later);
        assert_eq!(settling.judge(&path(), stamp(6000), now + SETTLE, at(1002)), Judgement::Later);
        assert_eq!(settling.judge(&path(), stamp(6000), now + SETTLE * 2, at(1004)), Judgement::Quiet);
    }

    #[test]
    fn a_file_that_stays_open_is_looked_at_less_and_less_often() {
        let mut settling = Settling::new(SETTLE);
        let now = Instant::now();
        let waits = [2, 4, 8, 16, 30, 30].map(Duration::from_secs);
        for wait in waits {
            settling.found_open(path(), now);
            assert_eq!(settling.next_look(), Some(now + wait));
            assert_eq!(settling.judge(&path(), stamp(1), now + wait, at(1000)), Judgement::Quiet);
        }
        settling.not_open(&path());
        settling.found_open(path(), now);
        assert_eq!(settling.next_look(), Some(now + SETTLE));
    }

    #[test]
    fn every_change_starts_the_wait_anew() {
        let mut settling = Settling::new(SETTLE);
        let now = Instant::now();
        settling.touched(path(), now);
        settling.touched(path(), now + Duration::from_secs(1));
        assert!(settling.due(now + SETTLE).is_empty());
        assert_eq!(settling.due(now + SETTLE + Duration::from_secs(1)), [path()]);
    }
}
