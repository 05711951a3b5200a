//! Retires what every vessel has acknowledged: moves the source to `processed/`, or deletes it where it is not to be kept.

use std::collections::HashSet;
use std::iter::Peekable;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Directory;
use super::expiry::Expiry;
use super::troubles::Concern;
use crate::fault::Fault;
use crate::local::{self, DiskError, Retired};
use crate::monitor::Event;
use crate::names::RelPath;
use crate::records::{Version, VersionId};
use crate::settings::KeepProcessed;

/// How soon what couldn't be moved is tried again.
const AGAIN: Duration = Duration::from_secs(30);
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
    let stop = &directory.stop;
    stop.run_until_cancelled(directory.tidy_up()).await.unwrap_or(Ok(()))?;
    let mut retiring = Retiring { directory: &directory, failed: HashSet::new(), stop: Some(stop) };
    let mut expiry = Expiry::new(&directory);
    loop {
        retiring.all_complete().await?;
        let Some(wait) = stop.run_until_cancelled(expiry.step()).await else { return Ok(()) };
        let wait = wait?;
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
    Retiring { directory, failed: HashSet::new(), stop: None }.all_complete().await
}

struct Retiring<'a> {
    directory: &'a Directory,
    /// What couldn't be retired this time.
    failed: HashSet<RelPath>,
    /// Ends it between two files, and in the middle of one that takes long: the next start finds it half-way and ends it.
    stop: Option<&'a CancellationToken>,
}

impl Retiring<'_> {
    async fn all_complete(&mut self) -> Result<(), Fault> {
        let mut after = VersionId(0);
        self.failed.clear();
        loop {
            let name = &self.directory.settings.name;
            let versions = self.directory.ledger.retirable(name, after, BATCH).await.map_err(|e| e.fault())?;
            let Some(last) = versions.last() else {
                let failed = &self.failed;
                let is_over = |concern: &_| matches!(concern, Concern::Retirement(path) if !failed.contains(path));
                self.directory.mended(is_over);
                return Ok(());
            };
            after = last.id;
            let mut versions = versions.into_iter().peekable();
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
        let moving = self.directory.on_disk(move || act(&location, &versions, &stopped));
        let outcomes = tokio::select! {
            moved = moving => moved?,
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
                return None;
            }
        }
        Some(version.id)
    }

    async fn out_of_time(&self) {
        let Some(stop) = self.stop else { return std::future::pending().await };
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    }

    fn complain(&mut self, path: &RelPath, error: &DiskError) {
        let text = format!("can't retire {path}: {}", error.fault());
        self.directory.trouble_with(Concern::Retirement(path.clone()), &text);
        self.failed.insert(path.clone());
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
