//! Retires source files that every vessel has acknowledged: moves them to `processed/`, or deletes them if
//! `KeepProcessed` says so. Files that expired before any vessel had received them are moved to `expired/`.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::iter::Peekable;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Directory;
use super::clean_processed::CleanProcessed;
use super::recheck_retired::RetiredRechecks;
use super::retire_wait::{RetireWait, remaining};
use super::troubles::Concern;
use crate::backoff::Backoff;
use crate::fault::Fault;
use crate::local::{self, Changed, DiskError, EXPIRED, MayRetire, Moved, PROCESSED, Retired};
use crate::monitor::Event;
use crate::names::RelPath;
use crate::records::{Version, VersionId};
use crate::settings::KeepProcessed;

/// Longest pause between two checks, and minimum wait after a source couldn't be moved.
const AGAIN: Duration = Duration::from_secs(30);
/// Wait before the next attempt for a source that is open for writing, and for a source that has changed.
const IN_USE: Duration = Duration::from_secs(2);
const CHANGED: Duration = Duration::from_secs(1);
/// Backoff for a version that couldn't be moved. Acknowledgements of other files don't shorten it.
const STUCK: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(600));
/// How long a stop waits for a running move. A rename takes less time. A copy to another disk that takes longer is
/// abandoned, and the next attempt completes or repeats it.
const GRACE: Duration = Duration::from_secs(3);
/// How long a single run (`--once`) waits for sources that must stay unchanged for a while before they retire.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause after a check of all complete versions, as a multiple of the check's duration, and the maximum of that pause.
/// Without the pause, every acknowledgement would start another check at once.
const SHARE: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Maximum number of versions fetched at once, and maximum total size of versions that are moved and recorded together.
/// The size is limited because a long copy to another disk should not delay the recording of versions that were moved
/// before it.
const BATCH: u32 = 256;
const BATCH_BYTES: u64 = 64 << 20;

/// Retires a directory's files until it is stopped.
///
/// # Errors
/// Returns a daemon-wide [`Fault`] if the ledger can't be used. Faults of `processed/` are logged and retried.
pub async fn retire(directory: Directory) -> Result<(), Fault> {
    let stop = &directory.stop;
    stop.run_until_cancelled(directory.tidy_up()).await.unwrap_or(Ok(()))?;
    let mut retiring = Retiring::new(&directory, Some(stop));
    let mut cleaning = CleanProcessed::new(&directory);
    loop {
        let begun = Instant::now();
        retiring.all_complete().await?;
        let Some(looked) = stop.run_until_cancelled(retiring.look_after()).await else { return Ok(()) };
        looked?;
        let pause = (begun.elapsed() * SHARE).min(LONGEST_PAUSE);
        let Some(wait) = stop.run_until_cancelled(cleaning.step()).await else { return Ok(()) };
        let wait = wait?.min(AGAIN);
        let due = retiring.waiting.due_at().into_iter().chain(retiring.rechecks.due_at());
        let again_at = due.fold(begun + wait, Instant::min);
        let next = async {
            tokio::select! {
                () = directory.retire_bell.rung() => {}
                () = tokio::time::sleep_until(again_at.into()) => {}
            }
            tokio::time::sleep(pause).await;
        };
        if stop.run_until_cancelled(next).await.is_none() {
            return Ok(());
        }
    }
}

/// Retires all versions that every vessel has acknowledged, even if the directory is being stopped. Waits up to 30 s
/// for sources that must stay unchanged for a while before they retire.
///
/// # Errors
/// Fails like [`retire()`].
pub async fn retire_all(directory: &Directory) -> Result<(), Fault> {
    let patience = Instant::now() + PATIENCE;
    let mut retiring = Retiring::new(directory, None);
    loop {
        retiring.all_complete().await?;
        match retiring.waiting.rested_at() {
            Some(at) if at <= patience => tokio::time::sleep_until(at.into()).await,
            _ => return Ok(()),
        }
    }
}

/// Result of an attempt to move or delete sources.
struct Acted {
    outcomes: Vec<(Version, Result<Retired, DiskError>)>,
    /// Time of the last change of each file, as read during the attempt.
    noted: HashMap<VersionId, Changed>,
    /// Versions that were stored in `processed/` under another name, because a directory there has their name.
    beside_directories: HashSet<VersionId>,
    /// Whether the directory is on a file system to which other hosts may write.
    shared: bool,
}

struct Retiring<'a> {
    directory: &'a Directory,
    /// Versions whose next attempt is not due yet.
    waiting: RetireWait,
    /// Retired files that are still checked for writes after their move.
    rechecks: RetiredRechecks,
    /// For each version that couldn't be moved: the number of failures and the time of the next attempt.
    stuck: HashMap<VersionId, (u32, Instant)>,
    /// Paths of versions that couldn't be moved. `not_looked_after` are the paths of retired files that couldn't be
    /// checked after their move.
    failed: HashMap<VersionId, RelPath>,
    not_looked_after: HashSet<RelPath>,
    /// Whether a version may have expired before any vessel had received it; `None` until the ledger is asked.
    may_expire: Option<bool>,
    /// Token that stops the work between two files, and ends the wait for a long copy after [`GRACE`]. `None` if the
    /// work must not be stopped.
    stop: Option<&'a CancellationToken>,
}

impl<'a> Retiring<'a> {
    fn new(directory: &'a Directory, stop: Option<&'a CancellationToken>) -> Self {
        Self {
            directory,
            waiting: RetireWait::default(),
            rechecks: RetiredRechecks::default(),
            stuck: HashMap::new(),
            failed: HashMap::new(),
            not_looked_after: HashSet::new(),
            may_expire: directory.settings.expire.is_some().then_some(true),
            stop,
        }
    }

    /// Returns whether a version that failed before may be tried again. Other versions are always due.
    fn is_due(&self, version: VersionId) -> bool {
        self.stuck.get(&version).is_none_or(|(_, next)| *next <= Instant::now())
    }

    fn put_off(&mut self, version: VersionId) {
        let (failures, next) = self.stuck.entry(version).or_insert((0, Instant::now()));
        *failures += 1;
        // The wait is random, between 50 % and 100 % of the backoff, because many versions may fail at once for the
        // same reason.
        *next = Instant::now() + STUCK.wait(*failures, 0.5 + fastrand::f64() / 2.0);
    }

    async fn all_complete(&mut self) -> Result<(), Fault> {
        let mut after = VersionId(0);
        let mut asked = HashSet::new();
        loop {
            let name = &self.directory.settings.name;
            let versions = self.directory.ledger.retirable(name, after, BATCH).await.map_err(|e| e.fault())?;
            let Some(last) = versions.last() else { break };
            after = last.id;
            asked.extend(versions.iter().map(|version| version.id));
            let now = Instant::now();
            let may_move = |version: &Version| !self.waiting.rests(version.id, now) && self.is_due(version.id);
            let due: Vec<_> = versions.into_iter().filter(may_move).collect();
            let mut versions = due.into_iter().peekable();
            while versions.peek().is_some() {
                if self.stop.is_some_and(CancellationToken::is_cancelled) {
                    return Ok(());
                }
                let few = first_few(&mut versions);
                let expired = self.unreceived(&few).await?;
                let (expired, received): (Vec<_>, _) =
                    few.into_iter().partition(|version| expired.contains(&version.id));
                for (versions, expired) in [(received, false), (expired, true)] {
                    if !versions.is_empty() {
                        self.batch(versions, expired).await?;
                    }
                }
            }
        }
        self.waiting.keep(|version| asked.contains(&version));
        self.stuck.retain(|version, _| asked.contains(version));
        self.failed.retain(|version, _| asked.contains(version));
        self.mend();
        Ok(())
    }

    /// Clears the retirement troubles of files that no longer fail.
    fn mend(&self) {
        let failed: HashSet<_> = self.failed.values().chain(&self.not_looked_after).collect();
        self.directory.mended(|concern| matches!(concern, Concern::Retirement(path) if !failed.contains(path)));
    }

    /// Returns the versions among these that expired before any vessel had received them.
    async fn unreceived(&mut self, versions: &[Version]) -> Result<Vec<VersionId>, Fault> {
        let (ledger, name) = (&self.directory.ledger, &self.directory.settings.name);
        let may_expire = match self.may_expire {
            Some(may_expire) => may_expire,
            None => *self.may_expire.insert(ledger.has_expired(name).await.map_err(|e| e.fault())?),
        };
        if !may_expire {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = versions.iter().map(|version| version.id).collect();
        ledger.unreceived(&ids).await.map_err(|e| e.fault())
    }

    /// Moves or deletes the sources of these versions, and records the retired ones. If a source was moved but could
    /// not be recorded, the next attempt detects this.
    async fn batch(&mut self, versions: Vec<Version>, expired: bool) -> Result<(), Fault> {
        let Acted { outcomes, noted, beside_directories, shared } = tokio::select! {
            moved = self.act(versions, expired) => moved?,
            () = self.out_of_time() => return Ok(()),
        };
        for (version, outcome) in &outcomes {
            self.stays(version, outcome, noted.get(&version.id).copied());
            if expired {
                continue;
            }
            if let (true, Ok(Retired::Moved(to))) = (beside_directories.contains(&version.id), outcome) {
                self.say_beside_directory(version, to);
            }
            if let (true, Ok(Retired::Moved(to))) = (shared, outcome) {
                let (path, to) = (version.path.clone(), to.clone());
                self.rechecks.note(Moved { path, to, stamp: version.stamp }, Instant::now());
            }
        }
        let renamed = |(version, outcome): &(Version, _)| match outcome {
            Ok(Retired::Moved(to) | Retired::AlreadyThere(to)) if *to != version.path => Some((version.id, to.clone())),
            _ => None,
        };
        let renamed: Vec<_> = outcomes.iter().filter_map(renamed).collect();
        if !renamed.is_empty() {
            self.directory.ledger.moved_to(&renamed).await.map_err(|e| e.fault())?;
        }
        let ended: Vec<VersionId> =
            outcomes.into_iter().filter_map(|(version, outcome)| self.has_ended(&version, outcome, expired)).collect();
        self.directory.ledger.retired(&ended).await.map_err(|e| e.fault())
    }

    /// Moves or deletes the sources of these versions on a separate thread.
    async fn act(&self, versions: Vec<Version>, expired: bool) -> Result<Acted, Fault> {
        self.directory.ledger.surely_ours().await.map_err(|e| e.fault())?;
        let (location, stop) = (self.directory.settings.location.clone(), self.stop.cloned());
        let stopped = move || stop.as_ref().is_some_and(CancellationToken::is_cancelled);
        let discard = self.directory.settings.keep_processed == KeepProcessed::No;
        let act = match (expired, discard) {
            (true, _) => local::set_aside,
            (false, true) => local::discard,
            (false, false) => local::retire,
        };
        let writers = self.directory.writers.clone();
        let known = self.waiting.known(versions.iter().map(|version| version.id));
        let work = move || {
            let noted = RefCell::new(HashMap::new());
            let wait = |version: &Version, changed: Changed| {
                noted.borrow_mut().insert(version.id, changed);
                remaining(writers.rest(&version.path), changed, known.get(&version.id).copied())
            };
            let outcomes = act(&location, &versions, MayRetire { writers: &writers, wait: &wait }, &stopped);
            let beside = |(version, outcome): &(Version, _)| match outcome {
                Ok(Retired::Moved(to)) if *to != version.path => {
                    local::is_directory_in_processed(&location, &version.path)
                }
                _ => false,
            };
            let beside_directories = outcomes.iter().filter(|one| beside(one)).map(|(version, _)| version.id).collect();
            let shared = local::is_shared(&location);
            Acted { outcomes, noted: noted.into_inner(), beside_directories, shared }
        };
        self.directory.on_disk(work).await
    }

    /// Schedules the next attempt for a source that was not retired.
    fn stays(&mut self, version: &Version, outcome: &Result<Retired, DiskError>, changed: Option<Changed>) {
        let now = Instant::now();
        match outcome {
            Ok(Retired::NotYet(left)) => self.waiting.rest(version.id, *left, changed, now),
            Ok(Retired::InUse) => {
                let name = &self.directory.settings.name;
                tracing::debug!(
                    directory = %name, file = %version.path,
                    "Not retired yet: the file is open for writing"
                );
                self.waiting.put_off(version.id, IN_USE, now);
            }
            // Asks ingest to check the path. Ingest records the changed file as a new version, which supersedes this
            // one.
            Ok(Retired::SourceChanged) => {
                self.waiting.put_off(version.id, CHANGED, now);
                self.directory.recheck.at(version.path.clone());
            }
            Err(_) => self.waiting.put_off(version.id, AGAIN, now),
            Ok(_) => self.waiting.forget(version.id),
        }
    }

    /// Moves files back that were written to after they retired.
    async fn look_after(&mut self) -> Result<(), Fault> {
        let due = self.rechecks.due(Instant::now());
        if due.is_empty() {
            if self.rechecks.due_at().is_none() {
                // No file is checked any more, so a trouble that a file's last check reported is over.
                self.not_looked_after.clear();
            }
            return Ok(());
        }
        self.not_looked_after.clear();
        let location = self.directory.settings.location.clone();
        let look = move || due.into_iter().map(|moved| (local::put_back(&location, &moved), moved)).collect::<Vec<_>>();
        for (outcome, moved) in self.directory.on_disk(look).await? {
            match outcome {
                Ok(false) => {}
                Ok(true) => {
                    let name = &self.directory.settings.name;
                    tracing::warn!(
                        directory = %name, file = %moved.path,
                        "The file was written to after it retired; sending it again"
                    );
                    self.rechecks.forget(&moved);
                }
                Err(e) => {
                    self.complain(&moved.path, &e);
                    self.not_looked_after.insert(moved.path);
                }
            }
        }
        Ok(())
    }

    /// Reports the outcome for a version. Returns the version's id if the ledger may record it as retired.
    fn has_ended(
        &mut self,
        version: &Version,
        outcome: Result<Retired, DiskError>,
        expired: bool,
    ) -> Option<VersionId> {
        let (name, path) = (&version.directory, &version.path);
        match outcome {
            Ok(Retired::Moved(to) | Retired::AlreadyThere(to)) if expired => {
                tracing::warn!(
                    directory = %name, file = %path,
                    "No vessel received the file before it expired; moved to {EXPIRED}/{to}"
                );
            }
            Ok(Retired::SourceGone) if expired => {
                tracing::info!(directory = %name, file = %path, "Expired; the source was already removed");
            }
            Ok(Retired::Moved(to) | Retired::AlreadyThere(to)) => {
                tracing::info!(
                    directory = %name, file = %path, processed = %to,
                    "Moved the delivered file to {PROCESSED}/"
                );
                self.directory.monitor.notice(&Event::Retired { directory: name, path });
            }
            Ok(Retired::Deleted) => {
                tracing::info!(directory = %name, file = %path, "Deleted the delivered file");
                self.directory.monitor.notice(&Event::Retired { directory: name, path });
            }
            Ok(Retired::SourceGone) => {
                tracing::info!(
                    directory = %name, file = %path,
                    "Delivered to all vessels; the source was already removed"
                );
            }
            Ok(Retired::SourceChanged | Retired::InUse | Retired::NotYet(_)) => return None,
            Err(e) => {
                self.complain(path, &e);
                self.put_off(version.id);
                self.failed.insert(version.id, path.clone());
                return None;
            }
        }
        self.stuck.remove(&version.id);
        self.failed.remove(&version.id);
        Some(version.id)
    }

    /// Warns that a file was stored under another name, because a directory in `processed/` has its name.
    fn say_beside_directory(&self, version: &Version, to: &RelPath) {
        let (directory, path) = (&self.directory.settings.name, &version.path);
        tracing::warn!(
            %directory, file = %path, processed = %to,
            "Moved the file to {PROCESSED}/{to}, because {PROCESSED}/{path} is a directory; move that directory away"
        );
    }

    async fn out_of_time(&self) {
        let Some(stop) = self.stop else { return std::future::pending().await };
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    }

    fn complain(&mut self, path: &RelPath, error: &DiskError) {
        let fault = error.fault();
        tracing::debug!(directory = %self.directory.settings.name, file = %path, "Cannot retire the file: {fault}");
        let text = format!("can't retire {path}: {fault}");
        self.directory.trouble_with(Concern::Retirement(path.clone()), &text);
    }
}

/// Takes the next versions that may be moved together, at least one.
fn first_few(versions: &mut Peekable<impl Iterator<Item = Version>>) -> Vec<Version> {
    let mut few: Vec<Version> = versions.next().into_iter().collect();
    let mut bytes = few.iter().map(|version| version.stamp.size).sum::<u64>();
    while let Some(version) = versions.next_if(|version| bytes.saturating_add(version.stamp.size) <= BATCH_BYTES) {
        bytes += version.stamp.size;
        few.push(version);
    }
    few
}
