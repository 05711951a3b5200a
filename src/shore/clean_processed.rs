//! Removes old files from `processed/`: files that retired longer than `KeepProcessed` ago. Files that the ledger does
//! not list as retired are never removed.
//!
//! Removals are not recorded in the ledger, because receipts still need the ledger entry; a later check finds that the
//! file no longer exists. A check goes through the retired versions in steps and starts at the first version that may
//! still have a file in `processed/`.

use std::time::{Duration, Instant};

use super::Directory;
use crate::clock::WaryClock;
use crate::fault::Fault;
use crate::ledger::Retiree;
use crate::local::{self, Expired};
use crate::records::VersionId;
use crate::settings::KeepProcessed;

/// Shortest and longest wait between two checks of `processed/`.
const OFTEN: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(3600);
/// Maximum number of files deleted per disk task. Between these tasks, the loop checks whether it must stop.
const AT_ONCE: usize = 256;

pub(super) struct CleanProcessed<'a> {
    directory: &'a Directory,
    /// How long files stay in `processed/`; `None` if they are kept forever or never moved there.
    keep: Option<Duration>,
    next_look: Instant,
    wary: WaryClock,
    /// The version at which the next step of the running check starts.
    at: VersionId,
    /// The first version that may still have a file in `processed/`. No earlier version has one.
    done: VersionId,
    /// Whether every file that the running check has examined so far is gone from `processed/`.
    all_gone: bool,
    complained: bool,
}

impl<'a> CleanProcessed<'a> {
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

    /// Runs the next step of the check if it is due. Returns the wait until the following step.
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

    /// Deletes old files from `processed/`. Returns `false` if a file could not be deleted yet or if the task must
    /// stop.
    async fn delete(&mut self, old: Vec<Retiree>, until: i64) -> Result<bool, Fault> {
        let (mut failed, mut later, mut deleted) = (None, false, 0_u64);
        for some in old.chunks(AT_ONCE) {
            if self.directory.stop.is_cancelled() {
                return Ok(false);
            }
            self.directory.ledger.surely_ours().await.map_err(|e| e.fault())?;
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
            tracing::info!(directory = %name, files = deleted, "Removed old files from processed/");
        }
        if let Some(error) = &failed
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::warn!(directory = %name, "Cannot remove old files from processed/: {}", error.fault());
        }
        self.complained &= failed.is_some();
        Ok(failed.is_none() && !later)
    }
}
