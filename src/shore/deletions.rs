//! Deletions on the shore, and the checks that prevent the vessels from repeating an accidental deletion.
//!
//! Missing paths are collected for 1 to 3 s, so that they are handled together, and so that a program has time to
//! remove a file and create it again. If a missing path may turn out to be moved, the time is up to 10 s. Then the
//! paths are checked once more. The paths that are still missing are recorded as deleted. If they exceed `MaxDelete`,
//! or if the location is empty or was replaced by another directory, their deletions are held back. Held-back deletions
//! are not stored, because the next scan finds the missing paths again.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::Directory;
use super::mounts::MountWatch;
use super::troubles::Concern;
use crate::fault::Fault;
use crate::local::{self, PathState, Rules, Watcher};
use crate::names::RelPath;
use crate::records::VersionKind;

/// Time without another missing path after which the collected deletions are handled.
const QUIET: Duration = Duration::from_secs(1);
/// Maximum time from the first missing path until the collected deletions are handled.
const LONGEST: Duration = Duration::from_secs(3);
/// Maximum time from the first missing path until the collected deletions are handled, if found entries are still
/// waiting to be recorded. A missing entry may be among them under another path.
const FOR_MOVES: Duration = Duration::from_secs(10);
/// The period to which `MaxDelete` applies.
const GO: Duration = Duration::from_secs(60);
/// Maximum number of paths that are looked up in the ledger at once.
const AT_ONCE: usize = 1024;

/// The collected missing paths, and the numbers of deletions allowed within the last minute.
#[derive(Default)]
pub(super) struct Deletions {
    leaving: BTreeSet<RelPath>,
    first: Option<Instant>,
    last: Option<Instant>,
    passed: VecDeque<(Instant, u64)>,
    /// Number of deletions that `MaxDelete` holds back since the last scan of the whole directory.
    held: u64,
}

impl Deletions {
    /// Records a missing path.
    pub(super) fn note(&mut self, path: RelPath, now: Instant) {
        self.leaving.insert(path);
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// Resets the count of held-back deletions, because a scan of the whole directory finds all missing paths again.
    pub(super) fn found_anew(&mut self) {
        self.held = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leaving.is_empty()
    }

    /// Returns when the collected deletions are due; `None` if no path is missing.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let (first, last) = (self.first?, self.last?);
        Some((last + QUIET).min(first + LONGEST))
    }

    /// Returns whether the collected deletions may still wait, because a missing path may turn out to be moved.
    pub(super) fn may_wait(&self, now: Instant) -> bool {
        self.first.is_some_and(|first| now < first + FOR_MOVES)
    }

    /// Takes all collected paths out, to pass them to `confirm`.
    pub(super) fn take(&mut self) -> Vec<RelPath> {
        (self.first, self.last) = (None, None);
        std::mem::take(&mut self.leaving).into_iter().collect()
    }

    /// Returns whether `count` more deletions stay within `most` deletions per minute, and counts them if so. Deletions
    /// that are held back count towards the limit, so that they are not carried out one by one after an accident.
    fn may_pass(&mut self, count: u64, most: u64, now: Instant) -> bool {
        while self.passed.front().is_some_and(|(at, _)| now.duration_since(*at) >= GO) {
            self.passed.pop_front();
        }
        let passed: u64 = self.passed.iter().map(|(_, count)| count).sum();
        if passed.saturating_add(count).saturating_add(self.held) > most {
            self.held = self.held.saturating_add(count);
            return false;
        }
        self.passed.push_back((now, count));
        true
    }
}

/// Result of checking due deletions once more.
#[derive(Default)]
pub(super) struct Confirmed {
    /// Paths to delete on the vessels, sorted so that parents come first.
    pub(super) gone: Vec<RelPath>,
    /// Paths that exist again.
    pub(super) back: Vec<RelPath>,
}

/// State of the location, as known to ingest, that decides whether deletions are held back.
pub(super) struct Place {
    /// Whether the location was missing or replaced, and no scan since then has found all known paths.
    pub(super) displaced: bool,
    pub(super) watcher: Option<Watcher>,
}

/// Facts that decide whether deletions are held back. They are determined after the last check of the paths, so that a
/// disk that was unmounted during the check is noticed.
struct Facts {
    location: String,
    is_empty: Result<bool, local::DiskError>,
    displaced: bool,
    /// How the file system at the location itself differs from the stored one; `None` if it is the same.
    moved: Option<String>,
    /// Number of paths that the ledger knows in the directory.
    known: u64,
    /// Maximum number of deletions per minute.
    limit: u64,
    /// Whether `Location` names a single file.
    is_one_file: bool,
}

impl Deletions {
    /// Checks the due paths once more and decides whether their deletions are recorded or held back.
    pub(super) async fn confirm(
        &mut self,
        directory: &Directory,
        rules: &Rules,
        mounts: &mut MountWatch,
        place: Place,
        paths: Vec<RelPath>,
    ) -> Result<Confirmed, Fault> {
        let before = mounts.look(directory).await?;
        let (gone, back) = still_gone(directory, rules, paths).await?;
        let all = gone.len() as u64;
        let visible = mounts.hold_back(directory, gone, before).await?;
        let now = Instant::now();
        visible.again.into_iter().for_each(|path| self.note(path, now));
        let gone = visible.gone;
        if gone.is_empty() || directory.allow_deletes {
            return Ok(Confirmed { gone, back });
        }
        let facts = Facts::ask(directory, place, visible.location_moved).await?;
        match self.reason_to_hold(&facts, gone.len() as u64, all, now) {
            None => Ok(Confirmed { gone, back }),
            Some(why) => {
                let text = format!(
                    "nothing is deleted on the vessels: {why}; restore the missing files, or start once with \
                     --allow-deletes to delete them on the vessels, too"
                );
                directory.trouble_with(Concern::Deletions, &text);
                Ok(Confirmed { gone: Vec::new(), back })
            }
        }
    }

    /// Returns why `count` deletions are held back; `None` if they may be recorded. `all` also counts the missing paths
    /// that are held back because of changed mounts.
    fn reason_to_hold(&mut self, facts: &Facts, count: u64, all: u64, now: Instant) -> Option<String> {
        let (location, known, limit) = (&facts.location, facts.known, facts.limit);
        match &facts.is_empty {
            Err(error) => return Some(error.to_string()),
            Ok(true) => return Some(format!("{location} is suddenly empty; is its disk mounted?")),
            Ok(false) => {}
        }
        if facts.displaced {
            return Some(format!("{location} was missing or was replaced since contentmonster started"));
        }
        if let Some(what) = &facts.moved {
            return Some(format!("{location} {what}"));
        }
        // The mount point itself may contain files. Then the location is not empty although its disk is unmounted.
        if all >= known && !facts.is_one_file {
            return Some(format!("every path in {location} ({known} in total) is missing; is its disk mounted?"));
        }
        if self.may_pass(count, limit, now) {
            return None;
        }
        let count = self.held;
        Some(format!("deleting {count} of {known} paths in {location} exceeds MaxDelete ({limit} per minute)"))
    }
}

impl Facts {
    async fn ask(directory: &Directory, place: Place, moved: Option<String>) -> Result<Self, Fault> {
        let settings = &directory.settings;
        let location = settings.location.clone();
        let shown = location.display().to_string();
        let look = move || (local::is_empty(&location), place.watcher.as_ref().is_some_and(Watcher::is_stale));
        let (is_empty, is_stale) = directory.on_disk(look).await?;
        let known = directory.ledger.count_current(&settings.name).await.map_err(|e| e.fault())?;
        Ok(Self {
            location: shown,
            is_empty,
            displaced: place.displaced || is_stale,
            moved,
            known,
            limit: settings.max_delete.of(known),
            is_one_file: settings.only.is_some(),
        })
    }
}

/// Repeats the check on the disk for those of the paths that the ledger knows. Returns the paths that are still
/// missing, and the paths that exist again.
async fn still_gone(
    directory: &Directory,
    rules: &Rules,
    paths: Vec<RelPath>,
) -> Result<(Vec<RelPath>, Vec<RelPath>), Fault> {
    let mut known = Vec::new();
    for some in paths.chunks(AT_ONCE) {
        let current = directory.ledger.current_at(&directory.settings.name, some).await.map_err(|e| e.fault())?;
        known.extend(current.into_iter().filter(|v| v.traits.kind != VersionKind::Gone).map(|v| v.path));
    }
    known.sort_unstable();
    let rules = rules.clone();
    let is_gone = move |path: &RelPath| match local::classify(&rules, path) {
        Ok(PathState::Gone) => true,
        // If directories are not recorded, the ledger's version at this path was a file or link, which no longer
        // exists.
        Ok(PathState::Directory(_)) => !rules.takes_directories(),
        _ => false,
    };
    directory.on_disk(move || known.into_iter().partition(is_gone)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_together_waits_for_a_moment_of_quiet() {
        let mut deletions = Deletions::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let path = |name: &str| RelPath::new(name).unwrap();
        assert_eq!(deletions.due_at(), None);
        deletions.note(path("a"), now);
        assert_eq!(deletions.due_at(), Some(now + QUIET));
        deletions.note(path("b"), now + second / 2);
        assert_eq!(deletions.due_at(), Some(now + second / 2 + QUIET));
        (1..10).for_each(|n| deletions.note(path("c"), now + second * n));
        assert_eq!(deletions.due_at(), Some(now + LONGEST));
        assert_eq!(deletions.take(), ["a", "b", "c"].map(path));
        assert!(deletions.is_empty() && deletions.due_at().is_none());
    }

    #[test]
    fn no_more_than_the_limit_goes_within_a_minute() {
        let mut deletions = Deletions::default();
        let now = Instant::now();
        assert!(!deletions.may_pass(101, 100, now));
        assert!(!deletions.may_pass(1, 100, now), "a later one is not carried out alone");
        deletions.found_anew();
        assert!(deletions.may_pass(60, 100, now));
        assert!(deletions.may_pass(40, 100, now + GO / 2));
        assert!(!deletions.may_pass(1, 100, now + GO / 2));
        deletions.found_anew();
        assert!(deletions.may_pass(60, 100, now + GO));
        assert!(!deletions.may_pass(1, 100, now + GO));
    }
    #[test]
    fn an_empty_a_replaced_and_a_wholly_changed_location_hold_deletions_back() {
        let facts = || Facts {
            location: "/srv".into(),
            is_empty: Ok(false),
            displaced: false,
            moved: None,
            known: 10,
            limit: 5,
            is_one_file: false,
        };
        let why = |facts: Facts, count, all| Deletions::default().reason_to_hold(&facts, count, all, Instant::now());
        assert_eq!(why(facts(), 5, 5), None);
        assert!(why(facts(), 6, 6).is_some_and(|why| why.contains("MaxDelete")));
        assert!(why(facts(), 1, 10).is_some_and(|why| why.contains("(10 in total) is missing")));
        assert_eq!(why(Facts { is_one_file: true, ..facts() }, 1, 10), None);
        assert!(why(Facts { is_empty: Ok(true), ..facts() }, 1, 1).is_some_and(|why| why.contains("suddenly empty")));
        assert!(why(Facts { displaced: true, ..facts() }, 1, 1).is_some_and(|why| why.contains("was missing")));
        let moved = Some("is on another file system".to_owned());
        assert!(why(Facts { moved, ..facts() }, 1, 1).is_some_and(|why| why.contains("another file system")));
    }
}
