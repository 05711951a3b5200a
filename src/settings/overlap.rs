//! Detects sections that overlap: on this host by their `Location`, on a vessel by their `RemoteLocation`.
//!
//! An overlap is an error if a file could be lost or two sections conflict. Examples: a directory moves away the
//! sources of another one, files of two directories get the same path, or a mirror deletes files of another directory.
//! Harmless overlaps are allowed, such as mirrors that share a `Location`, or a `Location` in a directory that does not
//! include it. DESIGN.md has the table.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::directory::Directory;
use super::problems::{Diagnostic, Place, Problems};
use super::reach::{self, Reach};
use super::retention::KeepProcessed;
use super::vessel::Vessel;
use crate::names::RemotePath;

/// The directory of delivered sources, below a `Location`.
const PROCESSED: &str = "processed";

/// The sections with their paths on the disk.
pub(super) struct Overlaps<'a> {
    directories: &'a [(Directory, Place)],
    vessels: &'a [(Vessel, Place)],
    /// The resolved `Location` of each directory.
    pub(super) reaches: Vec<Reach>,
    problems: &'a Problems,
}

impl<'a> Overlaps<'a> {
    /// Resolves each `Location` on the disk.
    pub(super) fn new(
        directories: &'a [(Directory, Place)],
        vessels: &'a [(Vessel, Place)],
        problems: &'a Problems,
    ) -> Self {
        let locations: Vec<PathBuf> = directories.iter().map(|(directory, _)| directory.location.clone()).collect();
        let reaches = Reach::of(&locations);
        for ((_, place), _) in directories.iter().zip(&reaches).filter(|(_, reach)| !reach.answered) {
            let message = "the disk does not answer, so overlaps with other Locations were not checked";
            let diagnostic = Diagnostic::new(message, "run `contentmonster check` when the disk answers again");
            problems.warn(place.clone().at_key("Location"), diagnostic);
        }
        Self { directories, vessels, reaches, problems }
    }

    /// Reports overlaps on this host and on the vessels.
    pub(super) fn check(&self) {
        for one in 0..self.directories.len() {
            for other in one + 1..self.directories.len() {
                self.check_sources(one, other);
            }
        }
        self.check_vessels();
    }

    fn check_sources(&self, one: usize, other: usize) {
        for (outer, inner) in [(one, other), (other, one)] {
            let archive = self.reaches[outer].beside_or_below(PROCESSED);
            if !self.directory(outer).is_mirror()
                && let Some(below) = archive.holds(&self.reaches[inner])
            {
                return self.check_archive(outer, inner, &below);
            }
        }
        if let Some(below) = self.reaches[one].holds(&self.reaches[other]) {
            if below.as_os_str().is_empty() {
                self.check_shared(one, other)
            } else {
                self.check_nested(one, other, &below)
            }
        } else if let Some(below) = self.reaches[other].holds(&self.reaches[one]) {
            self.check_nested(other, one, &below);
        }
    }

    /// Reports two directories with the same location, because one could retire sources that the other has not
    /// delivered yet. Two mirrors are allowed, because mirrors never move sources.
    fn check_shared(&self, one: usize, other: usize) {
        if self.directory(one).is_mirror() && self.directory(other).is_mirror() {
            return;
        }
        let message =
            format!("is also the Location of [Directory {}]{}", self.directory(one).name, self.shown(other, one));
        let remedy =
            "choose another Location for one of them, or merge the two sections; only mirrors may share a Location";
        self.report(other, Diagnostic::new(message, remedy));
    }

    /// Checks a location in another directory's `processed/`. A directory that forwards delivered files may have
    /// `processed/` itself as its location, but only if `KeepProcessed` never removes files there.
    fn check_archive(&self, outer: usize, inner: usize, below: &Path) {
        let name = &self.directory(outer).name;
        let stays = self.directory(outer).keep_processed == KeepProcessed::Forever;
        if stays && below.as_os_str().is_empty() {
            let message = format!(
                "is the processed/ of [Directory {name}]: this directory also delivers the files that [Directory {name}] \
                 has delivered"
            );
            let remedy = "choose another Location if that is not intended";
            let place = self.directories[inner].1.clone().at_key("Location");
            return self.problems.warn(place, Diagnostic::new(message, remedy));
        }
        let message = match below.as_os_str().is_empty() {
            true => format!(
                "is the processed/ of [Directory {name}]: KeepProcessed of [Directory {name}] may remove files that are not \
                 delivered from here yet"
            ),
            false => format!("is in the processed/ of [Directory {name}]{}", self.shown(inner, outer)),
        };
        let remedy = format!("choose a Location outside of the processed/ of [Directory {name}]");
        self.report(inner, Diagnostic::new(message, remedy));
    }

    /// Checks a location inside another one. Two mirrors are allowed, and so is an outer directory that does not
    /// include the files there.
    fn check_nested(&self, outer: usize, inner: usize, below: &Path) {
        let (holder, held) = (self.directory(outer), self.directory(inner));
        if !takes(holder, below, self.reaches[inner].is_file) {
            return;
        }
        let name = &holder.name;
        let exclude = format!("write `Exclude = /{}` in [Directory {name}]", below.display());
        if holder.is_mirror() {
            if !held.is_mirror() {
                let message = format!(
                    "is in the Location of the mirror [Directory {name}], which treats files as deleted when \
                     this directory moves them to processed/"
                );
                let place = self.directories[inner].1.clone().at_key("Location");
                let remedy = format!("{exclude} if that is not intended");
                self.problems.warn(place, Diagnostic::new(message, remedy));
            }
            return;
        }
        let message = format!(
            "is in the Location of [Directory {name}], which also sends these files, and moves them into its \
             processed/ even if this directory has not delivered them yet{}",
            self.shown(inner, outer)
        );
        self.report(inner, Diagnostic::new(message, format!("{exclude}, or merge the two sections")));
    }

    /// Returns an explanation if the paths as written don't show that they overlap; otherwise an empty text.
    fn shown(&self, one: usize, other: usize) -> String {
        let (one, other) = (&self.directory(one).location, &self.directory(other).location);
        if one.starts_with(other) && !one.components().any(|part| part.as_os_str() == "..") {
            return String::new();
        }
        format!(" ({} and {} overlap on the disk)", one.display(), other.display())
    }

    fn check_vessels(&self) {
        let (mut said, mut warned) = (HashSet::new(), HashSet::new());
        for vessel in 0..self.vessels.len() {
            self.check_places(vessel, vessel, &mut said);
        }
        for (one, other) in self.twins() {
            self.check_places(one, other, &mut said);
            // Warns once for each vessel, because many vessels with the same account form many pairs.
            if !warned.contains(&other) && self.check_temp_dirs(one, other) {
                warned.insert(other);
            }
        }
    }

    /// Warns of two vessels with the same account and the same TempDir. The parts of both vessels would be in one
    /// directory, and if a shore forgets one vessel, that vessel's parts stay in the TempDir of the other vessel.
    /// Returns whether it warned.
    fn check_temp_dirs(&self, one: usize, other: usize) -> bool {
        let ((first, _), (second, place)) = (&self.vessels[one], &self.vessels[other]);
        let same = first.local.is_none() && first.temp_dir == second.temp_dir && way_to(first) == way_to(second);
        if same {
            let message = format!(
                "{} is also the TempDir of [Vessel {}], which is the same account on the same host",
                first.temp_dir, first.name
            );
            let remedy = format!("write `TempDir = {}-{{vessel}}`", first.temp_dir);
            self.problems.warn(place.clone().at_key("TempDir"), Diagnostic::new(message, remedy));
        }
        same
    }

    /// Returns all pairs of vessels that have the same account on the same host according to the settings.
    fn twins(&self) -> BTreeSet<(usize, usize)> {
        let mut accounts: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, (vessel, _)) in self.vessels.iter().enumerate() {
            for account in accounts_of(vessel) {
                accounts.entry(account).or_default().push(at);
            }
        }
        let pairs = |vessels: &Vec<usize>| {
            let pair =
                |(at, one): (usize, &usize)| vessels[at + 1..].iter().map(|other| (*one, *other)).collect::<Vec<_>>();
            vessels.iter().enumerate().flat_map(pair).collect::<Vec<_>>()
        };
        accounts.values().flat_map(pairs).collect()
    }

    /// Compares the remote locations of all directories on a vessel, or on two vessels with the same account. `said`
    /// has the pairs of directories that were already reported.
    fn check_places(&self, one: usize, other: usize, said: &mut HashSet<(usize, usize)>) {
        let (ours, theirs) = (self.places(one), self.places(other));
        // Two hosts made from one image share a host key, so vessels with the same pinned key may be two hosts.
        // Therefore the locations of the same directory on both vessels are compared only if the routes to both vessels
        // are also the same.
        let same_way = way_to(&self.vessels[one].0) == way_to(&self.vessels[other].0);
        for (first, place) in &ours {
            for (second, other_place) in &theirs {
                let twice = if one == other { second <= first } else { second == first && !same_way };
                if !twice
                    && !said.contains(&(*first, *second))
                    && self.check_pair((one, *first, place), (other, *second, other_place))
                {
                    said.insert((*first, *second));
                }
            }
        }
    }

    /// Returns the remote locations of a vessel's directories, with the directories' indexes. If the vessel is this
    /// host, the locations are resolved on the disk.
    fn places(&self, vessel: usize) -> Vec<(usize, Reach)> {
        let vessel = &self.vessels[vessel].0;
        let taken = self.directories.iter().enumerate().filter(|(_, (directory, _))| vessel.takes(&directory.name));
        let (taken, paths): (Vec<usize>, Vec<PathBuf>) =
            taken.map(|(at, (directory, _))| (at, reach::remote(vessel.remote_location(directory).as_bytes()))).unzip();
        let reaches = match vessel.local {
            Some(_) => Reach::of(&paths),
            None => paths.into_iter().map(Reach::elsewhere).collect(),
        };
        taken.into_iter().zip(reaches).collect()
    }

    /// Checks two remote locations; returns whether a problem was reported.
    fn check_pair(&self, one: (usize, usize, &Reach), other: (usize, usize, &Reach)) -> bool {
        if let Some(below) = one.2.holds(other.2) {
            if below.as_os_str().is_empty() {
                self.same_place(one, other)
            } else {
                self.place_in_place(one, other, &below)
            }
        } else if let Some(below) = other.2.holds(one.2) {
            self.place_in_place(other, one, &below)
        } else {
            false
        }
    }

    fn same_place(&self, one: (usize, usize, &Reach), other: (usize, usize, &Reach)) -> bool {
        let (first, vessel) = (self.directory(one.1), &self.vessels[other.0].0);
        let message = if one.0 == other.0 {
            format!(
                "is also the destination of [Directory {}] on [Vessel {}]: files of the same name overwrite each other",
                first.name, vessel.name
            )
        } else {
            format!(
                "is also the destination of [Directory {}] on [Vessel {}], which is the same account on the same host \
                 as [Vessel {}]",
                first.name, self.vessels[one.0].0.name, vessel.name
            )
        };
        self.report_place(other, message, String::new());
        true
    }

    fn place_in_place(&self, outer: (usize, usize, &Reach), inner: (usize, usize, &Reach), below: &Path) -> bool {
        let (holder, held) = (self.directory(outer.1), self.directory(inner.1));
        if self.reaches[outer.1].is_file || !takes(holder, below, self.reaches[inner.1].is_file) {
            return false;
        }
        let (name, vessel) = (&holder.name, &self.vessels[outer.0].0.name);
        let exclude = format!(", or `Exclude = /{}` in [Directory {name}]", below.display());
        let message = format!("is in the RemoteLocation of [Directory {name}] on [Vessel {vessel}]");
        if holder.delete || held.delete {
            let deletes = if holder.delete { name } else { &held.name };
            let why = format!("{message}, and the mirror [Directory {deletes}] deletes files there");
            self.report_place(inner, why, exclude);
        } else {
            let (place, key, remedy) = self.place_of(inner);
            let why = format!("{message}: files of the same name overwrite each other");
            self.problems.warn(place.at_key(&key), Diagnostic::new(why, remedy + &exclude));
        }
        true
    }

    fn report_place(&self, place: (usize, usize, &Reach), message: String, otherwise: String) {
        let (place, key, remedy) = self.place_of(place);
        self.problems.report(place.at_key(&key), Diagnostic::new(message, remedy + &otherwise));
    }

    /// Returns the place in the settings and the key that set a directory's remote location on a vessel, and the remedy
    /// for the overlap.
    fn place_of(&self, (vessel, directory, _): (usize, usize, &Reach)) -> (Place, String, String) {
        let (vessel, vessel_place) = &self.vessels[vessel];
        let (directory, directory_place) = &self.directories[directory];
        let own = format!("RemoteLocation.{}", directory.name);
        let remedy = format!("set `{own}` in [Vessel {}] to a path that no other directory uses there", vessel.name);
        match vessel.remote_locations.contains_key(&directory.name) {
            true => (vessel_place.clone(), own, remedy),
            false => (directory_place.clone(), "RemoteLocation".to_owned(), remedy),
        }
    }

    fn directory(&self, at: usize) -> &Directory {
        &self.directories[at].0
    }

    fn report(&self, directory: usize, diagnostic: Diagnostic) {
        self.problems.report(self.directories[directory].1.clone().at_key("Location"), diagnostic);
    }
}

/// Describes the conflict between the absolute remote locations of two directories on one account; returns `None` if
/// they don't conflict.
pub fn clash((first, place): (&Directory, &RemotePath), (second, other): (&Directory, &RemotePath)) -> Option<String> {
    let (one, two) = [place, other].map(|place| Reach::elsewhere(reach::remote(place.as_bytes()))).into();
    let (holder, held, below) = match one.holds(&two) {
        Some(below) if below.as_os_str().is_empty() => {
            return Some(format!("is also the destination of [Directory {}]", first.name));
        }
        Some(below) => (first, second, below),
        None => (second, first, two.holds(&one)?),
    };
    let deletes = [holder, held].into_iter().find(|directory| directory.delete)?;
    let meets = holder.only.is_none() && takes(holder, &below, held.only.is_some());
    meets.then(|| {
        let (other, deletes) = (&first.name, &deletes.name);
        format!(
            "overlaps with the RemoteLocation of [Directory {other}] (the mirror [Directory {deletes}] deletes files \
             there)"
        )
    })
}

/// Returns whether a directory includes a path below its location.
pub(super) fn takes(directory: &Directory, below: &Path, is_file: bool) -> bool {
    if !is_file {
        let included = directory.include.is_empty() || directory.include.may_reach_into(below);
        return directory.recursive && included && !directory.exclude.covers(below, true);
    }
    let deep = below.components().count() > 1;
    let name = below.file_name().unwrap_or_default();
    (directory.recursive || !deep)
        && !directory.ignore_names.is_match(name)
        && !directory.exclude.covers(below, false)
        && (directory.include.is_empty() || directory.include.reaches(below, false))
}

/// Returns texts that identify a vessel's account and host: one with the address and hops, and one with each pinned
/// host key.
fn accounts_of(vessel: &Vessel) -> Vec<String> {
    let pinned = vessel.ssh.host_keys.iter().filter(|_| vessel.local.is_none());
    let by_key = pinned.map(|key| format!("{}@{key}", vessel.ssh.username));
    std::iter::once(way_to(vessel)).chain(by_key).collect()
}

/// Returns a vessel's account, address and hops as a text.
fn way_to(vessel: &Vessel) -> String {
    if vessel.local.is_some() {
        return "this host".to_owned();
    }
    let ssh = &vessel.ssh;
    let hops = vessel.hops.iter().map(|hop| format!("{}:{} ", hop.address.to_lowercase(), hop.port));
    let at = if ssh.socket().is_some() { ssh.at() } else { ssh.at().to_lowercase() };
    format!("{}{}@{at}", hops.collect::<String>(), ssh.username)
}
