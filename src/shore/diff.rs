//! Compares what lies on the disk with what the ledger knows: all of a directory, what lies below one that is new, or some
//! paths that a hint named.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use super::ingest::{DirectoryIngest, LOOK_FOR_LOCATION};
use super::scans::Scanned;
use super::settle::Judgement;
use super::troubles::Concern;
use crate::fault::Fault;
use crate::ledger::CurrentVersion;
use crate::local::{self, DiskError, Found, Kind, Scan, Sight};
use crate::names::RelPath;
use crate::records::{NewVersion, Traits, VersionKind};

/// Paths that are looked at, and asked for in the ledger, at once: a transaction over more would hold up the deliveries.
const LOOKS: usize = 1024;
/// New directories that are looked through at once.
const WALKS: usize = 64;

impl DirectoryIngest {
    /// Looks through the whole directory, and waits for it.
    pub(super) async fn rescan(&mut self) -> Result<(), Fault> {
        self.begin_rescan();
        match self.scans.ended().await {
            Some(ended) => self.end_scans(ended?).await,
            None => Ok(()),
        }
    }

    /// Begins to look through the whole directory.
    pub(super) fn begin_rescan(&mut self) {
        self.rescan_at = Instant::now() + self.directory.settings.rescan_interval;
        tracing::debug!(directory = %self.directory.settings.name, "looking through the directory");
        self.scans.begin(
            &self.directory,
            &self.rules,
            self.watcher.as_ref(),
            vec![None],
            Some(self.hint_sender.clone()),
        );
    }

    /// Deals with what a look through the whole directory found.
    async fn end_rescan(&mut self, scan: Result<Scan, DiskError>) -> Result<(), Fault> {
        match scan {
            Ok(mut scan) => {
                self.come_back();
                let still = scan.unread.iter().map(Concern::of).collect::<HashSet<_>>();
                self.directory.mended(|concern| matches!(concern, Concern::Listing(_)) && !still.contains(concern));
                if scan.found.is_empty() && self.only_is_directory().await? {
                    self.directory.decide_again.ring();
                }
                // An empty location is no reason to look for each of its files.
                if scan.is_empty && self.repeats_deletions() {
                    return self.find_empty().await;
                }
                let name = &self.directory.settings.name;
                let known = self.directory.ledger.current(name).await.map_err(|e| e.fault())?;
                let (unread, links) = (unread(&scan, self.rules.location()), std::mem::take(&mut scan.links));
                let missing = self.compare(scan, known, &unread).await?;
                let held = self.remember_mounts(None, links, &missing, &unread).await?;
                if missing.iter().all(|path| held.iter().any(|change| !change.path.is_empty() && change.concerns(path)))
                {
                    self.release_brake(missing.is_empty());
                }
            }
            Err(e) => {
                let location = self.directory.settings.location.clone();
                if self.directory.settings.only.is_none()
                    && self.directory.on_disk(move || local::is_file(&location)).await?
                {
                    self.directory.decide_again.ring();
                } else {
                    self.complain(&e);
                }
                (self.away, self.displaced) = (true, true);
                self.watcher = None;
                self.rescan_at = Instant::now() + LOOK_FOR_LOCATION.min(self.directory.settings.rescan_interval);
            }
        }
        self.scanned = true;
        Ok(())
    }

    /// Deals with what scans found that have ended.
    pub(super) async fn end_scans(&mut self, ended: Scanned) -> Result<(), Fault> {
        let whole = ended.scans.iter().any(|(below, _)| below.is_none());
        if whole {
            self.watcher = ended.watcher;
            self.displaced |= ended.was_stale;
        }
        match &ended.unwatched {
            Some(error) => self.complain(error),
            None if whole => self.directory.mended(|concern| *concern == Concern::Watch),
            None => {}
        }
        for (below, scan) in ended.scans {
            match below {
                None => self.end_rescan(scan).await?,
                Some(path) => self.end_walk(path, scan).await?,
            }
        }
        Ok(())
    }

    fn come_back(&mut self) {
        self.directory.mended(|concern| *concern == Concern::Location);
        if std::mem::take(&mut self.away) {
            tracing::info!(directory = %self.directory.settings.name, "the directory can be used again");
        }
    }

    async fn find_empty(&mut self) -> Result<(), Fault> {
        self.scanned = true;
        let name = &self.directory.settings.name;
        let known = self.directory.ledger.current(name).await.map_err(|e| e.fault())?;
        let now = Instant::now();
        let there = known.into_iter().filter(|known| known.traits.kind != VersionKind::Gone);
        there.for_each(|known| self.deletions.note(known.path, now));
        Ok(())
    }

    /// Begins to look through directories that are new, or new at their places.
    pub(super) fn begin_walks(&mut self) {
        let rules = &self.rules;
        let walks = std::iter::from_fn(|| self.walks.pop_first()).filter(|path| rules.enters(path));
        let walks: Vec<_> = walks.take(WALKS).map(Some).collect();
        if !walks.is_empty() {
            self.scans.begin(&self.directory, &self.rules, self.watcher.as_ref(), walks, None);
        }
    }

    async fn end_walk(&mut self, path: RelPath, scan: Result<Scan, DiskError>) -> Result<(), Fault> {
        match scan {
            Ok(mut scan) => {
                let (name, at) = (&self.directory.settings.name, std::slice::from_ref(&path));
                let mut known = self.directory.ledger.current_at(name, at).await.map_err(|e| e.fault())?;
                known.extend(self.directory.ledger.current_below(name, at).await.map_err(|e| e.fault())?);
                let (unread, links) = (unread(&scan, self.rules.location()), std::mem::take(&mut scan.links));
                let missing = self.compare(scan, known, &unread).await?;
                self.remember_mounts(Some(&path), links, &missing, &unread).await.map(drop)
            }
            Err(e) => {
                self.complain(&e);
                Ok(())
            }
        }
    }

    /// Compares what lies there with what the ledger knows, both in the order of their paths. Gives what is missing; of what
    /// lies in `unread` nobody knows.
    async fn compare(
        &mut self,
        scan: Scan,
        known: Vec<CurrentVersion>,
        unread: &[RelPath],
    ) -> Result<Vec<RelPath>, Fault> {
        self.mention_skipped(&scan);
        scan.unread.iter().for_each(|error| self.complain(error));
        let mut known = known.into_iter().peekable();
        let (mut missing, mut changed) = (Vec::new(), Vec::new());
        for found in scan.found {
            missing.extend(std::iter::from_fn(|| known.next_if(|v| v.path < found.path)));
            let same = known.next_if(|v| v.path == found.path).is_some_and(|v| self.is_same(&v.traits, &found.traits));
            match found.traits.kind {
                _ if same => {}
                VersionKind::File => self.meet(found),
                // It may have gone since it was found, and nobody looks at it again before it is entered.
                _ => changed.push(found.path),
            }
        }
        self.look_at_all(changed, false).await?;
        missing.extend(known);
        missing.retain(|v| v.traits.kind != VersionKind::Gone && self.rules.may_take(&v.path));
        missing.retain(|v| !unread.iter().any(|unread| v.path.as_path().starts_with(unread.as_path())));
        let missing: Vec<RelPath> = missing.into_iter().map(|v| v.path).collect();
        // What is a directory by now was looked through just before.
        self.look_at_all(missing.clone(), false).await?;
        Ok(missing)
    }

    /// Whether what lies there is the version that the ledger knows, with the mode that it was taken in with.
    fn is_same(&self, known: &Traits, found: &Traits) -> bool {
        (known.kind, known.stamp, known.mode) == (found.kind, found.stamp, found.mode)
            && (!self.directory.settings.owner || known.owner == found.owner)
    }

    /// Deals with something that is not what the ledger knows.
    fn meet(&mut self, found: Found) {
        if self.busy.contains(&found.path) {
            self.again.insert(found.path);
        } else if found.traits.kind != VersionKind::File {
            let version = NewVersion::without_content(found.path, found.traits, found.target);
            self.things.insert(version.path.clone(), version);
        } else if self.rules.takes_size(found.traits.stamp.size) {
            self.judge(found.path, &found.traits);
        } else {
            self.settling.forget(&found.path);
        }
    }

    fn judge(&mut self, path: RelPath, traits: &Traits) {
        let today = self.directory.clock.now();
        if self.settling.judge(&path, traits.stamp, Instant::now(), today) == Judgement::Finished {
            self.make_ready(path);
        }
    }

    fn mention_skipped(&mut self, scan: &Scan) {
        scan.skipped.iter().for_each(|skipped| self.mention(&skipped.path, skipped.kind));
    }

    /// Says, once, that something is left alone.
    fn mention(&mut self, path: &RelPath, kind: Kind) {
        // Of the program's own files the settings have told.
        if self.skipped.insert(path.clone(), kind) == Some(kind) || kind == Kind::Own {
            return;
        }
        let settings = &self.directory.settings;
        if settings.only.as_ref() == Some(path) {
            self.mention_only(path, kind);
        } else {
            tracing::warn!(directory = %self.directory.settings.name, file = %path, "left alone: it is a {kind}");
        }
    }

    /// Whether what the settings take for one file is a directory.
    async fn only_is_directory(&self) -> Result<bool, Fault> {
        let settings = &self.directory.settings;
        let Some(only) = &settings.only else { return Ok(false) };
        let place = settings.location.join(only.as_path());
        self.directory.on_disk(move || place.is_dir()).await
    }

    /// Says that the one file that is `Location` can't be sent.
    fn mention_only(&mut self, path: &RelPath, kind: Kind) {
        let location = self.directory.settings.location.join(path.as_path());
        let links = if self.directory.settings.is_mirror() { ", or set Links = follow" } else { "" };
        let remedy = format!("set Location to the file itself{links}");
        let text = format!("can't send {}: it is a {kind}; {remedy}", location.display());
        self.directory.trouble_with(Concern::File(path.clone()), &text);
        // So that it is taken back when the file can be sent, or is not there any more.
        self.unreadable.entry(path.clone()).or_default();
    }

    /// Looks what paths are now, and does what follows.
    pub(super) async fn look_at(&mut self, paths: Vec<RelPath>) -> Result<(), Fault> {
        self.look_at_all(paths, true).await
    }

    /// With `walk`, directories are looked through after this.
    async fn look_at_all(&mut self, paths: Vec<RelPath>, walk: bool) -> Result<(), Fault> {
        let mut paths = paths.into_iter().peekable();
        while paths.peek().is_some() {
            self.look_at_some(paths.by_ref().take(LOOKS).collect(), walk).await?;
        }
        Ok(())
    }

    async fn look_at_some(&mut self, paths: Vec<RelPath>, walk: bool) -> Result<(), Fault> {
        let rules = self.rules.clone();
        let see = move |path| (local::see(&rules, &path), path);
        let sights = self.directory.on_disk(move || paths.into_iter().map(see).collect::<Vec<_>>()).await?;
        let (mut found, mut gone, mut replaced, mut left) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (sight, path) in sights {
            match sight {
                Ok(Sight::Taken(one)) => found.push(one),
                Ok(Sight::Directory(one)) => {
                    let entered = self.rules.enters(&path);
                    if entered && self.rules.takes_directories() {
                        self.settling.forget(&path);
                        found.push(one);
                    } else {
                        replaced.push(path.clone());
                    }
                    if entered && walk {
                        self.walks.insert(path);
                    }
                }
                Ok(Sight::Gone) => {
                    self.skipped.remove(&path);
                    self.mend_file(&path);
                    gone.push(path);
                }
                Ok(Sight::Skipped(kind)) => {
                    self.mention(&path, kind);
                    left.push(path);
                }
                Err(e) => {
                    let wait = self.complain_of_file(&path, &e);
                    self.settling.touched(path, Instant::now() + wait);
                }
            }
        }
        self.meet_changed(found).await?;
        self.note_ended(replaced).await?;
        self.note_left_alone(left).await?;
        self.note_gone(gone).await
    }

    /// What lies at these paths by now is left alone: what lay there is not sent any more, and not deleted either. A link whose
    /// target is on a disk that is not mounted is no deletion.
    async fn note_left_alone(&mut self, paths: Vec<RelPath>) -> Result<(), Fault> {
        if !self.repeats_deletions() {
            return self.note_gone(paths).await;
        }
        let below = self.take_off(&paths).await?;
        self.drop_undelivered(&paths).await?;
        self.note_ended(below).await
    }

    /// Deals with those that are not what the ledger knows.
    async fn meet_changed(&mut self, found: Vec<Found>) -> Result<(), Fault> {
        if found.is_empty() {
            return Ok(());
        }
        let name = &self.directory.settings.name;
        let paths: Vec<_> = found.iter().map(|one| one.path.clone()).collect();
        let known = self.directory.ledger.current_at(name, &paths).await.map_err(|e| e.fault())?;
        let known: HashMap<RelPath, Traits> = known.into_iter().map(|v| (v.path, v.traits)).collect();
        for one in found {
            if known.get(&one.path).is_some_and(|known| self.is_same(known, &one.traits)) {
                self.settling.forget(&one.path);
            } else {
                self.meet(one);
            }
        }
        Ok(())
    }

    /// What lay at these paths, and below them, is there no more.
    pub(super) async fn note_gone(&mut self, mut paths: Vec<RelPath>) -> Result<(), Fault> {
        paths.extend(self.take_off(&paths).await?);
        self.note_ended(paths).await
    }

    /// Looks below these paths no more; gives what the ledger knows there.
    async fn take_off(&mut self, paths: &[RelPath]) -> Result<Vec<RelPath>, Fault> {
        if !self.rules.is_recursive() || paths.is_empty() {
            return Ok(Vec::new());
        }
        let name = &self.directory.settings.name;
        let below = self.directory.ledger.current_below(name, paths).await.map_err(|e| e.fault())?;
        paths.iter().for_each(|path| self.watcher.iter().for_each(|watcher| watcher.leave(path)));
        self.forget_below(paths);
        Ok(below.into_iter().map(|v| v.path).collect())
    }

    /// What lies below these paths and is not in the ledger yet is gone too: what waits to be entered is dropped, and what
    /// is being read is looked at again when that is done.
    fn forget_below(&mut self, gone: &[RelPath]) {
        let gone: HashSet<&Path> = gone.iter().map(RelPath::as_path).collect();
        let is_below = |path: &RelPath| path.as_path().ancestors().skip(1).any(|above| gone.contains(above));
        self.things.retain(|path, _| !is_below(path));
        self.again.extend(self.busy.iter().filter(|path| is_below(path)).cloned());
    }

    /// What lay at these paths is there no more; what lies below them may be.
    async fn note_ended(&mut self, paths: Vec<RelPath>) -> Result<(), Fault> {
        if !self.repeats_deletions() {
            return self.drop_undelivered(&paths).await;
        }
        let now = Instant::now();
        for path in paths {
            self.settling.forget(&path);
            self.things.remove(&path);
            self.deletions.note(path, now);
        }
        Ok(())
    }

    /// What lay at these paths and was not delivered yet is not to be any more.
    async fn drop_undelivered(&mut self, paths: &[RelPath]) -> Result<(), Fault> {
        if paths.is_empty() {
            return Ok(());
        }
        for path in paths {
            self.settling.forget(path);
            self.things.remove(path);
        }
        let name = &self.directory.settings.name;
        let dropped = self.directory.ledger.vanished(name, paths).await.map_err(|e| e.fault())?;
        for path in &dropped {
            tracing::info!(directory = %name, file = %path, "the source is gone before it was delivered everywhere");
        }
        if !dropped.is_empty() {
            self.directory.ring_vessels();
        }
        Ok(())
    }
}

/// What could not be looked into: directories that can't be listed, and whatever can't be looked at. An answer that is an error
/// (a server that is gone, a disk that fails) is never taken for a deletion.
fn unread(scan: &Scan, location: &Path) -> Vec<RelPath> {
    let unlisted = scan.unread.iter().filter_map(|error| match error {
        DiskError::Io { path, .. } => RelPath::new(path.strip_prefix(location).ok()?.as_os_str().as_bytes()).ok(),
        _ => None,
    });
    let unseen = scan.skipped.iter().filter(|skipped| matches!(skipped.kind, Kind::Unreadable(_)));
    unlisted.chain(unseen.map(|skipped| skipped.path.clone())).collect()
}
