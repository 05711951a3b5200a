//! Scans a directory for its current contents. Events of the watcher are only hints to changes.
//!
//! Reads names and metadata, by `lstat` (or `stat`, where links are followed). Opens only directories, each once and
//! relative to its open parent. So a directory that is replaced by a link during the scan is not entered, unless links
//! are followed. The scan does not decide whether a file is finished.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::DiskError;
use super::file_state::{Found, Kind, PathState, classify_in, open_location};
use super::rules::Rules;
use crate::names::RelPath;
use crate::root::is_absent;
use crate::settings::Links;

/// Result of a scan.
#[derive(Debug, Default)]
pub struct Scan {
    /// Files, links and directories that the rules take and that the caller does not know yet, sorted by path.
    pub found: Vec<Found>,
    /// Entries that cannot be delivered. The caller reports each one once.
    pub skipped: Vec<Skipped>,
    /// Directories below the location that cannot be listed, so their contents are unknown.
    pub unread: Vec<DiskError>,
    /// Links to directories that were followed.
    pub links: Vec<RelPath>,
    /// Whether the location is completely empty.
    pub is_empty: bool,
}

/// An entry that is not delivered, with its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Path below the location.
    pub path: RelPath,
    /// The kind of the entry, which is the reason why the entry is not delivered.
    pub kind: Kind,
}

/// Scans a directory, and its subdirectories if the rules say so. With `below`, scans only the subdirectory at that
/// path; the result also contains this subdirectory if the rules take directories.
///
/// Before listing a directory other than the location itself, calls `enter` with its path and inode, so that a watcher
/// added there misses no file. Leaves out the entries for which `is_known` returns true, the entries that the rules
/// exclude, and our own temporary files. A file that vanishes during the scan is omitted; a file whose status cannot be
/// read is in [`Scan::skipped`].
///
/// # Errors
/// When the directory cannot be listed.
pub fn scan(
    rules: &Rules,
    below: Option<&RelPath>,
    enter: &mut dyn FnMut(&Path, u64),
    is_known: &mut dyn FnMut(&Found) -> bool,
) -> Result<Scan, DiskError> {
    let mut walk = Walk { rules, enter, is_known, above: Vec::new(), scan: Scan::default() };
    let root = open_location(rules.location()).map_err(|error| match error {
        DiskError::Location { path, source, .. } => DiskError::Location { act: "list", path, source },
        error => error,
    })?;
    let root = root.following(rules.follows());
    match below {
        None => {
            let unlisted =
                |errno: Errno| DiskError::Location { act: "list", path: rules.location().into(), source: errno.into() };
            let location = openat(&root, ".", LISTED, Mode::empty()).map_err(unlisted)?;
            // Without the location's identity, links that lead back to the location would not be detected, and would be
            // followed without end.
            let identity = identity(&location).map_err(unlisted)?;
            walk.above.push(identity);
            walk.list(location, None)?;
            walk.scan.is_empty = walk.scan.found.is_empty() && is_empty(rules.location())?;
        }
        Some(path) => {
            let unseen = |errno| DiskError::io("read the status of", &rules.location().join(path.as_path()), errno);
            let holder = match root.holder(path.as_path()) {
                Err(errno) if is_absent(errno) => return Ok(walk.scan),
                holder => holder.map_err(unseen)?,
            };
            if let PathState::Directory(found) =
                classify_in(holder.as_fd(), holder.name, rules, path).map_err(unseen)?
                && let Some((opened, found)) = walk.open(holder.as_fd(), found)
            {
                walk.list(opened, Some(found))?;
            }
        }
    }
    let mut scan = walk.scan;
    scan.found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(scan)
}

/// Returns whether a location has no entries at all. Entries that the rules exclude count too.
///
/// # Errors
/// When the location cannot be listed.
pub fn is_empty(location: &Path) -> Result<bool, DiskError> {
    let entries = fs::read_dir(location);
    let mut entries = entries.map_err(|source| DiskError::Location { act: "list", path: location.into(), source })?;
    Ok(entries.next().is_none())
}

/// Flags for opening a directory that is to be listed.
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The longest path that the kernel accepts, in bytes.
const LONGEST_PATH: usize = 4095;

/// A scan in progress.
struct Walk<'a> {
    rules: &'a Rules,
    enter: &'a mut dyn FnMut(&Path, u64),
    is_known: &'a mut dyn FnMut(&Found) -> bool,
    /// Devices and inodes of the directories that contain the current entry, to detect loops of followed links.
    above: Vec<(u64, u64)>,
    scan: Scan,
}

/// A directory that is being listed.
struct Level {
    entries: Dir,
    /// The directory's entry in the result; `None` for the location.
    found: Option<Found>,
}

impl Level {
    /// Returns the next entry: its path below the location, and its type.
    fn next(&mut self) -> rustix::io::Result<Option<(RelPath, FileType)>> {
        while let Some(entry) = self.entries.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let path = match &self.found {
                Some(found) => RelPath::new([found.path.as_bytes(), b"/", name].concat()),
                None => RelPath::new(name),
            };
            // The kernel returns no name that `RelPath` rejects. If it did, the entry would be skipped, because a panic
            // would be worse.
            let Ok(path) = path else { continue };
            return Ok(Some((path, entry.file_type())));
        }
        Ok(None)
    }
}

impl Walk<'_> {
    /// Lists a directory and its subdirectories. Works iteratively, so deep trees cannot overflow the stack.
    fn list(&mut self, opened: OwnedFd, found: Option<Found>) -> Result<(), DiskError> {
        let mut levels = Vec::new();
        self.begin(&mut levels, opened, found)?;
        while let Some(level) = levels.last_mut() {
            let deeper = match level.next() {
                Ok(Some((path, kind))) => match level.entries.fd() {
                    Ok(holder) => self.take(holder, kind, path),
                    Err(errno) => {
                        self.end(&mut levels, Some(errno))?;
                        continue;
                    }
                },
                Ok(None) => {
                    self.end(&mut levels, None)?;
                    continue;
                }
                Err(errno) => {
                    self.end(&mut levels, Some(errno))?;
                    continue;
                }
            };
            if let Some((opened, found)) = deeper {
                self.begin(&mut levels, opened, Some(found))?;
            }
        }
        Ok(())
    }

    /// Starts listing a directory.
    fn begin(&mut self, levels: &mut Vec<Level>, opened: OwnedFd, found: Option<Found>) -> Result<(), DiskError> {
        match Dir::new(opened) {
            Ok(entries) => levels.push(Level { entries, found }),
            Err(errno) => self.ended(found, Some(errno))?,
        }
        Ok(())
    }

    /// Finishes the current directory, after it was listed completely or listing it failed.
    fn end(&mut self, levels: &mut Vec<Level>, failed: Option<Errno>) -> Result<(), DiskError> {
        let found = levels.pop().and_then(|level| level.found);
        self.ended(found, failed)
    }

    fn ended(&mut self, found: Option<Found>, failed: Option<Errno>) -> Result<(), DiskError> {
        let Some(found) = found else {
            let path = self.rules.location().to_owned();
            return failed.map_or(Ok(()), |errno| Err(DiskError::Location { act: "list", path, source: errno.into() }));
        };
        self.above.pop();
        let whole = self.rules.location().join(found.path.as_path());
        let unread = failed.map(|errno| DiskError::io("list", &whole, errno));
        self.scan.unread.extend(unread.filter(|error| !error.is_gone()));
        self.keep(found);
        Ok(())
    }

    fn keep(&mut self, directory: Found) {
        if self.rules.takes_directories() {
            self.find(directory);
        }
    }

    fn find(&mut self, found: Found) {
        if !(self.is_known)(&found) {
            self.scan.found.push(found);
        }
    }

    /// Adds an entry to the result, or opens and returns it if it is a directory to be listed.
    fn take(&mut self, holder: BorrowedFd<'_>, kind: FileType, path: RelPath) -> Option<(OwnedFd, Found)> {
        // Decides by the type in the directory entry where possible, to save a system call.
        let entered = self.rules.enters(&path);
        if !entered && self.rules.leaves_alone(&path) {
            return None;
        }
        let state = match kind {
            FileType::Directory if !entered => return None,
            FileType::Symlink if self.rules.links() == Links::Skip => PathState::Skipped(Kind::Symlink),
            // Some file systems return no type in directory entries.
            _ => classify_in(holder, path.file_name(), self.rules, &path).unwrap_or_else(unreadable),
        };
        match state {
            PathState::Directory(found) if entered => return self.open(holder, found),
            PathState::Taken(found) if !self.rules.leaves_alone(&path) => self.find(found),
            PathState::Skipped(kind) if !self.rules.leaves_alone(&path) => {
                self.scan.skipped.push(Skipped { path, kind })
            }
            PathState::Taken(_) | PathState::Directory(_) | PathState::Gone | PathState::Skipped(_) => {}
        }
        None
    }

    /// Opens a directory that will be listed, and reports it to `enter`.
    fn open(&mut self, holder: BorrowedFd<'_>, found: Found) -> Option<(OwnedFd, Found)> {
        let whole = self.rules.location().join(found.path.as_path());
        // Files below a directory with such a long path could not be opened by their path, and a hostile program could
        // nest directories without end.
        if whole.as_os_str().len() > LONGEST_PATH {
            self.scan.unread.push(DiskError::io("list", &whole, Errno::NAMETOOLONG));
            return None;
        }
        let mut flags = LISTED;
        flags.set(OFlags::NOFOLLOW, !self.rules.follows());
        match openat(holder, found.path.file_name(), flags, Mode::empty()) {
            Ok(opened) => {
                let identity = identity(&opened).ok()?;
                if self.above.contains(&identity) {
                    self.scan.skipped.push(Skipped { path: found.path, kind: Kind::Symlink });
                    return None;
                }
                if self.rules.follows() && is_link(holder, found.path.file_name()) {
                    self.scan.links.push(found.path.clone());
                }
                (self.enter)(&whole, identity.1);
                self.above.push(identity);
                Some((opened, found))
            }
            // The directory was removed or replaced; the next scan finds its replacement.
            Err(errno) if is_absent(errno) => None,
            Err(errno) => {
                (self.enter)(&whole, found.traits.stamp.inode);
                self.scan.unread.push(DiskError::io("list", &whole, errno));
                self.keep(found);
                None
            }
        }
    }
}

/// Returns the device and the inode of a directory.
fn identity(directory: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    let stat = fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn is_link(holder: BorrowedFd<'_>, name: &std::ffi::OsStr) -> bool {
    rustix::fs::statat(holder, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

fn unreadable(errno: Errno) -> PathState {
    PathState::Skipped(Kind::Unreadable(io::Error::from(errno).raw_os_error().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::VersionKind;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn fifo(path: &Path) {
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, 0o600.into(), 0).unwrap();
    }

    #[test]
    fn directories_in_each_other_that_are_deeper_than_paths_can_be_end_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let mut above = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        for _ in 0..6000 {
            rustix::fs::mkdirat(&above, "d", Mode::RWXU).unwrap();
            above = openat(&above, "d", LISTED, Mode::empty()).unwrap();
        }
        let scan = scan_with(dir.path(), "Recursive = yes");
        assert!(scan.found.iter().any(|found| found.path.as_bytes() == b"file"));
        assert!(matches!(&scan.unread[..], [error] if error.to_string().contains("too long")), "{:?}", scan.unread);
        crate::local::sweep(dir.path(), true).unwrap();
        // Uses `rm`, because these directories are too deep to be removed by their path.
        assert!(std::process::Command::new("rm").arg("-rf").arg(dir.path().join("d")).status().unwrap().success());
    }

    fn scan_with(location: &Path, lines: &str) -> Scan {
        scan(&Rules::of(location, lines), None, &mut |_, _| {}, &mut |_| false).unwrap()
    }

    fn paths(scan: &Scan) -> Vec<String> {
        scan.found.iter().map(|found| found.path.to_string()).collect()
    }

    #[test]
    fn files_of_any_name_are_found_and_the_rest_is_skipped_or_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &[u8]| dir.path().join(OsStr::from_bytes(name));
        for name in [&b"plain"[..], b"-rf", b"two\nlines", b"caf\xe9", b"x.part", b"\xff.part", b".a.swp"] {
            fs::write(at(name), name).unwrap();
        }
        fs::create_dir(at(b"processed")).unwrap();
        fs::write(at(b"processed/old"), "").unwrap();
        fs::create_dir(at(b"deeper")).unwrap();
        symlink("plain", at(b"link")).unwrap();
        symlink("nowhere", at(b"dangling")).unwrap();
        fifo(&at(b"pipe"));
        let _socket = UnixListener::bind(at(b"socket")).unwrap();

        let scan = scan_with(dir.path(), "IgnoreNames = *.part, .*.sw?");
        let mut found: Vec<_> = scan.found.iter().map(|f| f.path.as_bytes().to_vec()).collect();
        found.sort();
        assert_eq!(found, [&b"-rf"[..], b"caf\xe9", b"plain", b"two\nlines"]);
        assert_eq!(scan.found[0].traits.stamp.size, scan.found[0].path.as_bytes().len() as u64);
        let mut skipped: Vec<_> = scan.skipped.iter().map(|s| (s.path.to_string(), s.kind)).collect();
        skipped.sort_by(|a, b| a.0.cmp(&b.0));
        let expected =
            [("dangling", Kind::Symlink), ("link", Kind::Symlink), ("pipe", Kind::Fifo), ("socket", Kind::Socket)];
        assert_eq!(skipped, expected.map(|(name, kind)| (name.to_owned(), kind)));
    }

    /// Creates `a/b/f`, `a/empty/`, `f`, `processed/f`, `loop -> .`, `link -> a`.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for below in ["a/b", "a/empty", "processed"] {
            fs::create_dir_all(dir.path().join(below)).unwrap();
        }
        for file in ["a/b/f", "f", "processed/f"] {
            fs::write(dir.path().join(file), file).unwrap();
        }
        symlink(".", dir.path().join("loop")).unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        dir
    }

    #[test]
    fn a_recursive_scan_finds_files_and_in_a_mirror_directories() {
        let dir = tree();
        assert_eq!(paths(&scan_with(dir.path(), "Recursive = yes")), ["a/b/f", "f"]);
        let mirror = scan_with(dir.path(), "Recursive = yes\nMode = mirror");
        assert_eq!(paths(&mirror), ["a", "a/b", "a/b/f", "a/empty", "f", "processed", "processed/f"]);
        assert_eq!(paths(&scan_with(dir.path(), "Mode = mirror")), ["f"]);
        let included = scan_with(dir.path(), "Recursive = yes\nMode = mirror\nInclude = /a/\nExclude = empty/");
        assert_eq!(paths(&included), ["a/b/f"]);
    }

    #[test]
    fn links_are_copied_or_followed_but_not_in_circles() {
        let dir = tree();
        let copied = scan_with(dir.path(), "Recursive = yes\nMode = mirror\nLinks = copy\nExclude = processed/");
        assert_eq!(paths(&copied), ["a", "a/b", "a/b/f", "a/empty", "f", "link", "loop"]);
        assert_eq!((copied.found[5].traits.kind, &copied.found[5].target[..]), (VersionKind::Link, &b"a"[..]));
        let followed =
            scan_with(dir.path(), "Recursive = yes\nMode = mirror\nLinks = follow\nExclude = processed/, empty/");
        assert_eq!(paths(&followed), ["a", "a/b", "a/b/f", "f", "link", "link/b", "link/b/f"]);
    }

    #[test]
    fn every_directory_is_told_of_before_it_is_listed() {
        let dir = tree();
        let mut told = Vec::new();
        let mut enter = |directory: &Path, _| {
            fs::write(directory.join("just now"), "").unwrap();
            told.push(directory.to_owned());
        };
        let scan = scan(&Rules::of(dir.path(), "Recursive = yes"), None, &mut enter, &mut |_| false).unwrap();
        assert_eq!(told.len(), 3);
        assert_eq!(paths(&scan), ["a/b/f", "a/b/just now", "a/empty/just now", "a/just now", "f"]);
    }

    #[test]
    fn what_is_known_is_left_out() {
        let dir = tree();
        let rules = Rules::of(dir.path(), "Recursive = yes");
        let scan = scan(&rules, None, &mut |_, _| {}, &mut |found| found.path.as_bytes() == b"f").unwrap();
        assert_eq!(paths(&scan), ["a/b/f"]);
        let scan = super::scan(&rules, None, &mut |_, _| {}, &mut |_| true).unwrap();
        assert!(scan.found.is_empty() && !scan.is_empty);
    }

    #[test]
    fn a_missing_location_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = scan(&Rules::of(&dir.path().join("no"), ""), None, &mut |_, _| {}, &mut |_| false).unwrap_err();
        assert!(error.fault().remedy.contains("Location"), "{error}");
    }
}
