//! Retires what every vessel has acknowledged: moves the source to `processed/`, or deletes it where it is not to be kept.

use std::collections::{HashMap, HashSet};
use std::iter::Peekable;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Directory;
use super::expiry::Expiry;
use crate::backoff::Backoff;
use crate::fault::Fault;
use crate::local::{self, DiskError, Retired};
use crate::monitor::Event;
use crate::names::RelPath;
use crate::records::{Version, VersionId};
use crate::settings::KeepProcessed;

/// How often it is looked for what couldn't be moved.
const AGAIN: Duration = Duration::from_secs(30);
/// The waits of a version that couldn't be moved, whatever is acknowledged meanwhile.
const STUCK: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(600));
/// How long a move under way is waited for when it is stopped: a rename is done by then, a copy to another disk may not be.
const GRACE: Duration = Duration::from_secs(3);
/// Versions asked for, moved and entered at once, and how large they may be together: what has to be copied to another
/// disk should not keep those before it from being entered.
const BATCH: u32 = 256;
const BATCH_BYTES: u64 = 64 << 20;

/// Retires a directory's files until it is stopped.
///
/// # Errors
/// A [`Fault`] of the daemon's when the ledger can't be used. Trouble with `processed/` is logged and tried again.
pub async fn retire(directory: Directory) -> Result<(), Fault> {
    let mut retiring = Retiring::of(&directory, Some(&directory.stop));
    let mut expiry = Expiry::new(&directory);
    loop {
        retiring.all_complete().await?;
        let wait = expiry.step().await?;
        tokio::select! {
            () = directory.retire_bell.rung() => {}
            () = tokio::time::sleep(AGAIN.min(wait)) => {}
            () = directory.stop.cancelled() => return Ok(()),
        }
    }
}

/// Retires what is complete now, all of it, stopped or not.
///
/// # Errors
/// As [`retire()`].
pub async fn retire_all(directory: &Directory) -> Result<(), Fault> {
    Retiring::of(directory, None).all_complete().await
}

struct Retiring<'a> {
    directory: &'a Directory,
    /// What was said already.
    complained: HashSet<String>,
    /// What couldn't be moved: how often that was tried, and when it is tried next.
    stuck: HashMap<VersionId, (u32, Instant)>,
    /// Ends it between two files, and in the middle of one that takes long: the next start finds it half-way and ends it.
    stop: Option<&'a CancellationToken>,
}

impl<'a> Retiring<'a> {
    fn of(directory: &'a Directory, stop: Option<&'a CancellationToken>) -> Self {
        Self { directory, complained: HashSet::new(), stuck: HashMap::new(), stop }
    }

    /// Whether a version is to be tried now.
    fn is_due(&self, version: VersionId) -> bool {
        self.stuck.get(&version).is_none_or(|(_, next)| *next <= Instant::now())
    }

    fn put_off(&mut self, version: VersionId) {
        let (failures, next) = self.stuck.entry(version).or_insert((0, Instant::now()));
        *failures += 1;
        // Never sooner than half the ceiling: many fail together for one reason.
        *next = Instant::now() + STUCK.wait(*failures, 0.5 + fastrand::f64() / 2.0);
    }

    async fn all_complete(&mut self) -> Result<(), Fault> {
        let mut after = VersionId(0);
        loop {
            let name = &self.directory.settings.name;
            let versions = self.directory.ledger.retirable(name, after, BATCH).await.map_err(|e| e.fault())?;
            let Some(last) = versions.last() else { return Ok(()) };
            after = last.id;
            let due: Vec<_> = versions.into_iter().filter(|version| self.is_due(version.id)).collect();
            let mut versions = due.into_iter().peekable();
            while versions.peek().is_some() {
                if self.stop.is_some_and(CancellationToken::is_cancelled) {
                    return Ok(());
                }
                self.batch(first_few(&mut versions)).await?;
            }
        }
    }

    /// Moves versions, and enters those that are moved. One that was moved and not entered is found so the next time.
    async fn batch(&mut self, versions: Vec<Version>) -> Result<(), Fault> {
        let (location, stop) = (self.directory.settings.location.clone(), self.stop.cloned());
        let stopped = move || stop.as_ref().is_some_and(CancellationToken::is_cancelled);
        let discard = self.directory.settings.keep_processed == KeepProcessed::No;
        let act = if discard { local::discard } else { local::retire };
        let moving = tokio::task::spawn_blocking(move || act(&location, &versions, &stopped));
        let outcomes = tokio::select! {
            moved = moving => moved.map_err(|e| Fault::daemon(format_args!("retiring: {e}")))?,
            () = self.out_of_time() => return Ok(()),
        };
        let renamed = |(version, outcome): &(Version, _)| match outcome {
            Ok(Retired::Moved(to) | Retired::AlreadyThere(to)) if *to != version.path => Some((version.id, to.clone())),
            _ => None,
        };
        let renamed: Vec<_> = outcomes.iter().filter_map(renamed).collect();
        if !renamed.is_empty() {
            self.directory.ledger.moved_to(&renamed).await.map_err(|e| e.fault())?;
        }
        let ended: Vec<VersionId> =
            outcomes.into_iter().filter_map(|(version, outcome)| self.has_ended(&version, outcome)).collect();
        self.directory.ledger.retired(&ended).await.map_err(|e| e.fault())
    }

    /// Tells what came of a version, and gives its number when there is nothing left of it to move.
    fn has_ended(&mut self, version: &Version, outcome: Result<Retired, DiskError>) -> Option<VersionId> {
        let (name, path) = (&version.directory, &version.path);
        match outcome {
            Ok(Retired::Moved(to) | Retired::AlreadyThere(to)) => {
                tracing::info!(directory = %name, file = %path, processed = %to, "retired");
                self.directory.monitor.notice(&Event::Retired { directory: name, path });
            }
            Ok(Retired::Deleted) => {
                tracing::info!(directory = %name, file = %path, "retired: the source is deleted");
                self.directory.monitor.notice(&Event::Retired { directory: name, path });
            }
            Ok(Retired::SourceGone) => {
                tracing::info!(directory = %name, file = %path, "delivered everywhere; the source is gone already");
            }
            // The watch finds the new version, which ends this one.
            Ok(Retired::SourceChanged) => return None,
            Err(e) => {
                self.complain(path, &e);
                self.put_off(version.id);
                return None;
            }
        }
        self.stuck.remove(&version.id);
        Some(version.id)
    }

    async fn out_of_time(&self) {
        let Some(stop) = self.stop else { return std::future::pending().await };
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    }

    fn complain(&mut self, path: &RelPath, error: &DiskError) {
        let fault = error.fault().to_string();
        tracing::debug!(directory = %self.directory.settings.name, file = %path, "not moved: {fault}");
        if self.complained.insert(fault.clone()) {
            let name = &self.directory.settings.name;
            tracing::error!(directory = %name, file = %path, "can't retire: {fault}");
            self.directory.monitor.notice(&Event::DirectoryAway { directory: name, reason: &fault });
            self.directory.trouble.send_replace(Some(fault));
        }
    }
}

/// Takes as many versions as may be moved together, at least one.
fn first_few(versions: &mut Peekable<impl Iterator<Item = Version>>) -> Vec<Version> {
    let mut few: Vec<Version> = versions.next().into_iter().collect();
    let mut bytes = few.iter().map(|version| version.stamp.size).sum::<u64>();
    while let Some(version) = versions.next_if(|version| bytes.saturating_add(version.stamp.size) <= BATCH_BYTES) {
        bytes += version.stamp.size;
        few.push(version);
    }
    few
}
