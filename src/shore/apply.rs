//! Handles the results of scans and path checks. Files are queued to settle or to be read; directories and links are
//! queued to be recorded. Missing paths are queued for deletion, or their deliveries are dropped.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use super::diff::{self, Looks};
use super::ingest::DirectoryIngest;
use super::known::Known;
use super::scans::{MountTables, Scanned};
use super::settle::Judgement;
use super::troubles::Concern;
use super::{admit, mounts, moves};
use crate::fault::Fault;
use crate::ledger::CurrentVersion;
use crate::local::{self, DiskError, Found, OpenLocation, Scan};
use crate::names::RelPath;
use crate::records::{NewVersion, Traits, VersionKind};

/// Maximum number of paths that are checked and looked up in the ledger at once. A larger ledger transaction would
/// delay the deliveries.
const LOOKS: usize = 1024;
/// Maximum number of scans in a row that are discarded because mounts changed during the scan. If mounts change during
/// every scan, for example because an automounter unmounts in a large tree, the files are taken in nevertheless.
const DISCARDED: u32 = 5;

impl DirectoryIngest {
    /// Scans the whole directory and waits for the result.
    pub(super) async fn rescan(&mut self) -> Result<(), Fault> {
        loop {
            self.scans.begin_rescan(&self.directory, &self.rules);
            if let Some(ended) = self.scans.ended().await {
                self.end_scans(ended?).await?;
            }
            if self.discarded == 0 {
                return Ok(());
            }
        }
    }

    /// Handles the results of scans that have ended.
    pub(super) async fn end_scans(&mut self, ended: Scanned) -> Result<(), Fault> {
        let whole = ended.is_whole();
        self.displaced |= ended.was_stale;
        match &ended.unwatched {
            Some(error) => self.complain(error),
            None if whole => self.directory.mended(|concern| *concern == Concern::Watch),
            None => {}
        }
        if self.is_discarded(ended.mounts.clone(), ended.followed_links()).await? {
            return Ok(());
        }
        let tables = ended.mounts;
        for (below, scan) in ended.scans {
            match (below, scan) {
                (None, Ok(scan)) => self.end_rescan(scan, &ended.known, tables.clone()).await?,
                (None, Err(error)) => self.location_failed(&error).await?,
                (Some(path), Ok(scan)) => self.end_walk(path, scan, tables.clone()).await?,
                (Some(_), Err(error)) => self.complain(&error),
            }
        }
        self.scanned |= whole;
        Ok(())
    }

    /// Decides whether the results of scans are discarded because a file system was mounted or unmounted during the
    /// scans. In that case, the scans may have listed some directories before the change and others after it, so
    /// another scan follows. `tables` are the mount tables before and after the scans; `links` are the links that the
    /// scans followed.
    async fn is_discarded(&mut self, tables: MountTables, links: BTreeSet<RelPath>) -> Result<bool, Fault> {
        let changed = match tables {
            [Some(before), Some(after)] if self.repeats_deletions() && self.discarded < DISCARDED => {
                self.mounts.differ(&self.directory, before, after, links).await?
            }
            _ => false,
        };
        self.discarded = if changed { self.discarded + 1 } else { 0 };
        if changed {
            tracing::debug!(directory = %self.directory.settings.name, "Scanning again: mounts changed during the scan");
            // The kernel drops watches on an unmounted file system without notice.
            self.scans.forget_watches();
            self.scans.rescan_in(Duration::ZERO);
        }
        Ok(changed)
    }

    async fn end_rescan(&mut self, mut scan: Scan, seen: &Known, tables: MountTables) -> Result<(), Fault> {
        self.directory.mended(|concern| *concern == Concern::Location);
        if std::mem::take(&mut self.away) {
            tracing::info!(directory = %self.directory.settings.name, "The directory can be used again");
        }
        let still = scan.unread.iter().map(Concern::of).collect::<HashSet<_>>();
        self.directory.mended(|concern| matches!(concern, Concern::Listing(_)) && !still.contains(concern));
        if scan.found.is_empty() && self.only_is_directory().await? {
            self.directory.decide_again.ring();
        }
        let mut known = self.known_otherwise(&scan, seen).await?;
        if self.record_moved_trees(&scan, &known).await? {
            known = self.known_otherwise(&scan, seen).await?;
        }
        self.deletions.found_anew();
        if scan.is_empty && self.repeats_deletions() {
            // In an empty location all known paths are missing, so the paths need not be checked one by one.
            let now = Instant::now();
            let there = known.into_iter().filter(|known| known.traits.kind != VersionKind::Gone);
            there.for_each(|known| self.deletions.note(known.path, now));
            return Ok(());
        }
        let (unread, links) = (diff::unread(&scan, self.rules.location()), std::mem::take(&mut scan.links));
        let missing = self.apply_scan(scan, known, &unread).await?;
        let held = self.remember_mounts(None, links, &missing, &unread, tables).await?;
        if missing.iter().all(|path| held.iter().any(|change| !change.path.is_empty() && change.concerns(path))) {
            // All missing paths, if any, are below file systems that changed, and their deletions are held back
            // separately, so the deletions of the whole directory are no longer held back. If no path is missing at
            // all, the location also no longer counts as displaced.
            self.displaced &= !missing.is_empty();
            self.directory.mended(|concern| *concern == Concern::Deletions);
        }
        Ok(())
    }

    /// Returns the versions in the ledger, sorted by path, without those that a scan of the whole location has found
    /// unchanged on the disk.
    async fn known_otherwise(&self, scan: &Scan, seen: &Known) -> Result<Vec<CurrentVersion>, Fault> {
        // The usual case: nothing has changed.
        if scan.found.is_empty() && seen.is_all_seen() {
            return Ok(Vec::new());
        }
        seen.unseen(&self.directory).await
    }

    /// Handles a failed scan of the whole location, and schedules the next scan.
    async fn location_failed(&mut self, error: &DiskError) -> Result<(), Fault> {
        let location = self.directory.settings.location.clone();
        if self.directory.settings.only.is_none() && self.directory.on_disk(move || local::is_file(&location)).await? {
            self.directory.decide_again.ring();
        } else {
            self.complain(error);
        }
        (self.away, self.displaced) = (true, true);
        self.scans.stop_watching();
        self.scans.rescan_in(super::ingest::LOOK_FOR_LOCATION.min(self.directory.settings.rescan_interval));
        Ok(())
    }

    async fn end_walk(&mut self, path: RelPath, mut scan: Scan, tables: MountTables) -> Result<(), Fault> {
        let mut known = self.known_in(&path).await?;
        if self.record_moved_trees(&scan, &known).await? {
            known = self.known_in(&path).await?;
        }
        let (unread, links) = (diff::unread(&scan, self.rules.location()), std::mem::take(&mut scan.links));
        let missing = self.apply_scan(scan, known, &unread).await?;
        self.remember_mounts(Some(&path), links, &missing, &unread, tables).await.map(drop)
    }

    /// Returns the current versions in the ledger at a path and below it, sorted by path.
    async fn known_in(&self, path: &RelPath) -> Result<Vec<CurrentVersion>, Fault> {
        let (name, at) = (&self.directory.settings.name, std::slice::from_ref(path));
        let mut known = self.directory.ledger.current_at(name, at).await.map_err(|e| e.fault())?;
        known.extend(self.directory.ledger.current_below(name, at).await.map_err(|e| e.fault())?);
        Ok(known)
    }

    /// Records the directories that a scan has found under another path than before. Returns whether there are any.
    async fn record_moved_trees(&mut self, scan: &Scan, known: &[CurrentVersion]) -> Result<bool, Fault> {
        if self.directory.vessels.is_empty() || !self.has_room() {
            return Ok(false);
        }
        let trees = moves::moved_trees(&self.directory, &self.rules, scan, known, &self.pending).await?;
        let any = !trees.is_empty();
        for moves::MovedTree { from, mut versions } in trees {
            // Directories and links that an earlier scan found at the old path must not be recorded after their
            // deletion.
            self.pending.remove_below(std::slice::from_ref(&from));
            self.pending.remove_other(&from);
            let (parents, gone) = admit::unknown_parents(&self.directory, &versions[..1]).await?;
            versions.splice(0..0, parents);
            admit::enter(&self.directory, &versions).await?;
            // Entries may have been deleted or changed after the scan and before they were recorded. So they are
            // checked again.
            let there = versions.iter().filter(|version| version.kind != VersionKind::Gone);
            self.look_at_all(there.map(|version| version.path.clone()).chain(gone).collect(), false).await?;
        }
        Ok(any)
    }

    async fn remember_mounts(
        &mut self,
        within: Option<&RelPath>,
        links: Vec<RelPath>,
        missing: &[RelPath],
        unread: &[RelPath],
        tables: MountTables,
    ) -> Result<Vec<local::Change>, Fault> {
        if !self.repeats_deletions() {
            return Ok(Vec::new());
        }
        let scanned = mounts::Scanned { within, links, missing, unread, tables };
        let remembered = self.mounts.remember(&self.directory, scanned).await?;
        if remembered.changed {
            // The kernel drops watches on an unmounted file system without notice.
            self.scans.forget_watches();
        }
        if remembered.changed_meanwhile {
            self.scans.rescan_in(Duration::ZERO);
        }
        Ok(remembered.held)
    }

    /// Handles the differences between a scan and the ledger. Returns the missing paths.
    async fn apply_scan(
        &mut self,
        scan: Scan,
        known: Vec<CurrentVersion>,
        unread: &[RelPath],
    ) -> Result<Vec<RelPath>, Fault> {
        for skipped in &scan.skipped {
            self.problems.skipped(&self.directory, &skipped.path, skipped.kind);
        }
        scan.unread.iter().for_each(|error| self.complain(error));
        let skipped = scan.skipped.iter().map(|skipped| &skipped.path).collect();
        let diff = diff::diff_scan(&self.rules, scan.found, &skipped, known, unread);
        diff.files.into_iter().for_each(|found| self.meet(found));
        // `false`: the scan that has just ended already covered the directories among these paths.
        self.look_at_all(diff.others, false).await?;
        self.look_at_all(diff.missing.clone(), false).await?;
        Ok(diff.missing)
    }

    /// Handles a found entry that the ledger doesn't know or knows with other attributes.
    fn meet(&mut self, found: Found) {
        if self.pending.note_if_busy(&found.path) {
            return;
        }
        if found.traits.kind != VersionKind::File {
            self.pending.add_other(NewVersion::without_content(found.path, found.traits, found.target));
        } else if self.rules.takes_size(found.traits.stamp.size) {
            let today = self.directory.clock.now();
            let judged = self.settling.judge(&found.path, found.traits.stamp, Instant::now(), today);
            if judged == Judgement::Quiet {
                self.pending.add_file(found.path);
            }
        } else {
            self.settling.forget(&found.path);
        }
    }

    /// Returns whether the settings treat the location as a single file although its path is now a directory.
    async fn only_is_directory(&self) -> Result<bool, Fault> {
        let settings = &self.directory.settings;
        let Some(only) = &settings.only else { return Ok(false) };
        let place = settings.location.join(only.as_path());
        self.directory.on_disk(move || place.is_dir()).await
    }

    /// Checks paths on the disk and handles those that have changed.
    pub(super) async fn look_at(&mut self, paths: Vec<RelPath>) -> Result<(), Fault> {
        self.look_at_all(paths, true).await
    }

    /// Checks paths like [`Self::look_at`]. With `walk`, also schedules scans of the directories among them.
    async fn look_at_all(&mut self, paths: Vec<RelPath>, walk: bool) -> Result<(), Fault> {
        let mut paths = paths.into_iter().peekable();
        while paths.peek().is_some() {
            let some: Vec<_> = paths.by_ref().take(LOOKS).collect();
            let rules = self.rules.clone();
            let see = move || {
                // The location is opened once for all paths. If that fails, each path reports the error itself.
                let location = OpenLocation::open(&rules);
                let seen = |path: &RelPath| match &location {
                    Ok(location) => location.classify(path),
                    Err(_) => local::classify(&rules, path),
                };
                some.into_iter().map(|path| (seen(&path), path)).map(|(seen, path)| (path, seen)).collect()
            };
            let looks = self.directory.on_disk(see).await?;
            self.apply_looks(diff::sort_looks(&self.rules, looks), walk).await?;
        }
        Ok(())
    }

    async fn apply_looks(&mut self, looks: Looks, walk: bool) -> Result<(), Fault> {
        if walk {
            looks.entered.into_iter().for_each(|path| self.scans.walk(path));
        }
        for path in &looks.gone {
            self.problems.gone(&self.directory, path);
        }
        for (path, error) in looks.failed {
            let wait = self.problems.unreadable(&self.directory, &path, &error);
            self.settling.touched(path, Instant::now() + wait);
        }
        let mut skipped = Vec::with_capacity(looks.skipped.len());
        for (path, kind) in looks.skipped {
            self.problems.skipped(&self.directory, &path, kind);
            skipped.push(path);
        }
        self.meet_changed(looks.taken).await?;
        self.note_ended(looks.replaced).await?;
        self.note_skipped(skipped).await?;
        self.note_gone(looks.gone).await
    }

    /// Handles paths at which the entry is now skipped. The old version is no longer sent, but vessels keep their copy
    /// as long as the path exists: a link whose target is on an unmounted disk must not cause deletions.
    async fn note_skipped(&mut self, paths: Vec<RelPath>) -> Result<(), Fault> {
        if !self.repeats_deletions() {
            return self.note_gone(paths).await;
        }
        let below = self.leave_below(&paths).await?;
        for path in &paths {
            self.settling.forget(path);
            self.pending.remove_other(path);
        }
        let skipped = |path| NewVersion::without_content(path, Traits::SKIPPED, Vec::new());
        let skipped: Vec<_> = paths.into_iter().map(skipped).collect();
        // The empty list means that no vessel receives these versions.
        self.directory.ledger.admit(&self.directory.settings.name, &skipped, &[]).await.map_err(|e| e.fault())?;
        self.note_ended(below).await
    }

    /// Handles the found entries that differ from the ledger.
    async fn meet_changed(&mut self, found: Vec<Found>) -> Result<(), Fault> {
        if found.is_empty() {
            return Ok(());
        }
        let paths: Vec<_> = found.iter().map(|one| one.path.clone()).collect();
        let known = self.directory.ledger.current_at(&self.directory.settings.name, &paths).await;
        let (changed, same) = diff::diff_found(&self.rules, found, known.map_err(|e| e.fault())?);
        same.iter().for_each(|path| self.settling.forget(path));
        for found in changed {
            if found.traits.kind == VersionKind::Directory {
                self.settling.forget(&found.path);
            }
            self.meet(found);
        }
        Ok(())
    }

    /// Handles missing paths, and all paths that the ledger knows below them.
    pub(super) async fn note_gone(&mut self, mut paths: Vec<RelPath>) -> Result<(), Fault> {
        paths.extend(self.leave_below(&paths).await?);
        self.note_ended(paths).await
    }

    /// Stops watching below these paths and drops the queued entries there. Returns the paths below them that the
    /// ledger knows.
    async fn leave_below(&mut self, paths: &[RelPath]) -> Result<Vec<RelPath>, Fault> {
        if !self.rules.is_recursive() || paths.is_empty() {
            return Ok(Vec::new());
        }
        let name = &self.directory.settings.name;
        let below = self.directory.ledger.current_below(name, paths).await.map_err(|e| e.fault())?;
        self.scans.leave(paths);
        self.pending.remove_below(paths);
        Ok(below.into_iter().map(|v| v.path).collect())
    }

    /// Schedules the deletion of these paths on the vessels. If deletions are not repeated on the vessels, drops the
    /// unfinished deliveries of the paths instead. Paths below them are not affected.
    async fn note_ended(&mut self, paths: Vec<RelPath>) -> Result<(), Fault> {
        if !self.repeats_deletions() {
            return self.drop_undelivered(&paths).await;
        }
        let now = Instant::now();
        for path in paths {
            self.settling.forget(&path);
            self.pending.remove_other(&path);
            self.deletions.note(path, now);
        }
        Ok(())
    }

    /// Records in the ledger that the sources at these paths no longer exist, which supersedes their open deliveries.
    async fn drop_undelivered(&mut self, paths: &[RelPath]) -> Result<(), Fault> {
        if paths.is_empty() {
            return Ok(());
        }
        for path in paths {
            self.settling.forget(path);
            self.pending.remove_other(path);
        }
        let name = &self.directory.settings.name;
        let dropped = self.directory.ledger.vanished(name, paths).await.map_err(|e| e.fault())?;
        for path in &dropped {
            tracing::info!(directory = %name, file = %path, "The source was removed before all vessels had the file");
        }
        if !dropped.is_empty() {
            self.directory.ring_vessels();
        }
        Ok(())
    }
}
