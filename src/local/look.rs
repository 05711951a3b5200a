//! What lies at a path now, and what it looks like.
//!
//! Asks `lstat` (or `stat`, where links are followed) and opens nothing. A location that is missing is an error of its own: a
//! disk that is not mounted must not look like a thousand deleted files.

use std::fmt;
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::io::Errno;

use super::error::gone;
use super::rules::Rules;
use super::{DiskError, mode_of, stamp_of};
use crate::names::RelPath;
use crate::records::{FileStamp, Traits, VersionKind};
use crate::settings::Links;

/// Something that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it lies below the location.
    pub path: RelPath,
    /// What it is and looks like now.
    pub traits: Traits,
    /// Where a link leads; empty for what is none.
    pub target: Vec<u8>,
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
    /// A file of the program's own, such as its settings or its ledger.
    Own,
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
            Self::Own => f.write_str("file of contentmonster's own"),
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

/// What a single look at a path saw, by the rules of its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// A file, or a link that is copied.
    Taken(Found),
    /// A directory, to be entered where the rules say so.
    Directory(Found),
    /// Nothing of that name.
    Gone,
    /// Something else.
    Skipped(Kind),
}

/// Whether a location is a file, or a link to one, and not a directory.
pub fn is_file(location: &Path) -> bool {
    fs::metadata(location).is_ok_and(|meta| meta.is_file())
}

fn judge(meta: io::Result<Metadata>) -> io::Result<Look> {
    match meta {
        Ok(m) if m.is_file() => Ok(Look::File { stamp: stamp_of(&m), mode: mode_of(&m) }),
        Ok(m) => Ok(Look::NotAFile(Kind::of(m.file_type()))),
        Err(error) if gone(&error) => Ok(Look::Gone),
        Err(error) => Err(error),
    }
}

/// Looks at one path by the rules of its directory.
///
/// # Errors
/// As [`look()`].
pub fn see(rules: &Rules, path: &RelPath) -> Result<Sight, DiskError> {
    let whole = rules.location().join(path.as_path());
    let failed = |error| DiskError::io("look at", &whole, error);
    let mut meta = fs::symlink_metadata(&whole);
    if rules.follows() && meta.as_ref().is_ok_and(Metadata::is_symlink) {
        meta = match fs::metadata(&whole) {
            Err(error) if gone(&error) => return Ok(Sight::Skipped(Kind::Symlink)),
            followed => followed,
        };
    }
    let meta = match meta {
        Ok(meta) => meta,
        Err(error) if gone(&error) => return require(rules.location()).map(|()| Sight::Gone),
        Err(error) => return Err(failed(error)),
    };
    if meta.is_file() && rules.is_own(&whole, &meta) {
        return Ok(Sight::Skipped(Kind::Own));
    }
    let traits = traits_of(&meta, rules);
    match meta.file_type() {
        t if t.is_file() => Ok(Sight::Taken(Found { path: path.clone(), traits, target: Vec::new() })),
        t if t.is_dir() => Ok(Sight::Directory(Found { path: path.clone(), traits, target: Vec::new() })),
        t if t.is_symlink() && rules.links() == Links::Copy => match fs::read_link(&whole) {
            Ok(target) => {
                let target = target.as_os_str().as_bytes().to_vec();
                Ok(Sight::Taken(Found { path: path.clone(), traits, target }))
            }
            Err(error) if gone(&error) => Ok(Sight::Gone),
            Err(error) => Err(failed(error)),
        },
        t => Ok(Sight::Skipped(Kind::of(t))),
    }
}

fn traits_of(meta: &Metadata, rules: &Rules) -> Traits {
    let kind = match meta.file_type() {
        t if t.is_dir() => VersionKind::Directory,
        t if t.is_symlink() => VersionKind::Link,
        _ => VersionKind::File,
    };
    let stamp = match kind {
        VersionKind::Directory => FileStamp { size: 0, mtime: 0, mtime_nanos: 0, inode: meta.ino() },
        _ => stamp_of(meta),
    };
    Traits { kind, stamp, mode: mode_of(meta), owner: rules.minds_owners().then(|| owner_of(meta)) }
}

/// Numbers of owner and group.
pub(super) fn owner_of(meta: &Metadata) -> (u32, u32) {
    (meta.uid(), meta.gid())
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
    use std::os::unix::fs::symlink;

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
