//! Lists the file systems mounted in and below a location, from the kernel's mount table.
//!
//! When a disk is unmounted, or covered by another mount, its files vanish although nobody deleted them. This module
//! reads the mount table instead of the device numbers of directories, because the table also lists mounts of single
//! files, and bind mounts, which have the same device number as the directories around them. The file systems
//! themselves are only asked for their ID (`f_fsid`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::DiskError;
use crate::names::{RelPath, display_bytes};
use crate::records::Mount;

/// A path at which the file system differs from the remembered one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path below the location; empty for the location itself.
    pub path: Vec<u8>,
    /// Description of the change, to be printed after the path.
    pub what: String,
}

impl Change {
    /// Returns whether a path is the changed path or below it.
    pub fn concerns(&self, path: &RelPath) -> bool {
        path.as_path().starts_with(OsStr::from_bytes(&self.path))
    }
}

/// The mounts in and below a location.
#[derive(Debug, Default)]
pub struct Mounts {
    /// The mount at each mount point and each followed link; `None` if the link is broken.
    places: BTreeMap<Vec<u8>, Option<Mount>>,
    /// The kernel's mount ID at each path. A new mount usually gets another ID, even if nothing else about it differs.
    numbers: BTreeMap<Vec<u8>, u64>,
}

impl Mounts {
    /// Reads the mounts of a location, of the links in it that are followed, and of the remembered paths.
    ///
    /// # Errors
    /// When the location does not exist, or the mount table cannot be read.
    pub fn look<'a>(
        location: &Path,
        links: impl IntoIterator<Item = &'a RelPath>,
        remembered: &[Mount],
    ) -> Result<Self, DiskError> {
        let top = found(location)?;
        Ok(Self::around(location, &top, entries()?, Fsids::Ask, links, remembered))
    }

    fn around<'a>(
        location: &Path,
        top: &Path,
        entries: Vec<Entry>,
        fsids: Fsids,
        links: impl IntoIterator<Item = &'a RelPath>,
        remembered: &[Mount],
    ) -> Self {
        let mut look = Reading::new(location, entries, fsids);
        look.around(&[], top, false);
        let followed = remembered.iter().filter(|mount| mount.within.is_empty()).map(|mount| mount.path.clone());
        let followed: Vec<_> = links.into_iter().map(|link| link.as_bytes().to_vec()).chain(followed).collect();
        followed.iter().for_each(|link| look.follow(link));
        for place in remembered.iter().map(|mount| &mount.path) {
            let below_link =
                followed.iter().any(|link| Path::new(OsStr::from_bytes(place)).starts_with(OsStr::from_bytes(link)));
            if !below_link && !look.places.contains_key(place) {
                let found = look.at(place, &join(top, place), false);
                look.places.insert(place.clone(), found);
            }
        }
        look.done()
    }

    /// Returns whether this reading and `other` show the same mounts below the location.
    pub fn are_as_in(&self, other: &Self) -> bool {
        self.differences(other).is_empty()
    }

    /// Returns the paths at which a file system was mounted or unmounted between this reading and `other`.
    pub fn differences(&self, other: &Self) -> BTreeSet<Vec<u8>> {
        // The kernel may give the mount ID of an unmounted file system to the next one, so mounts with the same ID are
        // compared too.
        let is_other = |path: &&Vec<u8>| {
            self.numbers.get(*path) != other.numbers.get(*path)
                || match (self.mount_at(path), other.mount_at(path)) {
                    (Some(one), Some(two)) => !one.is_same(two),
                    _ => false,
                }
        };
        self.numbers.keys().chain(other.numbers.keys()).filter(is_other).cloned().collect()
    }

    /// Returns the mount at a mount point, a followed link or a remembered path.
    pub fn mount_at(&self, path: &[u8]) -> Option<&Mount> {
        self.places.get(path)?.as_ref()
    }

    /// Returns all mounts, sorted by path.
    pub fn all(&self) -> impl Iterator<Item = &Mount> {
        self.places.values().flatten()
    }

    /// Returns the paths at which the file system is missing or differs from the remembered one.
    pub fn changes(&self, remembered: &[Mount]) -> Vec<Change> {
        let mut changes = Vec::new();
        for was in remembered {
            match self.places.get(&was.path) {
                Some(Some(is)) if !is.is_same(was) => {
                    let what = format!("is now {}, but it {}", shown(is), earlier(was));
                    changes.push(Change { path: was.path.clone(), what });
                }
                Some(None) => {
                    let what = format!("is now a broken link, but it {}", earlier(was));
                    changes.push(Change { path: was.path.clone(), what });
                }
                Some(Some(_)) | None => {}
            }
        }
        for is in self.all().filter(|is| remembered.iter().all(|was| was.path != is.path)) {
            let above = |was: &&Mount| Path::new(OsStr::from_bytes(&is.path)).starts_with(OsStr::from_bytes(&was.path));
            let Some(around) = remembered.iter().filter(above).max_by_key(|was| was.path.len()) else { continue };
            let expected = below(around, &is.path);
            if !is.is_same(&expected) {
                let what = format!("is now {}, but it {}", shown(is), earlier(&expected));
                changes.push(Change { path: is.path.clone(), what });
            }
        }
        changes
    }
}

/// Returns the mount that is expected at a path below `around` if nothing else is mounted there.
fn below(around: &Mount, path: &[u8]) -> Mount {
    let rest = Path::new(OsStr::from_bytes(path)).strip_prefix(OsStr::from_bytes(&around.path));
    let within = match rest {
        Ok(rest) if !around.within.is_empty() => {
            join(Path::new(OsStr::from_bytes(&around.within)), rest.as_os_str().as_bytes())
        }
        _ => PathBuf::new(),
    };
    Mount { within: within.as_os_str().as_bytes().to_vec(), path: path.to_vec(), ..around.clone() }
}

/// Returns a mount that differs from every real one. It is recorded for a path at which a file system was mounted or
/// unmounted during a scan, because the scan may have found the files of the old or of the new file system.
pub fn uncertain(path: Vec<u8>) -> Mount {
    Mount { path, file_system: Vec::new(), source: Vec::new(), within: Vec::new(), fsid: 0 }
}

/// Describes a remembered mount, to be printed after the word "it".
fn earlier(mount: &Mount) -> String {
    match mount.file_system.is_empty() {
        true => "may have been another file system while the directory was scanned".to_owned(),
        false => format!("was {} before", shown(mount)),
    }
}

fn shown(mount: &Mount) -> String {
    let (source, kind) = (display_bytes(&mount.source), display_bytes(&mount.file_system));
    match &mount.within[..] {
        b"" | b"/" => format!("{source} ({kind})"),
        within => format!("{} of {source} ({kind})", display_bytes(within)),
    }
}

/// Joins two paths without a trailing slash.
fn join(above: &Path, below: &[u8]) -> PathBuf {
    if below.is_empty() { above.to_owned() } else { above.join(OsStr::from_bytes(below)) }
}

/// A copy of the mount table at some time, to be compared with the current mounts later.
#[derive(Debug, PartialEq, Eq)]
pub struct MountTable {
    location: PathBuf,
    top: PathBuf,
    entries: Vec<Entry>,
    /// IDs of the file systems at and below the location, by mount ID.
    fsids: HashMap<u64, u64>,
}

impl MountTable {
    /// Reads the mount table for a location.
    ///
    /// # Errors
    /// When the location does not exist, or the mount table cannot be read.
    pub fn read(location: &Path) -> Result<Self, DiskError> {
        let (top, entries) = (found(location)?, entries()?);
        let mut state = Reading::new(location, entries.clone(), Fsids::Ask);
        state.around(&[], &top, false);
        Ok(Self { location: location.to_owned(), top, entries, fsids: state.asked })
    }

    /// Returns the mounts of the location at that time, as [`Mounts::look`] does.
    pub fn mounts<'a>(&self, links: impl IntoIterator<Item = &'a RelPath>, remembered: &[Mount]) -> Mounts {
        let fsids = Fsids::Known(&self.fsids);
        Mounts::around(&self.location, &self.top, self.entries.clone(), fsids, links, remembered)
    }
}

fn found(location: &Path) -> Result<PathBuf, DiskError> {
    fs::canonicalize(location).map_err(|source| DiskError::Location { act: "find", path: location.into(), source })
}

fn entries() -> Result<Vec<Entry>, DiskError> {
    let file = Path::new("/proc/self/mountinfo");
    let table = fs::read(file).map_err(|error| DiskError::io("read", file, error))?;
    Ok(parse(&table))
}

/// Where the IDs of file systems come from.
#[derive(Clone, Copy)]
enum Fsids<'a> {
    /// Query the mounted file systems.
    Ask,
    /// Use these IDs, by mount ID, because the file systems may no longer be mounted. A mount that is not listed here
    /// counts as having no ID.
    Known(&'a HashMap<u64, u64>),
}

/// A reading of the mount table in progress.
struct Reading<'a> {
    location: &'a Path,
    entries: Vec<Entry>,
    fsids: Fsids<'a>,
    /// IDs of the file systems that were queried, by mount ID.
    asked: HashMap<u64, u64>,
    places: BTreeMap<Vec<u8>, Option<Mount>>,
    numbers: BTreeMap<Vec<u8>, u64>,
}

impl<'a> Reading<'a> {
    fn new(location: &'a Path, entries: Vec<Entry>, fsids: Fsids<'a>) -> Self {
        let (places, numbers) = (BTreeMap::new(), BTreeMap::new());
        Self { location, entries, fsids, asked: HashMap::new(), places, numbers }
    }

    fn done(self) -> Mounts {
        Mounts { places: self.places, numbers: self.numbers }
    }

    /// Records the mount at the path `place`, and all mounts below it. `whole` is the full path with all links
    /// resolved.
    fn around(&mut self, place: &[u8], whole: &Path, followed: bool) {
        let found = self.at(place, whole, followed);
        self.places.insert(place.to_vec(), found);
        let below = |entry: &Entry| entry.point != *whole && entry.point.starts_with(whole) && self.is_on_top(entry);
        let points: Vec<PathBuf> = self.entries.iter().filter(|entry| below(entry)).map(|e| e.point.clone()).collect();
        for point in points {
            let Ok(rest) = point.strip_prefix(whole) else { continue };
            let place = join(Path::new(OsStr::from_bytes(place)), rest.as_os_str().as_bytes());
            let place = place.as_os_str().as_bytes();
            let found = self.at(place, &point, false);
            self.places.insert(place.to_vec(), found);
        }
    }

    /// Records the mount that a followed link leads to. A missing link was deleted on purpose and is ignored.
    fn follow(&mut self, link: &[u8]) {
        let whole = self.location.join(OsStr::from_bytes(link));
        if fs::symlink_metadata(&whole).is_err_and(|error| super::error::gone(&error)) {
            return;
        }
        match fs::canonicalize(&whole) {
            Ok(target) => self.around(link, &target, true),
            Err(_) => drop(self.places.insert(link.to_vec(), None)),
        }
    }

    fn at(&mut self, place: &[u8], whole: &Path, followed: bool) -> Option<Mount> {
        let at = self.holding(whole)?;
        let entry = &self.entries[at];
        self.numbers.insert(place.to_vec(), entry.id);
        let rest = whole.strip_prefix(&entry.point).ok()?;
        let within = join(&entry.root, rest.as_os_str().as_bytes()).as_os_str().as_bytes().to_vec();
        let ask = || rustix::fs::statvfs(&entry.point).map_or(0, |room| room.f_fsid);
        let fsid = match self.fsids {
            Fsids::Ask => *self.asked.entry(entry.id).or_insert_with(ask),
            Fsids::Known(known) => known.get(&entry.id).copied().unwrap_or(0),
        };
        Some(Mount {
            path: place.to_vec(),
            file_system: entry.kind.clone(),
            source: if followed { entry.with_root() } else { entry.source.clone() },
            within: if followed { Vec::new() } else { within },
            fsid,
        })
    }

    fn is_on_top(&self, entry: &Entry) -> bool {
        self.holding(&entry.point).is_some_and(|at| self.entries[at].id == entry.id)
    }

    /// Returns the index of the mount that contains a path; the path must not contain links. If several mounts with the
    /// same parent are on the path, the one with the shortest mount point counts: it was mounted last and covers the
    /// others.
    fn holding(&self, path: &Path) -> Option<usize> {
        let ids: HashSet<u64> = self.entries.iter().map(|entry| entry.id).collect();
        let is_root =
            |entry: &Entry| entry.point == Path::new("/") && (!ids.contains(&entry.parent) || entry.parent == entry.id);
        let mut at = self.entries.iter().position(is_root)?;
        loop {
            let above = &self.entries[at];
            let crossed = |(_, entry): &(usize, &Entry)| {
                entry.parent == above.id && entry.id != above.id && path.starts_with(&entry.point)
            };
            let next = self.entries.iter().enumerate().filter(crossed).min_by_key(|(_, e)| e.point.as_os_str().len());
            match next {
                Some((next, _)) => at = next,
                None => return Some(at),
            }
        }
    }
}

/// A line of the mount table; see `proc_pid_mountinfo(5)`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    id: u64,
    parent: u64,
    /// The mounted directory, as a path inside the file system.
    root: PathBuf,
    /// Mount point.
    point: PathBuf,
    kind: Vec<u8>,
    source: Vec<u8>,
}

impl Entry {
    /// Returns the source with its mounted directory, in the format of `findmnt`. For a followed link, this is all that
    /// is recorded about the target, so a link that is redirected within the same mount does not count as a change of
    /// the file system.
    fn with_root(&self) -> Vec<u8> {
        let root = self.root.as_os_str().as_bytes();
        if root == b"/" { self.source.clone() } else { [&self.source[..], b"[", root, b"]"].concat() }
    }
}

fn parse(table: &[u8]) -> Vec<Entry> {
    table.split(|byte| *byte == b'\n').filter_map(entry).collect()
}

fn entry(line: &[u8]) -> Option<Entry> {
    let mut words = line.split(|byte| *byte == b' ');
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse().ok();
    let path = |word| PathBuf::from(OsStr::from_bytes(&unescaped(word)));
    let (id, parent) = (number(words.next()?)?, number(words.next()?)?);
    let (root, point) = (path(words.nth(1)?), path(words.next()?));
    // A dash ends the optional fields, whose number varies.
    words.by_ref().find(|word| *word == b"-")?;
    Some(Entry { id, parent, root, point, kind: unescaped(words.next()?), source: unescaped(words.next()?) })
}

/// Decodes the kernel's octal escapes of space, tab, newline and backslash (`\` and three digits).
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, after @ ..] = rest {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    fn look(table: &str) -> Reading<'static> {
        // These mounts do not exist on this machine, so their file systems cannot be asked for an ID.
        static NONE: LazyLock<HashMap<u64, u64>> = LazyLock::new(HashMap::new);
        Reading::new(Path::new("/srv/in"), parse(table.as_bytes()), Fsids::Known(&NONE))
    }

    fn mounts(table: &str) -> Mounts {
        let mut look = look(table);
        look.around(&[], Path::new("/srv/in"), false);
        look.done()
    }

    const ROOT: &str = "1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n";

    fn changed(before: &str, after: &str) -> Vec<String> {
        let remembered: Vec<Mount> = mounts(before).all().cloned().collect();
        let mut look = look(after);
        look.around(&[], Path::new("/srv/in"), false);
        for place in remembered.iter().map(|mount| &mount.path) {
            let found = look.at(place, &join(Path::new("/srv/in"), place), false);
            look.places.insert(place.clone(), found);
        }
        let changes = look.done().changes(&remembered);
        changes.into_iter().map(|change| String::from_utf8(change.path).unwrap()).collect()
    }

    #[test]
    fn a_disk_that_is_unmounted_mounted_or_changed_below_a_location_is_seen() {
        let disk = format!("{ROOT}2 1 8:2 / /srv/in/a\\040b rw - xfs /dev/sdb1 rw\n");
        let other = format!("{ROOT}2 1 8:2 / /srv/in/a\\040b rw - xfs /dev/sdc1 rw\n");
        assert_eq!(changed(&disk, &disk), [""; 0]);
        assert_eq!(changed(&disk, ROOT), ["a b"]);
        assert_eq!(changed(ROOT, &disk), ["a b"]);
        assert_eq!(changed(&disk, &other), ["a b"]);
        let whole = format!("{ROOT}2 1 8:2 / /srv rw - xfs /dev/sdb1 rw\n");
        assert_eq!(changed(ROOT, &whole), [""]);
    }

    #[test]
    fn a_bind_mount_of_another_part_is_a_change_and_of_the_same_part_is_none() {
        let same = format!("{ROOT}2 1 8:1 /srv/in/a /srv/in/a ro - ext4 /dev/sda1 rw\n");
        let service = format!("{ROOT}2 1 8:1 /srv /srv rw - ext4 /dev/sda1 rw\n");
        let other = format!("{ROOT}2 1 8:1 /home/f /srv/in/f rw - ext4 /dev/sda1 rw\n");
        assert_eq!(changed(ROOT, &same), [""; 0]);
        assert_eq!(changed(&same, &service), [""; 0]);
        assert_eq!(changed(ROOT, &other), ["f"]);
        assert_eq!(changed(&other, ROOT), ["f"]);
    }

    #[test]
    fn what_is_covered_by_a_later_mount_does_not_count() {
        let hidden =
            format!("{ROOT}2 1 8:2 / /srv/in/a/b rw - xfs /dev/sdb1 rw\n3 1 8:3 / /srv/in/a rw - xfs /dev/sdc1 rw\n");
        let found = mounts(&hidden);
        assert_eq!(found.places.keys().map(|path| &path[..]).collect::<Vec<_>>(), [&b""[..], b"a"]);
        let stacked =
            format!("{ROOT}2 1 8:2 / /srv/in/a rw - xfs /dev/sdb1 rw\n3 2 8:3 / /srv/in/a rw - xfs /dev/sdc1 rw\n");
        assert_eq!(mounts(&stacked).places[&b"a"[..]].as_ref().unwrap().source, b"/dev/sdc1");
    }

    #[test]
    fn what_was_mounted_or_unmounted_between_two_readings_is_seen_also_if_its_id_is_used_again() {
        let disk = format!("{ROOT}2 1 8:2 / /srv/in/a rw - xfs /dev/sdb1 rw\n");
        let other = format!("{ROOT}2 1 8:3 / /srv/in/a rw - xfs /dev/sdc1 rw\n");
        let again = format!("{ROOT}3 1 8:2 / /srv/in/a rw - xfs /dev/sdb1 rw\n");
        for (one, two) in [(ROOT, &*disk), (&disk, ROOT), (&disk, &other), (&disk, &again)] {
            assert_eq!(mounts(one).differences(&mounts(two)).into_iter().collect::<Vec<_>>(), [b"a"]);
        }
        assert!(mounts(&disk).are_as_in(&mounts(&disk)));
    }

    #[test]
    fn an_uncertain_mount_differs_from_each_one() {
        let disk = format!("{ROOT}2 1 8:2 / /srv/in/a rw - xfs /dev/sdb1 rw\n");
        let remembered = [mounts(ROOT).all().next().unwrap().clone(), uncertain(b"a".to_vec())];
        let mut unmounted = look(ROOT);
        unmounted.around(&[], Path::new("/srv/in"), false);
        let found = unmounted.at(b"a", Path::new("/srv/in/a"), false);
        unmounted.places.insert(b"a".to_vec(), found);
        for now in [mounts(&disk), unmounted.done()] {
            let changes = now.changes(&remembered);
            assert_eq!(changes.iter().map(|change| &change.path[..]).collect::<Vec<_>>(), [b"a"]);
            assert!(
                changes[0].what.ends_with("but it may have been another file system while the directory was scanned"),
                "{changes:?}"
            );
        }
    }

    #[test]
    fn this_machines_own_table_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let found = Mounts::look(dir.path(), [], &[]).unwrap();
        let all: Vec<Mount> = found.all().cloned().collect();
        assert!(all.first().is_some_and(|mount| mount.path.is_empty()), "{all:?}");
        assert_eq!(found.changes(&all), []);
    }
}
