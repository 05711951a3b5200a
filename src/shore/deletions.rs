//! Deletions on the shore, and the brakes that keep a mishap from becoming one on every vessel.
//!
//! What is gone waits for a moment, so that many deletions are seen as one, is looked for once more, and is then entered as
//! gone, or not: too many within a minute, a location that is empty or that another directory has taken the place of. What
//! was held back is not remembered: the next look through the directory finds it again.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::Directory;
use super::mounts::MountWatch;
use super::troubles::Concern;
use crate::fault::Fault;
use crate::local::{self, PathState, Rules, Watcher};
use crate::names::RelPath;
use crate::records::VersionKind;

/// How long nothing more must have gone before what is gone is dealt with.
const QUIET: Duration = Duration::from_secs(1);
/// The longest that what is gone waits for that.
const LONGEST: Duration = Duration::from_secs(3);
/// What counts as one go.
const GO: Duration = Duration::from_secs(60);
/// Paths that the ledger is asked for at once.
const AT_ONCE: usize = 1024;

/// What is gone, and how much was let pass.
#[derive(Default)]
pub(super) struct Deletions {
    leaving: BTreeSet<RelPath>,
    first: Option<Instant>,
    last: Option<Instant>,
    passed: VecDeque<(Instant, u64)>,
}

impl Deletions {
    /// Something was found to be gone.
    pub(super) fn note(&mut self, path: RelPath, now: Instant) {
        self.leaving.insert(path);
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leaving.is_empty()
    }

    /// When what is gone is to be dealt with.
    pub(super) fn due_at(&self) -> Option<Instant> {
        Some((self.last? + QUIET).min(self.first? + LONGEST))
    }

    /// Takes all that is gone, to be confirmed.
    pub(super) fn take(&mut self) -> Vec<RelPath> {
        (self.first, self.last) = (None, None);
        std::mem::take(&mut self.leaving).into_iter().collect()
    }

    /// Whether `count` more may go within a minute in which at most `most` may.
    fn may_pass(&mut self, count: u64, most: u64, now: Instant) -> bool {
        while self.passed.front().is_some_and(|(at, _)| now.duration_since(*at) >= GO) {
            self.passed.pop_front();
        }
        let passed: u64 = self.passed.iter().map(|(_, count)| count).sum();
        if passed.saturating_add(count) > most {
            return false;
        }
        self.passed.push_back((now, count));
        true
    }
}

/// What became of deletions whose time had come.
#[derive(Default)]
pub(super) struct Confirmed {
    /// The vessels are to delete these, in the order in which they were found: parents first.
    pub(super) gone: Vec<RelPath>,
    /// Something has these names again.
    pub(super) back: Vec<RelPath>,
}

/// The location, as far as ingest knows it, for the brakes.
pub(super) struct Place {
    /// Whether the location was away or replaced, and something has been missing in it since.
    pub(super) displaced: bool,
    pub(super) watcher: Option<Watcher>,
}

/// What the brakes go by, asked after the last look at the paths: a disk that is unmounted between the two is noticed here.
struct Facts {
    location: String,
    is_empty: Result<bool, local::DiskError>,
    displaced: bool,
    /// What happened to the file system of the location itself.
    moved: Option<String>,
    /// How many paths the ledger knows in the directory.
    known: u64,
    /// How many at most may be deleted within a minute.
    limit: u64,
    /// Whether the location is one file.
    is_one_file: bool,
}

impl Deletions {
    /// Looks once more at paths whose time has come, and asks the brakes.
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
                     --allow-deletes if they are to be deleted"
                );
                directory.trouble_with(Concern::Deletions, &text);
                Ok(Confirmed { gone: Vec::new(), back })
            }
        }
    }

    /// Why `count` deletions are held back; `None` when they are not. `all` counts those too that another brake holds back
    /// already.
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
        // What else lies there may be what lies below a disk that is not mounted.
        if all >= known && !facts.is_one_file {
            return Some(format!("all {known} paths in {location} are missing; is its disk mounted?"));
        }
        if self.may_pass(count, limit, now) {
            return None;
        }
        Some(format!("{count} deletions of {known} paths in {location} exceed MaxDelete ({limit} per minute)"))
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

/// Looks once more: which of the paths are still gone and were something before, and which are back.
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
        // What it held before is gone, and nothing takes its place on the vessels but what lies in it.
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
        assert!(deletions.may_pass(60, 100, now));
        assert!(deletions.may_pass(40, 100, now + GO / 2));
        assert!(!deletions.may_pass(1, 100, now + GO / 2));
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
        assert!(why(facts(), 1, 10).is_some_and(|why| why.contains("all 10 paths")));
        assert_eq!(why(Facts { is_one_file: true, ..facts() }, 1, 10), None);
        assert!(why(Facts { is_empty: Ok(true), ..facts() }, 1, 1).is_some_and(|why| why.contains("suddenly empty")));
        assert!(why(Facts { displaced: true, ..facts() }, 1, 1).is_some_and(|why| why.contains("was missing")));
        let moved = Some("is on another file system".to_owned());
        assert!(why(Facts { moved, ..facts() }, 1, 1).is_some_and(|why| why.contains("another file system")));
    }
}
