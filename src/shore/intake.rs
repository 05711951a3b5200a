//! Intake: a finished file is hashed once, whole and by chunk, and entered in the ledger.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Directory;
use crate::fault::Fault;
use crate::local::{self, DiskError, Look, TakeIn};
use crate::monitor::Event;
use crate::names::RelPath;
use crate::records::NewVersion;

/// How much one batch reads at the most before it is entered: enough to make a transaction worth it, little enough that
/// the first vessel need not wait for the last file.
const BATCH_FILES: usize = 256;
const BATCH_BYTES: u64 = 64 << 20;

/// What became of a batch of finished files.
#[derive(Default)]
pub(super) struct Batch {
    /// All paths it was given.
    pub(super) paths: Vec<RelPath>,
    /// They changed while they were read: they settle again.
    pub(super) changing: Vec<RelPath>,
    /// They are not there any more.
    pub(super) gone: Vec<RelPath>,
    /// There was no time for them; they come first in the next batch.
    pub(super) left: Vec<RelPath>,
    /// They couldn't be read.
    pub(super) failed: Vec<(RelPath, DiskError)>,
    versions: Vec<NewVersion>,
}

/// How many of the waiting paths go into one batch.
pub(super) fn batch_size(waiting: usize) -> usize {
    waiting.min(BATCH_FILES)
}

/// Takes in finished files: reads them on a thread of their own, then enters them in one transaction.
pub(super) async fn take_in(directory: Arc<Directory>, paths: Vec<RelPath>) -> Result<Batch, Fault> {
    let (location, chunk_size) = (directory.settings.location.clone(), directory.chunk_size);
    let stop = directory.stop.clone();
    let reading = tokio::task::spawn_blocking(move || read(&location, paths, chunk_size, &stop));
    let mut batch = reading.await.map_err(|e| Fault::daemon(format_args!("reading sources: {e}")))?;
    let versions = std::mem::take(&mut batch.versions);
    if !versions.is_empty() {
        enter(&directory, &versions).await?;
    }
    Ok(batch)
}

fn read(location: &Path, paths: Vec<RelPath>, chunk_size: u64, stop: &CancellationToken) -> Batch {
    let mut batch = Batch { paths: paths.clone(), ..Batch::default() };
    let mut bytes = 0u64;
    for path in paths {
        // A large file has a batch to itself, and those beside it need not wait for it.
        let size = match local::look(location, &path) {
            Ok(Look::File { stamp, .. }) => stamp.size,
            _ => 0,
        };
        if (bytes > 0 && bytes.saturating_add(size) > BATCH_BYTES) || stop.is_cancelled() {
            batch.left.push(path);
            continue;
        }
        match local::take_in(location, &path, chunk_size, &|| stop.is_cancelled()) {
            Ok(TakeIn::Version(version)) => {
                bytes += version.stamp.size;
                batch.versions.push(version);
            }
            Ok(TakeIn::Changing) => batch.changing.push(path),
            Ok(TakeIn::Gone) => batch.gone.push(path),
            Ok(TakeIn::NotAFile(kind)) => tracing::debug!(file = %path, %kind, "is no file any more"),
            Err(DiskError::Stopped { .. }) => batch.left.push(path),
            Err(e) => batch.failed.push((path, e)),
        }
    }
    batch
}

async fn enter(directory: &Directory, versions: &[NewVersion]) -> Result<(), Fault> {
    let names = directory.vessel_names();
    let name = &directory.settings.name;
    directory.ledger.admit(name, versions, &names).await.map_err(|e| e.fault())?;
    for version in versions {
        tracing::debug!(directory = %name, file = %version.path, bytes = version.stamp.size, sha256 = %version.digest, "taken in");
        for vessel in &names {
            directory.monitor.notice(&Event::Owed { vessel, bytes: version.stamp.size });
        }
    }
    directory.ring_vessels();
    Ok(())
}
