//! Compares what lies on the disk with what the ledger knows: all of a directory, what lies below one that is new, or some
//! paths that a hint named.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Instant;

use super::scans::Scanned;
use super::settle::Judgement;
use super::watch_over::{LOOK_FOR_LOCATION, Overseer, blocking};
use crate::fault::Fault;
use crate::ledger::CurrentVersion;
use crate::local::{self, DiskError, Found, Kind, Scan, Sight, Watcher};
use crate::names::RelPath;
use crate::records::{NewVersion, Traits, VersionKind};

/// Paths that are looked at, and asked for in the ledger, at once: a transaction over more would hold up the deliveries.
const LOOKS: usize = 1024;
/// New directories that are looked through at once.
const WALKS: usize = 64;

impl Overseer {
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
        if let Err(e) = self.rewatch() {
            self.complain(&e);
        }
        tracing::debug!(directory = %self.directory.settings.name, "looking through the directory");
        self.scans.begin(&self.rules, self.watcher.as_ref(), vec![None]);
    }

    /// Deals with what a look through the whole directory found.
    async fn end_rescan(&mut self, scan: Result<Scan, DiskError>) -> Result<(), Fault> {
        match scan {
            Ok(scan) => {
                self.come_back();
                if scan.found.is_empty() && self.only_is_directory().await? {
                    self.directory.decide_again.ring();
                }
                // An empty location is no reason to look for each of its files.
                if scan.is_empty && self.repeats_deletions() {
                    return self.find_empty().await;
                }
                let name = &self.directory.settings.name;
                let known = self.directory.ledger.current(name).await.map_err(|e| e.fault())?;
                if !self.compare(scan, known).await? {
                    self.release_brake();
                }
            }
            Err(e) => {
                let location = self.directory.settings.location.clone();
                if self.directory.settings.only.is_none() && blocking(move || local::is_file(&location)).await? {
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

    /// Watches before it scans, so that nothing falls between the two.
    fn rewatch(&mut self) -> Result<(), DiskError> {
        if self.watcher.as_ref().is_some_and(|watcher| !watcher.is_stale()) {
            return Ok(());
        }
        self.displaced |= self.watcher.take().is_some();
        let settings = &self.directory.settings;
        let (hints, witness) = (self.hint_sender.clone(), self.directory.writers.witness());
        self.watcher = Some(Watcher::start(&settings.location, settings.recursive, hints, witness)?);
        Ok(())
    }

    /// Deals with what scans found that have ended.
    pub(super) async fn end_scans(&mut self, ended: Scanned) -> Result<(), Fault> {
        ended.unwatched.iter().for_each(|error| self.complain(error));
        for (below, scan) in ended.scans {
            match below {
                None => self.end_rescan(scan).await?,
                Some(path) => self.end_walk(path, scan).await?,
            }
        }
        Ok(())
    }

    fn come_back(&mut self) {
        if self.away {
            self.away = false;
            self.complained.clear();
            self.directory.trouble.send_replace(None);
            tracing::info!(directory = %self.directory.settings.name, "the directory can be used again");
        }
    }

    async fn find_empty(&mut self) -> Result<(), Fault> {
        self.scanned = true;
        let name = &self.directory.settings.name;
        let known = self.directory.ledger.current(name).await.map_err(|e| e.fault())?;
        let now = Instant::now();
        let there = known.into_iter().filter(|known| known.traits.kind != VersionKind::Gone);
        there.for_each(|known| self.departures.note(known.path, now));
        Ok(())
    }

    /// Begins to look through directories that are new, or new at their places.
    pub(super) fn begin_walks(&mut self) {
        let rules = &self.rules;
        let walks = std::iter::from_fn(|| self.walks.pop_first()).filter(|path| rules.enters(path));
        let walks: Vec<_> = walks.take(WALKS).map(Some).collect();
        if !walks.is_empty() {
            self.scans.begin(&self.rules, self.watcher.as_ref(), walks);
        }
    }

    async fn end_walk(&mut self, path: RelPath, scan: Result<Scan, DiskError>) -> Result<(), Fault> {
        match scan {
            Ok(scan) => {
                let (name, at) = (&self.directory.settings.name, std::slice::from_ref(&path));
                let mut known = self.directory.ledger.current_at(name, at).await.map_err(|e| e.fault())?;
                known.extend(self.directory.ledger.current_below(name, at).await.map_err(|e| e.fault())?);
                self.compare(scan, known).await.map(drop)
            }
            Err(e) => {
                self.complain(&e);
                Ok(())
            }
        }
    }

    /// Compares what lies there with what the ledger knows, both in the order of their paths. Whether something is missing.
    async fn compare(&mut self, scan: Scan, known: Vec<CurrentVersion>) -> Result<bool, Fault> {
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
        let is_missing = !missing.is_empty();
        // What is a directory by now was looked through just before.
        self.look_at_all(missing.into_iter().map(|v| v.path).collect(), false).await?;
        Ok(is_missing)
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
        blocking(move || place.is_dir()).await
    }

    /// Says that the one file that is `Location` can't be sent.
    fn mention_only(&self, path: &RelPath, kind: Kind) {
        let location = self.directory.settings.location.join(path.as_path());
        let links = if self.directory.settings.is_mirror() { ", or set Links = follow" } else { "" };
        let remedy = format!("set Location to the file itself{links}");
        self.report_trouble(&format!("can't send {}: it is a {kind}; {remedy}", location.display()));
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
        let sights = blocking(move || paths.into_iter().map(see).collect::<Vec<_>>()).await?;
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
                    gone.push(path);
                }
                Ok(Sight::Skipped(kind)) => {
                    self.mention(&path, kind);
                    left.push(path);
                }
                Err(e) => {
                    self.settling.forget(&path);
                    self.complain(&e);
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
            self.departures.note(path, now);
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
