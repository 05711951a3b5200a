//! Delivered sources that are not retired yet, each with the time of the next attempt. A source must first *rest*, that
//! is, stay unchanged for a while.
//!
//! The reason: a writer may reopen a file by its name a second after closing it, or set its mode. If the file had
//! already retired, the writer would create a new file, which would replace the delivered one on every vessel. The rest
//! is counted from the file's change time (ctime). If the change time is in the future, because clocks disagree, the
//! rest is counted from the moment at which this time was first read.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::local::Changed;
use crate::records::VersionId;

#[derive(Default)]
pub(super) struct RetireWait {
    entries: HashMap<VersionId, Entry>,
}

struct Entry {
    due: Instant,
    /// Last change time of the version's file, and when this change time was first read.
    changed: Option<(Changed, Instant)>,
    put_off: bool,
}

impl RetireWait {
    /// Returns whether the next attempt for a version is not due yet.
    pub(super) fn rests(&self, version: VersionId, now: Instant) -> bool {
        self.entries.get(&version).is_some_and(|entry| entry.due > now)
    }

    /// Returns the known change times of these versions' files, each with the time at which it was first read.
    pub(super) fn known(&self, versions: impl Iterator<Item = VersionId>) -> HashMap<VersionId, (Changed, Instant)> {
        versions.filter_map(|id| Some((id, self.entries.get(&id)?.changed?))).collect()
    }

    /// Records that a version must rest for `left` more; `changed` is the last change time of its file.
    pub(super) fn rest(&mut self, version: VersionId, left: Duration, changed: Option<Changed>, now: Instant) {
        let before = self.entries.get(&version).and_then(|entry| entry.changed);
        let known = changed.map(|at| before.filter(|(before, _)| *before == at).unwrap_or((at, now)));
        self.entries.insert(version, Entry { due: now + left, changed: known, put_off: false });
    }

    /// Postpones the next attempt for a version that can't retire for a reason other than its rest.
    pub(super) fn put_off(&mut self, version: VersionId, wait: Duration, now: Instant) {
        self.entries.insert(version, Entry { due: now + wait, changed: None, put_off: true });
    }

    pub(super) fn forget(&mut self, version: VersionId) {
        self.entries.remove(&version);
    }

    /// Forgets all versions for which `asked` returns `false`.
    pub(super) fn keep(&mut self, asked: impl Fn(VersionId) -> bool) {
        self.entries.retain(|id, _| asked(*id));
    }

    /// Returns when the next attempt is due; `None` if no version waits.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.due).min()
    }

    /// Returns when the next attempt is due for a version that must rest; `None` if there is no such version.
    pub(super) fn rested_at(&self) -> Option<Instant> {
        self.entries.values().filter(|entry| !entry.put_off).map(|entry| entry.due).min()
    }
}

/// Returns how much of `rest` remains, where `rest` is the time for which a file must stay unchanged after `changed`.
/// `known` is the change time that was read earlier, and when it was first read.
pub(super) fn remaining(rest: Duration, changed: Changed, known: Option<(Changed, Instant)>) -> Duration {
    let seen = known.filter(|(before, _)| *before == changed).map_or(Duration::ZERO, |(_, since)| since.elapsed());
    rest.saturating_sub(changed.ago().unwrap_or_default().max(seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_from_the_future_rests_no_longer_than_others() {
        let rest = Duration::from_secs(2);
        let now = Instant::now();
        let future = Changed::at(i64::MAX / 2, 0);
        assert_eq!(remaining(rest, future, None), rest);
        let Some(since) = now.checked_sub(rest) else { return };
        assert_eq!(remaining(rest, future, Some((future, since))), Duration::ZERO);
        assert_eq!(remaining(rest, future, Some((Changed::at(1, 0), since))), rest);
        assert_eq!(remaining(rest, Changed::at(1, 0), None), Duration::ZERO);
    }

    #[test]
    fn what_rests_is_tried_again_when_its_time_has_come() {
        let mut waiting = RetireWait::default();
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        waiting.rest(VersionId(1), second, None, now);
        waiting.put_off(VersionId(2), second * 2, now);
        assert!(waiting.rests(VersionId(1), now) && !waiting.rests(VersionId(1), now + second));
        assert_eq!((waiting.due_at(), waiting.rested_at()), (Some(now + second), Some(now + second)));
        waiting.forget(VersionId(1));
        assert_eq!((waiting.due_at(), waiting.rested_at()), (Some(now + second * 2), None));
        waiting.keep(|_| false);
        assert_eq!(waiting.due_at(), None);
    }
}
