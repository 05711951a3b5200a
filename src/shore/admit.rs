//! Takes in finished files: records them in the ledger. A file of at most `ChunkSize` is read and hashed before it is
//! recorded; a larger file is hashed while it is sent.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Directory;
use super::moves;
use crate::fault::Fault;
use crate::local::{self, DiskError, Intake, OpenLocation, PathState, Rules, TakeIn};
use crate::monitor::Event;
use crate::names::RelPath;
use crate::records::{NewVersion, Traits, VersionKind};

/// Maximum number of files in a batch, and number of bytes after which a batch reads no further file. Smaller batches
/// would cost more ledger transactions; larger batches would delay the first delivery.
pub(super) const BATCH_FILES: usize = 256;
const BATCH_BYTES: u64 = 64 << 20;

/// Result of a batch of finished files.
#[derive(Default)]
pub(super) struct Batch {
    /// All paths of the batch.
    pub(super) paths: Vec<RelPath>,
    /// Files that changed while they were read and must settle again.
    pub(super) changing: Vec<RelPath>,
    /// Files that are open for writing.
    pub(super) open: Vec<RelPath>,
    /// Files for which open writers can't be detected, each with the time for which the file must still stay unchanged.
    pub(super) unquiet: Vec<(RelPath, Duration)>,
    /// Paths that no longer exist.
    pub(super) gone: Vec<RelPath>,
    /// Paths that ingest checks again: directories, links, vanished parent directories, and earlier paths of moved
    /// files.
    pub(super) others: Vec<RelPath>,
    /// Files that were not read because the batch was full or the directory is being stopped. The next batch starts
    /// with them.
    pub(super) left: Vec<RelPath>,
    /// Files that couldn't be read.
    pub(super) failed: Vec<(RelPath, DiskError)>,
    versions: Vec<NewVersion>,
}

/// Reads finished files on a separate thread and records them in the ledger.
pub(super) async fn take_in(directory: Arc<Directory>, paths: Vec<RelPath>) -> Result<Batch, Fault> {
    let mut batch = on_a_thread(&directory, move |intake, stop| read(intake, paths, stop)).await?;
    let mut versions = std::mem::take(&mut batch.versions);
    let unread: Vec<_> = versions.iter().filter(|v| v.digest.is_none()).map(|v| v.path.clone()).collect();
    let mut again = Vec::new();
    if !unread.is_empty() {
        let known = directory.ledger.current_at(&directory.settings.name, &unread).await.map_err(|e| e.fault())?;
        // A file that was closed after writing but still has the stamp of the ledger's version may have new content.
        // Only reading the file can show that.
        let looks_known = |v: &mut NewVersion| {
            v.digest.is_none() && known.iter().any(|known| known.path == v.path && known.traits.stamp == v.stamp)
        };
        again = versions.extract_if(.., looks_known).map(|version| version.entry.path).collect();
    }
    if !versions.is_empty() {
        let (parents, gone) = unknown_parents(&directory, &versions).await?;
        batch.others.extend(gone);
        versions = with_renamed_aside(&directory, versions).await?;
        versions.splice(0..0, parents);
        batch.others.extend(moves::name_origins(&directory, &mut versions).await?);
        enter(&directory, &versions).await?;
    }
    if !again.is_empty() {
        batch = on_a_thread(&directory, move |intake, stop| read_again(batch, intake, again, stop)).await?;
        let mut versions = std::mem::take(&mut batch.versions);
        batch.others.extend(moves::name_origins(&directory, &mut versions).await?);
        enter(&directory, &versions).await?;
    }
    Ok(batch)
}

/// Adds the versions of large files that were renamed and whose old paths now belong to files in `versions`. Repeats
/// this for the added files, as needed for a rotation of logs. All versions are recorded in one transaction, because
/// otherwise a vessel might replace its only copy of a file before it knows the file's new name.
async fn with_renamed_aside(directory: &Arc<Directory>, versions: Vec<NewVersion>) -> Result<Vec<NewVersion>, Fault> {
    let (mut all, mut latest) = (Vec::new(), versions);
    while !latest.is_empty() && all.len() < BATCH_FILES {
        let mut aside = moves::renamed_aside(directory, &latest).await?;
        all.append(&mut latest);
        aside.retain(|path| all.iter().all(|version| version.path != *path));
        if !aside.is_empty() {
            latest = on_a_thread(directory, move |intake, stop| read(intake, aside, stop)).await?.versions;
        }
    }
    all.append(&mut latest);
    Ok(all)
}

/// Returns versions for the parent directories of these entries, the topmost first. Leaves out parents that are among
/// the entries or known to the ledger. Also returns the paths of parents that are no longer directories.
///
/// The versions are needed because vessels create parent directories together with an entry, but delete only
/// directories that the ledger knows. If all entries are deletions, a parent is also left out if the ledger has any
/// other version at its path, because the delivery of that version comes later and removes the directory again.
pub(super) async fn unknown_parents(
    directory: &Directory,
    versions: &[NewVersion],
) -> Result<(Vec<NewVersion>, Vec<RelPath>), Fault> {
    let rules = Rules::new(&directory.settings);
    if !rules.takes_directories() {
        return Ok((Vec::new(), Vec::new()));
    }
    let above = versions.iter().flat_map(|version| version.path.as_path().ancestors().skip(1));
    let above = above.filter_map(|path| RelPath::new(path.as_os_str().as_bytes()).ok());
    let mut unknown: BTreeSet<RelPath> = above.collect();
    versions.iter().filter(|version| version.kind == VersionKind::Directory).for_each(|own| {
        unknown.remove(&own.path);
    });
    let asked: Vec<_> = unknown.iter().cloned().collect();
    let are_deleted = versions.iter().all(|version| version.kind == VersionKind::Gone);
    for known in directory.ledger.current_at(&directory.settings.name, &asked).await.map_err(|e| e.fault())? {
        if known.traits.kind == VersionKind::Directory || are_deleted {
            unknown.remove(&known.path);
        }
    }
    if unknown.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let look = move || {
        let (mut parents, mut gone) = (Vec::new(), Vec::new());
        for path in unknown {
            let traits = match local::classify(&rules, &path) {
                Ok(PathState::Directory(found)) => found.traits,
                _ => {
                    gone.push(path.clone());
                    Traits { kind: VersionKind::Directory, mode: 0o755, ..Traits::GONE }
                }
            };
            parents.push(NewVersion::without_content(path, traits, Vec::new()));
        }
        (parents, gone)
    };
    directory.on_disk(look).await
}

async fn on_a_thread(
    directory: &Directory,
    work: impl FnOnce(&Intake, &CancellationToken) -> Batch + Send + 'static,
) -> Result<Batch, Fault> {
    let intake = Intake {
        rules: Rules::new(&directory.settings),
        chunk_size: directory.chunk_size,
        source_cache: directory.source_cache.clone(),
        readers: directory.vessels.len(),
        writers: directory.writers.clone(),
    };
    let stop = directory.stop.clone();
    directory.on_disk(move || work(&intake, &stop)).await
}

fn read(intake: &Intake, paths: Vec<RelPath>, stop: &CancellationToken) -> Batch {
    let mut batch = Batch { paths: paths.clone(), ..Batch::default() };
    let mut bytes = 0u64;
    // The location is opened once for the whole batch. If that fails, each file reports the error itself.
    let location = OpenLocation::open(&intake.rules);
    for path in paths {
        if bytes >= BATCH_BYTES || stop.is_cancelled() {
            batch.left.push(path);
            continue;
        }
        let stop = || stop.is_cancelled();
        let taken = match &location {
            Ok(location) => intake.take_in_from(location, &path, &stop),
            Err(_) => intake.take_in(&path, &stop),
        };
        // A file larger than a chunk has no digest yet, because it is read only while it is sent.
        if let Ok(TakeIn::Version(new)) = &taken
            && new.digest.is_some()
        {
            bytes += new.stamp.size;
        }
        batch.sort(path, taken);
    }
    batch
}

fn read_again(mut batch: Batch, intake: &Intake, paths: Vec<RelPath>, stop: &CancellationToken) -> Batch {
    for path in paths {
        let taken = intake.take_in_again(&path, &|| stop.is_cancelled());
        batch.sort(path, taken);
    }
    batch
}

impl Batch {
    fn sort(&mut self, path: RelPath, taken: Result<TakeIn, DiskError>) {
        match taken {
            Ok(TakeIn::Version(version)) => self.versions.push(version),
            Ok(TakeIn::Changing) => self.changing.push(path),
            Ok(TakeIn::BeingWritten) => self.open.push(path),
            Ok(TakeIn::Unquiet(left)) => self.unquiet.push((path, left)),
            Ok(TakeIn::Gone) => self.gone.push(path),
            Ok(TakeIn::NotAFile(_)) => self.others.push(path),
            Ok(TakeIn::LeftAlone) => tracing::debug!(file = %path, "Skipped: MinSize or MaxSize excludes the file"),
            Err(DiskError::Stopped { .. }) => self.left.push(path),
            Err(e) => self.failed.push((path, e)),
        }
    }
}

/// Records versions together with their unknown parent directories. Returns the paths of parents that are no longer
/// directories; the caller must check these paths once more.
pub(super) async fn enter_with_parents(
    directory: &Directory,
    mut versions: Vec<NewVersion>,
) -> Result<Vec<RelPath>, Fault> {
    let (parents, gone) = unknown_parents(directory, &versions).await?;
    versions.splice(0..0, parents);
    enter(directory, &versions).await?;
    Ok(gone)
}

/// Records versions in the ledger and notifies the vessels.
pub(super) async fn enter(directory: &Directory, versions: &[NewVersion]) -> Result<(), Fault> {
    let names = directory.vessel_names();
    let name = &directory.settings.name;
    directory.ledger.admit(name, versions, &names).await.map_err(|e| e.fault())?;
    for version in versions {
        tracing::debug!(directory = %name, file = %version.path, bytes = version.stamp.size, "Taken in");
        for vessel in &names {
            directory.monitor.notice(&Event::Owed { vessel, bytes: version.stamp.size });
        }
    }
    directory.ring_vessels();
    Ok(())
}
