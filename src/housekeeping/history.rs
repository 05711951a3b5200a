//! Prunes old history from the ledger, and returns the ledger's unused space to the disk.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, WaryClock};
use crate::ledger::{Ledger, LedgerError};
use crate::records::VersionId;
use crate::settings::{KeepProcessed, Settings};

/// Shortest and longest time between two runs of the housekeeping.
const OFTEN: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(3600);
/// Pause between two steps, so that deliveries can use the ledger.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the ledger keeps the entries of files in `processed/` after `KeepProcessed` has passed, in milliseconds.
/// The removal of these files needs the entries.
const MARGIN: i64 = 24 * 3600 * 1000;

/// Prunes and compacts the ledger regularly until `stop` is cancelled.
pub(super) async fn keep(settings: Arc<Settings>, ledger: Ledger, clock: Clock, stop: CancellationToken) {
    let wary = WaryClock::new(clock);
    let wait = settings.monster.keep_history.map_or(SELDOM, |keep| (keep / 8).clamp(OFTEN, SELDOM));
    loop {
        let outcome = async {
            if let Some(before) = too_old(&settings, wary.now_ms()) {
                prune(&ledger, before).await?;
            }
            while ledger.compact().await? {
                tokio::time::sleep(PAUSE).await;
            }
            Ok::<(), LedgerError>(())
        };
        match stop.run_until_cancelled(outcome).await {
            None => return,
            // Logged at debug level only, because the workflows also report errors of the ledger.
            Some(Err(e)) => tracing::debug!("Cannot prune or compact the ledger: {e}"),
            Some(Ok(())) => {}
        }
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// Returns the time (milliseconds since 1970) before which a version must have ended to be pruned; `None` if the
/// settings say that no version is pruned.
fn too_old(settings: &Settings, now: i64) -> Option<i64> {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let kept = |directory: &crate::settings::Directory| match directory.keep_processed {
        KeepProcessed::For(time) if !directory.is_mirror() => Some(ms(time).saturating_add(MARGIN)),
        _ => None,
    };
    let history = ms(settings.monster.keep_history?);
    let longest = settings.directories.iter().filter_map(kept).fold(history, i64::max);
    Some(now.saturating_sub(longest))
}

async fn prune(ledger: &Ledger, before: i64) -> Result<(), LedgerError> {
    let (mut at, mut pruned) = (Some(VersionId(0)), 0);
    while let Some(after) = at {
        let step = ledger.prune(before, after).await?;
        pruned += step.found;
        at = step.next;
        tokio::time::sleep(PAUSE).await;
    }
    if pruned > 0 {
        tracing::info!(versions = pruned, "Removed versions older than KeepHistory from the ledger");
    }
    Ok(())
}
