//! Deletions and mounts: what is out of sight because a file system was unmounted, or covered by another one, is no deletion.
//!
//! The ledger remembers which file systems were in and below a location when all their files were last seen, so that a
//! start after the mishap knows too. Where another one is by now, what is missing below is held back. Once nothing is
//! missing there, or a person allows it, the new one is what is remembered.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use super::ingest::DirectoryIngest;
use super::troubles::Concern;
use crate::fault::Fault;
use crate::local::{Change, DiskError, Mounts, Watcher};
use crate::names::RelPath;
use crate::records::Mount;

/// What is known of the mounts of a directory.
#[derive(Default)]
pub(super) struct Mounted {
    /// What the ledger remembers; `None`: it was not asked yet.
    remembered: Option<Vec<Mount>>,
    /// Links to directories that are followed.
    links: BTreeSet<RelPath>,
    /// What was found last.
    last: Mounts,
    /// What happened to the file system of the location itself, where something was missing.
    pub(super) moved: Option<String>,
}

impl DirectoryIngest {
    /// What is mounted now, and where that is not what was remembered.
    pub(super) async fn look_at_mounts(&mut self) -> Result<Result<(Mounts, Vec<Change>), DiskError>, Fault> {
        let remembered = match self.mounted.remembered.take() {
            Some(remembered) => remembered,
            None => self.directory.ledger.mounts(&self.directory.settings.name).await.map_err(|e| e.fault())?,
        };
        self.mounted.remembered = Some(remembered.clone());
        let (location, links) = (self.directory.settings.location.clone(), self.mounted.links.clone());
        let look = move || {
            let mounts = Mounts::look(&location, &links, &remembered)?;
            let changes = mounts.changes(&remembered);
            Ok((mounts, changes))
        };
        self.directory.on_disk(look).await
    }

    /// Of paths that were found to be gone after a look at the mounts, those that are not merely out of sight.
    pub(super) async fn really_gone(
        &mut self,
        gone: Vec<RelPath>,
        before: Result<(Mounts, Vec<Change>), DiskError>,
    ) -> Result<Vec<RelPath>, Fault> {
        if gone.is_empty() || self.directory.allow_deletes {
            return Ok(gone);
        }
        // Where the location can't be found, the other brakes say so.
        let (Ok((before, mut changes)), Ok((after, changed))) = (before, self.look_at_mounts().await?) else {
            return Ok(gone);
        };
        if !after.are_as_in(&before) {
            let now = Instant::now();
            gone.into_iter().for_each(|path| self.deletions.note(path, now));
            return Ok(Vec::new());
        }
        changes.extend(changed);
        // That concerns all there is, and is a brake among the others.
        let (whole, changes): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.path.is_empty());
        self.mounted.moved = whole.into_iter().next().map(|change| change.what);
        let (held, gone): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|path| changes.iter().any(|change| change.concerns(path)));
        for change in changes.iter().filter(|change| held.iter().any(|path| change.concerns(path))) {
            let place = self.directory.settings.location.join(OsStr::from_bytes(&change.path));
            let text = format!(
                "nothing is deleted on the vessels below {}: it {}; mount what was there again, or start once with \
                 --allow-deletes if its files are meant to be gone",
                place.display(),
                change.what
            );
            self.directory.trouble_with(Concern::HeldBack(change.path.clone()), &text);
        }
        Ok(gone)
    }

    /// After a look through the directory, or below `within`: remembers the mounts below which nothing was missing, and gives
    /// those below which something was. `unread` could not be looked into.
    pub(super) async fn remember_mounts(
        &mut self,
        within: Option<&RelPath>,
        links: Vec<RelPath>,
        missing: &[RelPath],
        unread: &[RelPath],
    ) -> Result<Vec<Change>, Fault> {
        if !self.repeats_deletions() {
            return Ok(Vec::new());
        }
        let links: BTreeSet<_> = links.into_iter().collect();
        match within {
            None => self.mounted.links = links,
            Some(_) => self.mounted.links.extend(links),
        }
        let Ok((now, changes)) = self.look_at_mounts().await? else { return Ok(Vec::new()) };
        let allowed = self.directory.allow_deletes;
        let lies_in =
            |path: &[u8], above: &[u8]| Path::new(OsStr::from_bytes(path)).starts_with(OsStr::from_bytes(above));
        let is_whole = |change: &Change| {
            within.is_none_or(|within| lies_in(&change.path, within.as_bytes()))
                && !missing.iter().any(|path| change.concerns(path))
                && !unread.iter().any(|path| change.concerns(path) || lies_in(&change.path, path.as_bytes()))
        };
        let (_, held): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| allowed || is_whole(change));
        let is_held = |mount: &Mount| held.iter().any(|change| lies_in(&mount.path, &change.path));
        let before = self.mounted.remembered.take().unwrap_or_default();
        let mut mounts: Vec<Mount> = now.all().filter(|mount| !is_held(mount)).cloned().collect();
        mounts.extend(before.iter().filter(|mount| is_held(mount)).cloned());
        mounts.sort_by(|a, b| a.path.cmp(&b.path));
        if mounts != before {
            let name = &self.directory.settings.name;
            self.directory.ledger.remember_mounts(name, &mounts).await.map_err(|e| e.fault())?;
        }
        self.mounted.remembered = Some(mounts);
        if !now.are_as_in(&self.mounted.last) {
            // The kernel drops the watches in what is unmounted, and tells nobody.
            self.watcher.iter().for_each(Watcher::forget);
        }
        self.mounted.last = now;
        let is_over = |place: &[u8]| within.is_none() && held.iter().all(|change| change.path != place);
        self.directory.mended(|concern| matches!(concern, Concern::HeldBack(place) if is_over(place)));
        Ok(held)
    }
}
