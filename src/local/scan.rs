//! What lies in a directory now: the truth that events only hint at.
//!
//! Looks at names and what `lstat` says (or `stat`, where links are followed); opens nothing but directories. Doesn't judge
//! whether a file is finished.

use std::fs::{self, DirEntry};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::DiskError;
use super::look::{Found, Kind, Sight, see};
use super::rules::Rules;
use crate::names::RelPath;
use crate::settings::Links;

/// What a look through a directory found.
#[derive(Debug, Default)]
pub struct Scan {
    /// What is taken, in the order of the paths.
    pub found: Vec<Found>,
    /// What can't be delivered, to be said once each.
    pub skipped: Vec<Skipped>,
    /// Directories below the location that can't be looked into: nobody knows what they hold.
    pub unread: Vec<DiskError>,
    /// Links to directories that were followed.
    pub links: Vec<RelPath>,
    /// Whether nothing at all lies in the location.
    pub is_empty: bool,
}

/// Something that is not delivered, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it lies below the location.
    pub path: RelPath,
    /// Why it is not delivered.
    pub kind: Kind,
}

/// Looks through a directory, and through those below it where the rules say so; with `below`, only through that one, which
/// is among what is found where directories are taken.
///
/// `enter` is told of every directory but the location before it is listed, with its path and inode: what is watched from
/// then on is found either now or by an event. What the rules leave alone and our own temporary names are passed over
/// without a word. A file that vanishes meanwhile was never there; one that can't be looked at is among the skipped.
///
/// # Errors
/// When the directory can't be listed.
pub fn scan(rules: &Rules, below: Option<&RelPath>, enter: &mut dyn FnMut(&Path, u64)) -> Result<Scan, DiskError> {
    let mut walk = Walk { rules, enter, above: Vec::new(), scan: Scan::default() };
    match below {
        None => {
            // Links that lead back to the location end there.
            walk.above.extend(fs::metadata(rules.location()).map(|meta| (meta.dev(), meta.ino())));
            walk.list(None)?;
            walk.scan.is_empty = walk.scan.found.is_empty() && is_empty(rules.location())?;
        }
        Some(path) => {
            if let Sight::Directory(found) = see(rules, path)? {
                walk.enter(found)?;
            }
        }
    }
    let mut scan = walk.scan;
    scan.found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(scan)
}

/// Whether nothing lies in a location, whatever its rules say.
///
/// # Errors
/// When it can't be listed.
pub fn is_empty(location: &Path) -> Result<bool, DiskError> {
    let entries = fs::read_dir(location);
    let mut entries = entries.map_err(|source| DiskError::Location { act: "list", path: location.into(), source })?;
    Ok(entries.next().is_none())
}

/// A look through directories, under way.
struct Walk<'a> {
    rules: &'a Rules,
    enter: &'a mut dyn FnMut(&Path, u64),
    /// Inodes of the directories above: where links are followed, they may lead in a circle.
    above: Vec<(u64, u64)>,
    scan: Scan,
}

impl Walk<'_> {
    fn list(&mut self, directory: Option<&RelPath>) -> Result<(), DiskError> {
        let whole =
            directory.map_or(self.rules.location().to_owned(), |path| self.rules.location().join(path.as_path()));
        let unlisted = |source| match directory {
            None => DiskError::Location { act: "list", path: whole.clone(), source },
            Some(_) => DiskError::io("list", &whole, source),
        };
        for entry in fs::read_dir(&whole).map_err(unlisted)? {
            let entry = entry.map_err(unlisted)?;
            let mut name = entry.file_name().into_vec();
            if let Some(directory) = directory {
                name = [directory.as_bytes(), b"/", &name].concat();
            }
            // The kernel gives no name that RelPath would refuse, but it is not worth a panic.
            let Ok(path) = RelPath::new(name) else { continue };
            self.take(&entry, path)?;
        }
        Ok(())
    }

    fn take(&mut self, entry: &DirEntry, path: RelPath) -> Result<(), DiskError> {
        // Without a system call for what its type rules out.
        let entered = self.rules.enters(&path);
        if !entered && self.rules.leaves_alone(&path) {
            return Ok(());
        }
        let sight = match entry.file_type() {
            Ok(t) if t.is_dir() && !entered => return Ok(()),
            Ok(t) if t.is_symlink() && self.rules.links() == Links::Skip => Sight::Skipped(Kind::Symlink),
            Ok(t) if t.is_file() || t.is_dir() || t.is_symlink() => {
                see(self.rules, &path).unwrap_or_else(|e| unreadable(&e))
            }
            Ok(t) => Sight::Skipped(Kind::of(t)),
            Err(error) => unreadable(&DiskError::io("look at", &entry.path(), error)),
        };
        match sight {
            Sight::Directory(found) if entered => self.enter(found),
            Sight::Taken(found) if !self.rules.leaves_alone(&path) => {
                self.scan.found.push(found);
                Ok(())
            }
            Sight::Skipped(kind) if !self.rules.leaves_alone(&path) => {
                self.scan.skipped.push(Skipped { path, kind });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Looks through a directory below the location. One that can't be listed is noted, and the others go on.
    fn enter(&mut self, found: Found) -> Result<(), DiskError> {
        let whole = self.rules.location().join(found.path.as_path());
        let Ok(meta) = fs::metadata(&whole) else { return Ok(()) };
        let identity = (meta.dev(), meta.ino());
        if self.above.contains(&identity) {
            self.scan.skipped.push(Skipped { path: found.path, kind: Kind::Symlink });
            return Ok(());
        }
        if self.rules.follows() && fs::symlink_metadata(&whole).is_ok_and(|meta| meta.is_symlink()) {
            self.scan.links.push(found.path.clone());
        }
        (self.enter)(&whole, meta.ino());
        self.above.push(identity);
        let listed = self.list(Some(&found.path));
        self.above.pop();
        match listed {
            Err(error) if !error.is_gone() => self.scan.unread.push(error),
            _ => {}
        }
        if self.rules.takes_directories() {
            self.scan.found.push(found);
        }
        Ok(())
    }
}

fn unreadable(error: &DiskError) -> Sight {
    let errno = match error {
        DiskError::Io { source, .. } | DiskError::Location { source, .. } => source.raw_os_error(),
        _ => None,
    };
    Sight::Skipped(Kind::Unreadable(errno.unwrap_or(0)))
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
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    }

    fn scan_with(location: &Path, lines: &str) -> Scan {
        scan(&Rules::of(location, lines), None, &mut |_, _| {}).unwrap()
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

    /// `a/b/f`, `a/empty/`, `f`, `processed/f`, `loop -> .`, `link -> a`.
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
        let scan = scan(&Rules::of(dir.path(), "Recursive = yes"), None, &mut |directory, _| {
            fs::write(directory.join("just now"), "").unwrap();
            told.push(directory.to_owned());
        })
        .unwrap();
        assert_eq!(told.len(), 3);
        assert_eq!(paths(&scan), ["a/b/f", "a/b/just now", "a/empty/just now", "a/just now", "f"]);
    }

    #[test]
    fn a_missing_location_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = scan(&Rules::of(&dir.path().join("no"), ""), None, &mut |_, _| {}).unwrap_err();
        assert!(error.fault().remedy.contains("Location"), "{error}");
    }
}
