//! Deletions on the shore, and the brakes that keep a mishap from becoming one on every vessel.
//!
//! What is gone waits for a moment, so that many deletions are seen as one, is looked for once more, and is then entered as
//! gone, or not: too many within a minute, a location that is empty or that another directory has taken the place of. What
//! was held back is not remembered: the next look through the directory finds it again.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::ingest::DirectoryIngest;
use super::troubles::Concern;
use crate::fault::Fault;
use crate::local::{self, Sight, Watcher};
use crate::names::RelPath;
use crate::records::{NewVersion, Traits, VersionKind};

/// How long nothing more must have gone before what is gone is dealt with.
const QUIET: Duration = Duration::from_secs(1);
/// The longest that what is gone waits for that.
const LONGEST: Duration = Duration::from_secs(3);
/// What counts as one go.
const GO: Duration = Duration::from_secs(60);
/// Versions that are entered at once.
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

    fn take(&mut self) -> Vec<RelPath> {
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

impl DirectoryIngest {
    /// Deals with what is gone, once its time has come.
    pub(super) async fn let_go(&mut self) -> Result<(), Fault> {
        let due = self.deletions.due_at().is_some_and(|at| at <= Instant::now());
        if !due || self.interval.opens_at().is_some_and(|at| at > Instant::now()) {
            return Ok(());
        }
        self.let_all_go().await
    }

    /// Deals with what is gone, now.
    pub(super) async fn let_all_go(&mut self) -> Result<(), Fault> {
        let paths = self.deletions.take();
        let (busy, paths): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| self.busy.contains(path));
        self.again.extend(busy);
        let mounts = self.look_at_mounts().await?;
        let (gone, back) = self.still_gone(paths).await?;
        self.look_at(back).await?;
        let all = gone.len();
        let gone = self.really_gone(gone, mounts).await?;
        if let Some(why) = self.why_not(&gone, all).await? {
            self.brake(&why);
            return Ok(());
        }
        // What lies in a directory before the directory.
        let gone = gone.into_iter().rev();
        let gone: Vec<_> = gone.map(|path| NewVersion::without_content(path, Traits::GONE, Vec::new())).collect();
        for some in gone.chunks(AT_ONCE) {
            self.enter(some).await?;
        }
        Ok(())
    }

    /// Looks once more: which of the paths are still gone and were something before, and which are back.
    async fn still_gone(&self, paths: Vec<RelPath>) -> Result<(Vec<RelPath>, Vec<RelPath>), Fault> {
        let name = &self.directory.settings.name;
        let mut known = Vec::new();
        for some in paths.chunks(AT_ONCE) {
            let current = self.directory.ledger.current_at(name, some).await.map_err(|e| e.fault())?;
            known.extend(current.into_iter().filter(|v| v.traits.kind != VersionKind::Gone).map(|v| v.path));
        }
        known.sort_unstable();
        let rules = self.rules.clone();
        let is_gone = move |path: &RelPath| match local::see(&rules, path) {
            Ok(Sight::Gone) => true,
            // What it held before is gone, and nothing takes its place on the vessels but what lies in it.
            Ok(Sight::Directory(_)) => !rules.takes_directories(),
            _ => false,
        };
        self.directory.on_disk(move || known.into_iter().partition(is_gone)).await
    }

    /// Why these deletions are not repeated; `None` when they are. `with_held` counts those that are held back already too.
    /// Asked after the last look at the paths: what is
    /// unmounted between the two is noticed here.
    async fn why_not(&mut self, gone: &[RelPath], with_held: usize) -> Result<Option<String>, Fault> {
        if gone.is_empty() || self.directory.allow_deletes {
            return Ok(None);
        }
        let location = self.directory.settings.location.clone();
        let (displaced, watcher) = (self.displaced, self.watcher.take());
        let shown = location.display().to_string();
        let look = move || (local::is_empty(&location), watcher.as_ref().is_some_and(Watcher::is_stale), watcher);
        let (is_empty, is_stale, watcher) = self.directory.on_disk(look).await?;
        self.watcher = watcher;
        let displaced = displaced || is_stale;
        match is_empty {
            Err(e) => return Ok(Some(e.to_string())),
            Ok(true) => {
                return Ok(Some(format!("{shown} is empty all at once, as where a disk is not mounted")));
            }
            Ok(false) => {}
        }
        if displaced {
            return Ok(Some(format!("{shown} was away, or is another directory than when this program started")));
        }
        if let Some(what) = self.mounted.moved.take() {
            return Ok(Some(format!("{shown} {what}")));
        }
        let (name, limit) = (&self.directory.settings.name, self.directory.settings.max_delete);
        let all = self.directory.ledger.count_current(name).await.map_err(|e| e.fault())?;
        let (count, most) = (gone.len() as u64, limit.of(all));
        // What else lies there may be what lies below a disk that is not mounted.
        if with_held as u64 >= all && self.directory.settings.only.is_none() {
            return Ok(Some(format!("all of the {all} paths in {shown} are gone, as where a disk is not mounted")));
        }
        if self.deletions.may_pass(count, most, Instant::now()) {
            return Ok(None);
        }
        Ok(Some(format!("{count} of {all} paths in {shown} are gone, and MaxDelete lets {most} go within a minute")))
    }

    /// Says why nothing is deleted.
    fn brake(&self, why: &str) {
        let text = format!(
            "nothing is deleted on the vessels: {why}; put back what is missing, or start once with --allow-deletes if it \
             is meant to be gone"
        );
        self.directory.trouble_with(Concern::Deletions, &text);
    }

    /// Nothing is missing any more, but what is out of sight with its file system: nothing else holds deletions back. With
    /// `all`, nothing is missing at all: the location is what it was.
    pub(super) fn release_brake(&mut self, all: bool) {
        self.displaced &= !all;
        self.directory.mended(|concern| *concern == Concern::Deletions);
    }
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
}
