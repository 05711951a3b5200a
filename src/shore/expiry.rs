//! Removal of files whose time in `processed/` has expired, limited to files that the ledger has put there.
//!
//! Removals are not recorded: the next check finds the file gone, and the ledger keeps its entry for receipts. Versions
//! are checked step by step, starting at the first that may still have a file there.

use std::time::{Duration, Instant};

use super::Directory;
use crate::clock::WaryClock;
use crate::fault::Fault;
use crate::ledger::Retiree;
use crate::local::{self, Expired};
use crate::records::VersionId;
use crate::settings::KeepProcessed;

/// Shortest and longest interval between checks.
const OFTEN: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(3600);
/// Maximum number of files deleted in one go; a stop is checked in between.
const AT_ONCE: usize = 256;

pub(super) struct Expiry<'a> {
    directory: &'a Directory,
    /// How long files are kept; `None` means forever, or not at all.
    keep: Option<Duration>,
    next_look: Instant,
    wary: WaryClock,
    /// Current position of this check.
    at: VersionId,
    /// Versions before this one have no file in `processed/` any more.
    done: VersionId,
    /// Whether this check has met no file that must be deleted later.
    all_gone: bool,
    complained: bool,
}

impl<'a> Expiry<'a> {
    pub(super) fn new(directory: &'a Directory) -> Self {
        let keep = match directory.settings.keep_processed {
            KeepProcessed::For(time) => Some(time),
            KeepProcessed::Forever | KeepProcessed::No => None,
        };
        let (first, wary) = (VersionId(0), WaryClock::new(directory.clock.clone()));
        Self {
            directory,
            keep,
            wary,
            next_look: Instant::now(),
            at: first,
            done: first,
            all_gone: true,
            complained: false,
        }
    }

    /// Takes a step if one is due; returns how long to wait for the next.
    pub(super) async fn step(&mut self) -> Result<Duration, Fault> {
        let Some(keep) = self.keep else { return Ok(SELDOM) };
        let wait = self.next_look.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            return Ok(wait);
        }
        let name = &self.directory.settings.name;
        let step = self.directory.ledger.retirees(name, self.at).await.map_err(|e| e.fault())?;
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let until = self.wary.now_ms().saturating_sub(keep_ms);
        let (old, young): (Vec<_>, Vec<_>) =
            step.found.into_iter().partition(|one| one.retired_at.is_some_and(|at| at <= until));
        let went = self.delete(old, until).await?;
        self.all_gone &= went && young.is_empty();
        match step.next {
            Some(next) => self.at = next,
            None => {
                (self.at, self.all_gone) = (self.done, true);
                self.next_look = Instant::now() + (keep / 8).clamp(OFTEN, SELDOM);
            }
        }
        if self.all_gone && step.next.is_some() {
            self.done = self.at;
        }
        Ok(self.next_look.saturating_duration_since(Instant::now()))
    }

    /// Deletes files; returns `false` if one of them must be tried again.
    async fn delete(&mut self, old: Vec<Retiree>, until: i64) -> Result<bool, Fault> {
        let (mut failed, mut later, mut deleted) = (None, false, 0_u64);
        for some in old.chunks(AT_ONCE) {
            if self.directory.stop.is_cancelled() {
                return Ok(false);
            }
            let location = self.directory.settings.location.clone();
            let files: Vec<_> = some.iter().map(|one| (one.processed.clone(), one.stamp)).collect();
            for outcome in self.directory.on_disk(move || local::expire(&location, &files, until)).await? {
                match outcome {
                    Ok(Expired::Deleted) => deleted += 1,
                    Ok(Expired::NotThere) => {}
                    Ok(Expired::Later) => later = true,
                    Err(e) => failed = Some(e),
                }
            }
        }
        let name = &self.directory.settings.name;
        if deleted > 0 {
            tracing::info!(directory = %name, files = deleted, "Removed expired files from processed/");
        }
        if let Some(error) = &failed
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::warn!(directory = %name, "Cannot remove expired files from processed/: {}", error.fault());
        }
        self.complained &= failed.is_some();
        Ok(failed.is_none() && !later)
    }
}
