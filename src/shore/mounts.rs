//! Deletions and mounts: a path may be missing because its file system was unmounted, or because another file system
//! covers it. Such a path does not count as deleted.
//!
//! The ledger stores the file systems mounted at and below a location, as of the last scan that found all their files.
//! So a change is detected even after a restart. If another file system is mounted at a path now, deletions below that
//! path are held back. The new file system is stored once no file below the path is missing, or if `--allow-deletes` is
//! given.
//!
//! A scan reads the mount table before it begins and after it has ended. If the two tables differ, its results are
//! discarded and another scan follows. A file system also counts as changed if it is unmounted after the scan has found
//! its files.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::Directory;
use super::scans::MountTables;
use super::troubles::Concern;
use crate::fault::Fault;
use crate::local::{self, Change, DiskError, MountTable, Mounts};
use crate::names::RelPath;
use crate::records::Mount;

/// The known mounts of a directory.
#[derive(Default)]
pub(super) struct MountWatch {
    /// The mounts stored in the ledger; `None` if not queried yet.
    remembered: Option<Vec<Mount>>,
    /// Links to directories that scans have followed. Their targets may be on other file systems.
    links: BTreeSet<RelPath>,
    /// The mounts as of the last scan.
    last: Mounts,
}

/// The current mounts and how they differ from the stored ones; an error if the location can't be found or the mount
/// table can't be read.
pub(super) type Looked = Result<(Mounts, Vec<Change>), DiskError>;

/// Missing paths, except those whose deletion is held back because their file system changed.
#[derive(Default)]
pub(super) struct Visible {
    pub(super) gone: Vec<RelPath>,
    /// Paths to check again because mounts changed during the check.
    pub(super) again: Vec<RelPath>,
    /// How the file system at the location itself differs from the stored one; `None` if it is the same.
    pub(super) location_moved: Option<String>,
}

/// The part of a scan's result that matters for mounts. The scan covered the whole directory, or only the directory
/// `within`.
pub(super) struct Scanned<'a> {
    pub(super) within: Option<&'a RelPath>,
    /// Links to directories that were followed.
    pub(super) links: Vec<RelPath>,
    pub(super) missing: &'a [RelPath],
    /// Paths that could not be read.
    pub(super) unread: &'a [RelPath],
    pub(super) tables: MountTables,
}

/// Result of storing the mounts after a scan.
#[derive(Default)]
pub(super) struct Remembered {
    /// The changed mounts that were not stored, because paths are missing below them.
    pub(super) held: Vec<Change>,
    /// Whether any mount changed since the last scan.
    pub(super) changed: bool,
    /// Whether any mount changed during the scan, so that only another scan can find all files.
    pub(super) changed_meanwhile: bool,
}

impl MountWatch {
    /// Determines the current mounts and their differences from the stored ones.
    pub(super) async fn look(&mut self, directory: &Directory) -> Result<Looked, Fault> {
        let remembered = self.stored(directory).await?;
        let (location, links) = (directory.settings.location.clone(), self.links.clone());
        let look = move || {
            let mounts = Mounts::look(&location, &links, &remembered)?;
            let changes = mounts.changes(&remembered);
            Ok((mounts, changes))
        };
        directory.on_disk(look).await
    }

    /// Returns the stored mounts.
    async fn stored(&mut self, directory: &Directory) -> Result<Vec<Mount>, Fault> {
        let stored = match self.remembered.take() {
            Some(stored) => stored,
            None => directory.ledger.mounts(&directory.settings.name).await.map_err(|e| e.fault())?,
        };
        Ok(self.remembered.insert(stored).clone())
    }

    /// Returns whether a file system was mounted or unmounted between two readings of the mount table. Also checks the
    /// targets of `links` and of the links that earlier scans followed.
    pub(super) async fn differ(
        &mut self,
        directory: &Directory,
        before: Arc<MountTable>,
        after: Arc<MountTable>,
        mut links: BTreeSet<RelPath>,
    ) -> Result<bool, Fault> {
        // The usual case: nothing was mounted or unmounted on the whole host, so no link has to be followed.
        if before == after {
            return Ok(false);
        }
        links.extend(self.links.iter().cloned());
        let known = self.stored(directory).await?;
        let differ = move || !before.mounts(&links, &known).are_as_in(&after.mounts(&links, &known));
        directory.on_disk(differ).await
    }

    /// Holds back deletions of paths whose file system changed. `before` are the mounts before the paths were checked.
    pub(super) async fn hold_back(
        &mut self,
        directory: &Directory,
        gone: Vec<RelPath>,
        before: Looked,
    ) -> Result<Visible, Fault> {
        if gone.is_empty() || directory.allow_deletes {
            return Ok(Visible { gone, ..Visible::default() });
        }
        let ((before, mut changes), (after, changed)) = match (before, self.look(directory).await?) {
            (Ok(before), Ok(after)) => (before, after),
            // Without the list of mounts, files of an unmounted disk look like deleted files. So all deletions are held
            // back.
            (Err(error), _) | (_, Err(error)) => {
                let location_moved = Some(format!(
                    "cannot be checked for unmounted disks, because mounts can't be listed (is /proc mounted?): {error}"
                ));
                return Ok(Visible { gone, location_moved, ..Visible::default() });
            }
        };
        if !after.are_as_in(&before) {
            return Ok(Visible { again: gone, ..Visible::default() });
        }
        changes.extend(changed);
        // A change of the file system at the location itself affects all paths. `Deletions::reason_to_hold` handles it.
        let (whole, changes): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.path.is_empty());
        let location_moved = whole.into_iter().next().map(|change| change.what);
        let (held, gone): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|path| changes.iter().any(|change| change.concerns(path)));
        for change in changes.iter().filter(|change| held.iter().any(|path| change.concerns(path))) {
            let place = directory.settings.location.join(OsStr::from_bytes(&change.path));
            let text = format!(
                "files missing at or below {0} are not deleted on the vessels: {0} {1}; mount the previous file system \
                 again, or start once with --allow-deletes to delete them on the vessels, too",
                place.display(),
                change.what
            );
            directory.trouble_with(Concern::HeldBack(change.path.clone()), &text);
        }
        Ok(Visible { gone, again: Vec::new(), location_moved })
    }

    /// Stores the mounts of a scan. If paths are missing below a changed mount, the earlier mount stays stored there.
    /// If a mount changed during the scan, the mount from before the scan is stored, so that the next scan notices the
    /// change.
    pub(super) async fn remember(&mut self, directory: &Directory, scanned: Scanned<'_>) -> Result<Remembered, Fault> {
        let links: BTreeSet<_> = scanned.links.iter().cloned().collect();
        match scanned.within {
            None => self.links = links,
            Some(_) => self.links.extend(links),
        }
        // If one of the two mount tables could not be read, the stored mounts stay.
        let [Some(earlier), Some(now)] = scanned.tables.clone() else { return Ok(Remembered::default()) };
        let before = self.stored(directory).await?;
        let (location, links, known) = (directory.settings.location.clone(), self.links.clone(), before.clone());
        let look = move || {
            let (earlier, now) = (earlier.mounts(&links, &known), now.mounts(&links, &known));
            // The mounts of the scan (`now`) are stored, because the scan found the files there. If no mount has
            // changed since the scan, the current mounts are stored instead: they also have the IDs of file systems
            // behind links.
            let current = Mounts::look(&location, &links, &known).ok().filter(|current| current.are_as_in(&now));
            (earlier, current.unwrap_or(now))
        };
        let (earlier, now) = directory.on_disk(look).await?;
        let changes = now.changes(&before);
        let is_settled = |change: &Change| directory.allow_deletes || scanned.is_whole_below(change);
        let held: Vec<_> = changes.into_iter().filter(|change| !is_settled(change)).collect();
        let is_held = |mount: &Mount| held.iter().any(|change| lies_in(&mount.path, &change.path));
        let meanwhile = now.differences(&earlier);
        let mut mounts: Vec<Mount> =
            now.all().filter(|mount| !is_held(mount) && !meanwhile.contains(&mount.path)).cloned().collect();
        mounts.extend(before.iter().filter(|mount| is_held(mount)).cloned());
        let scanned_with = meanwhile
            .iter()
            .map(|path| earlier.mount_at(path).cloned().unwrap_or_else(|| local::uncertain(path.clone())));
        mounts.extend(scanned_with.filter(|mount| !is_held(mount)));
        mounts.sort_by(|a, b| a.path.cmp(&b.path));
        if mounts != before {
            directory.ledger.remember_mounts(&directory.settings.name, &mounts).await.map_err(|e| e.fault())?;
        }
        self.remembered = Some(mounts);
        let changed = !now.are_as_in(&self.last);
        self.last = now;
        let is_over = |place: &[u8]| scanned.within.is_none() && held.iter().all(|change| change.path != place);
        directory.mended(|concern| matches!(concern, Concern::HeldBack(place) if is_over(place)));
        Ok(Remembered { held, changed, changed_meanwhile: !meanwhile.is_empty() })
    }
}

impl Scanned<'_> {
    /// Returns whether the scan read everything below a changed mount and found no path missing there.
    fn is_whole_below(&self, change: &Change) -> bool {
        self.within.is_none_or(|within| lies_in(&change.path, within.as_bytes()))
            && !self.missing.iter().any(|path| change.concerns(path))
            && !self.unread.iter().any(|path| change.concerns(path) || lies_in(&change.path, path.as_bytes()))
    }
}

fn lies_in(path: &[u8], above: &[u8]) -> bool {
    Path::new(OsStr::from_bytes(path)).starts_with(OsStr::from_bytes(above))
}
