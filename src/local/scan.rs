//! What lies in a directory now: the truth that events only hint at.
//!
//! Looks at names and what `lstat` says; opens nothing. Doesn't judge whether a file is finished.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirEntry, FileType};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use globset::GlobSet;
use rustix::io::Errno;

use super::error::gone;
use super::{DiskError, mode_of, relocate, stamp_of};
use crate::names::RelPath;
use crate::records::FileStamp;

/// What a look through a directory found.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// The regular files, in no order.
    pub files: Vec<Found>,
    /// What can't be delivered, to be said once each.
    pub skipped: Vec<Skipped>,
}

/// A regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it lies below the location.
    pub path: RelPath,
    /// What it looks like now.
    pub stamp: FileStamp,
    /// Permission bits (`0o7777`).
    pub mode: u32,
}

/// Something that is not delivered, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it lies below the location.
    pub path: RelPath,
    /// Why it is not delivered.
    pub kind: Kind,
}

/// What a thing is that is no regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A symbolic link, wherever it leads.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A block or character device.
    Device,
    /// `lstat` failed with this errno, so nobody knows.
    Unreadable(i32),
}

impl Kind {
    pub(super) fn of(file_type: FileType) -> Self {
        match file_type {
            t if t.is_dir() => Self::Directory,
            t if t.is_symlink() => Self::Symlink,
            t if t.is_fifo() => Self::Fifo,
            t if t.is_socket() => Self::Socket,
            _ => Self::Device,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("directory"),
            Self::Symlink => f.write_str("symbolic link"),
            Self::Fifo => f.write_str("named pipe"),
            Self::Socket => f.write_str("socket"),
            Self::Device => f.write_str("device"),
            Self::Unreadable(errno) => write!(f, "thing that can't be looked at ({})", io_error(*errno)),
        }
    }
}

fn io_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// What a single look at a path saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A regular file.
    File {
        /// What it looks like now.
        stamp: FileStamp,
        /// Permission bits (`0o7777`).
        mode: u32,
    },
    /// Nothing of that name.
    Gone,
    /// Something else, which is not followed or opened.
    NotAFile(Kind),
}

/// Looks through a directory, not through those below it.
///
/// Directories (`processed/` among them), names that `ignore` knows and our own temporary names are passed over without
/// a word. A file that vanishes meanwhile was never there; one that can't be looked at is among the skipped.
///
/// # Errors
/// When the directory can't be listed.
pub fn scan(location: &Path, ignore: &GlobSet) -> Result<Scan, DiskError> {
    let unlisted = |source| DiskError::Location { act: "list", path: location.into(), source };
    let mut scan = Scan::default();
    for entry in fs::read_dir(location).map_err(unlisted)? {
        let entry = entry.map_err(unlisted)?;
        // The kernel gives no name that RelPath would refuse, but it is not worth a panic.
        let Ok(path) = RelPath::new(entry.file_name().as_bytes()) else { continue };
        if ignored(ignore, &path) {
            continue;
        }
        match examine(&entry) {
            Look::File { stamp, mode } => scan.files.push(Found { path, stamp, mode }),
            Look::Gone | Look::NotAFile(Kind::Directory) => {}
            Look::NotAFile(kind) => scan.skipped.push(Skipped { path, kind }),
        }
    }
    Ok(scan)
}

/// Looks at a directory entry, without a system call for what its type rules out.
fn examine(entry: &DirEntry) -> Look {
    match entry.file_type() {
        Ok(t) if t.is_file() => judge(entry.metadata()).unwrap_or_else(unreadable),
        Ok(t) => Look::NotAFile(Kind::of(t)),
        Err(error) => judge(Err(error)).unwrap_or_else(unreadable),
    }
}

fn unreadable(error: io::Error) -> Look {
    Look::NotAFile(Kind::Unreadable(error.raw_os_error().unwrap_or(0)))
}

fn judge(meta: io::Result<fs::Metadata>) -> io::Result<Look> {
    match meta {
        Ok(m) if m.is_file() => Ok(Look::File { stamp: stamp_of(&m), mode: mode_of(&m) }),
        Ok(m) => Ok(Look::NotAFile(Kind::of(m.file_type()))),
        Err(error) if gone(&error) => Ok(Look::Gone),
        Err(error) => Err(error),
    }
}

/// Whether a file is left alone: its name matches `ignore`, or it is a temporary name of our own.
pub fn ignored(ignore: &GlobSet, path: &RelPath) -> bool {
    let name: &OsStr = path.file_name();
    relocate::is_ours(name.as_bytes()) || ignore.is_match(Path::new(name))
}

/// Looks at one path, never following a link in its last component.
///
/// # Errors
/// When `lstat` fails for another reason than that nothing is there, or when the location itself is missing: a disk that
/// is not mounted must not look like a thousand deleted files.
pub fn look(location: &Path, path: &RelPath) -> Result<Look, DiskError> {
    let whole = location.join(path.as_path());
    let look = judge(fs::symlink_metadata(&whole)).map_err(|error| DiskError::io("look at", &whole, error))?;
    if look == Look::Gone {
        require(location)?;
    }
    Ok(look)
}

/// Fails when the location is not there, or is no directory.
pub(super) fn require(location: &Path) -> Result<(), DiskError> {
    let found = match fs::metadata(location) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => Errno::NOTDIR.into(),
        Err(error) => error,
    };
    Err(DiskError::Location { act: "find", path: location.into(), source: found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use globset::{Glob, GlobSetBuilder};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn globs(patterns: &[&str]) -> GlobSet {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(Glob::new(pattern).unwrap());
        }
        set.build().unwrap()
    }

    fn fifo(path: &Path) {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
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

        let scan = scan(dir.path(), &globs(&["*.part", ".*.sw?"])).unwrap();
        let mut found: Vec<_> = scan.files.iter().map(|f| f.path.as_bytes().to_vec()).collect();
        found.sort();
        assert_eq!(found, [&b"-rf"[..], b"caf\xe9", b"plain", b"two\nlines"]);
        assert_eq!(scan.files[0].stamp.size, scan.files[0].path.as_bytes().len() as u64);
        let mut skipped: Vec<_> = scan.skipped.iter().map(|s| (s.path.to_string(), s.kind)).collect();
        skipped.sort_by(|a, b| a.0.cmp(&b.0));
        let expected =
            [("dangling", Kind::Symlink), ("link", Kind::Symlink), ("pipe", Kind::Fifo), ("socket", Kind::Socket)];
        assert_eq!(skipped, expected.map(|(name, kind)| (name.to_owned(), kind)));
    }

    #[test]
    fn a_missing_location_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = scan(&dir.path().join("no"), &GlobSet::empty()).unwrap_err();
        assert!(error.fault().remedy.contains("Location"), "{error}");
    }

    #[test]
    fn a_look_follows_no_link_and_knows_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let look = |name: &str| look(dir.path(), &RelPath::new(name).unwrap()).unwrap();
        fs::write(dir.path().join("file"), "abc").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        assert!(matches!(look("file"), Look::File { stamp, .. } if stamp.size == 3));
        assert_eq!(look("link"), Look::NotAFile(Kind::Symlink));
        assert_eq!(look("nothing"), Look::Gone);
        assert_eq!(look("file/below"), Look::Gone);
        let missing = super::look(&dir.path().join("no"), &RelPath::new("file").unwrap());
        assert!(matches!(missing, Err(DiskError::Location { .. })), "{missing:?}");
    }
}
