//! Retires what every vessel has acknowledged: moves the source to `processed/`.

use std::collections::HashSet;
use std::time::Duration;

use super::Directory;
use crate::fault::Fault;
use crate::local::{self, DiskError, Retired};
use crate::monitor::Event;
use crate::records::{Version, VersionId};

/// How soon what couldn't be moved is tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// Versions asked for at once.
const BATCH: u32 = 256;

/// Retires a directory's files until it is stopped; what is complete by then is still retired.
///
/// # Errors
/// A [`Fault`] of the daemon's when the ledger can't be used. Trouble with `processed/` is logged and tried again.
pub async fn retire(directory: Directory) -> Result<(), Fault> {
    let mut complained = HashSet::new();
    loop {
        retire_complete(&directory, &mut complained).await?;
        tokio::select! {
            () = directory.retire_bell.rung() => {}
            () = tokio::time::sleep(AGAIN) => {}
            () = directory.stop.cancelled() => return retire_complete(&directory, &mut complained).await,
        }
    }
}

async fn retire_complete(directory: &Directory, complained: &mut HashSet<String>) -> Result<(), Fault> {
    let mut after = VersionId(0);
    loop {
        let name = &directory.settings.name;
        let versions = directory.ledger.retirable(name, after, BATCH).await.map_err(|e| e.fault())?;
        let Some(last) = versions.last() else { return Ok(()) };
        after = last.id;
        for version in versions {
            retire_one(directory, version, complained).await?;
        }
    }
}

async fn retire_one(directory: &Directory, version: Version, complained: &mut HashSet<String>) -> Result<(), Fault> {
    let location = directory.settings.location.clone();
    let wanted = version.clone();
    let moving =
        tokio::task::spawn_blocking(move || local::retire(&location, &wanted.path, &wanted.stamp, &wanted.digest));
    let moved = moving.await.map_err(|e| Fault::daemon(format_args!("retiring: {e}")))?;
    let (name, path) = (&version.directory, &version.path);
    match moved {
        Ok(Retired::Moved(to) | Retired::AlreadyThere(to)) => {
            tracing::info!(directory = %name, file = %path, processed = %to, "retired");
            directory.monitor.notice(&Event::Retired { directory: name, path });
        }
        Ok(Retired::SourceGone) => {
            tracing::info!(directory = %name, file = %path, "delivered everywhere; the source is gone already");
        }
        // The watch finds the new version; this one has been delivered and there is nothing left of it to move.
        Ok(Retired::SourceChanged) => return Ok(()),
        Err(e) => {
            complain(directory, &e, complained);
            return Ok(());
        }
    }
    directory.ledger.retired(version.id).await.map_err(|e| e.fault())
}

fn complain(directory: &Directory, error: &DiskError, complained: &mut HashSet<String>) {
    let fault = error.fault().to_string();
    if complained.insert(fault.clone()) {
        let name = &directory.settings.name;
        tracing::error!(directory = %name, "can't retire: {fault}");
        directory.monitor.notice(&Event::DirectoryAway { directory: name, reason: &fault });
        directory.trouble.send_replace(Some(fault));
    }
}
