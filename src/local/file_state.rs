//! Returns the kind and metadata of paths below a location.
//!
//! Uses `lstat` (or `stat`, where links are followed) and opens only directories. If links are not followed, a path
//! counts as missing when one of its parent directories is a link. A missing location is a separate error, because an
//! unmounted disk must not look like a thousand deleted files.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Stat, readlinkat, statat};
use rustix::io::Errno;

use super::DiskError;
use super::error::gone;
use super::rules::Rules;
use crate::names::RelPath;
use crate::records::{FileStamp, Traits, VersionKind};
use crate::root::{Root, is_absent};
use crate::settings::Links;

/// A file, link or directory that was found below a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Path below the location.
    pub path: RelPath,
    /// The current kind and metadata.
    pub traits: Traits,
    /// Target of a link; empty for other kinds.
    pub target: Vec<u8>,
}

/// The kind of a directory entry that is not delivered as a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A symbolic link, whatever its target.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A block or character device.
    Device,
    /// A file of the program's own, such as its settings or its ledger.
    Own,
    /// `lstat` failed with this errno, so the kind is unknown.
    Unreadable(i32),
}

impl Kind {
    pub(super) fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            _ => Self::Device,
        }
    }
}

impl Kind {
    /// Returns the reason why the entry is skipped, as a clause that calls the entry "it".
    pub fn why_skipped(self) -> String {
        match self {
            Self::Unreadable(errno) => format!("its status cannot be read ({})", io_error(errno)),
            kind => format!("it is a {kind}"),
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
            Self::Unreadable(errno) => write!(f, "path whose status cannot be read ({})", io_error(*errno)),
        }
    }
}

fn io_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// State of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// A regular file.
    File {
        /// Current metadata of the file.
        stamp: FileStamp,
        /// Permission bits (`0o7777`).
        mode: u32,
    },
    /// The path does not exist.
    Gone,
    /// The path is not a regular file, and is neither followed nor opened.
    NotAFile(Kind),
}

/// State of a path under the rules of its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathState {
    /// A file, or a link to be copied.
    Taken(Found),
    /// A directory, which is entered if the rules allow it.
    Directory(Found),
    /// The path does not exist.
    Gone,
    /// The path is something else, and is skipped.
    Skipped(Kind),
}

/// Returns whether a location is a regular file or a link to a regular file.
pub fn is_file(location: &Path) -> bool {
    fs::metadata(location).is_ok_and(|meta| meta.is_file())
}

/// Returns whether a location does not exist or is a broken link.
pub fn is_missing(location: &Path) -> bool {
    fs::metadata(location).is_err_and(|error| gone(&error))
}

impl FileState {
    pub(super) fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::File { stamp: stamp_of_stat(stat), mode: stat.st_mode & 0o7777 },
            _ => Self::NotAFile(Kind::of(stat)),
        }
    }
}

/// Builds the stamp of a file from its `stat`.
fn stamp_of_stat(stat: &Stat) -> FileStamp {
    FileStamp {
        size: stat.st_size as u64,
        mtime: stat.st_mtime,
        mtime_nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        inode: stat.st_ino,
    }
}

/// Opens a location, so that paths below it can be accessed.
pub(super) fn open_location(location: &Path) -> Result<Root, DiskError> {
    let unopened = |errno: Errno| DiskError::Location { act: "open", path: location.into(), source: errno.into() };
    Root::open(location).map_err(unopened)
}

/// Returns the state of the entry `name` in an open directory; `path` is the entry's path below the location.
pub(super) fn classify_in(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    rules: &Rules,
    path: &RelPath,
) -> rustix::io::Result<PathState> {
    let mut stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(errno) if is_absent(errno) => return Ok(PathState::Gone),
        stat => stat?,
    };
    let mut kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink && rules.follows() {
        stat = match statat(directory, name, AtFlags::empty()) {
            Err(errno) if is_absent(errno) => return Ok(PathState::Skipped(Kind::Symlink)),
            followed => followed?,
        };
        kind = FileType::from_raw_mode(stat.st_mode);
    }
    let found = |target| Found { path: path.clone(), traits: traits_of(&stat, rules), target };
    match kind {
        FileType::RegularFile if rules.is_own(path, &stat) => Ok(PathState::Skipped(Kind::Own)),
        FileType::RegularFile => Ok(PathState::Taken(found(Vec::new()))),
        FileType::Directory => Ok(PathState::Directory(found(Vec::new()))),
        FileType::Symlink if rules.links() == Links::Copy => match readlinkat(directory, name, Vec::new()) {
            Ok(target) => Ok(PathState::Taken(found(target.into_bytes()))),
            // The link was removed or replaced meanwhile.
            Err(errno) if is_absent(errno) || errno == Errno::INVAL => Ok(PathState::Gone),
            Err(errno) => Err(errno),
        },
        _ => Ok(PathState::Skipped(Kind::of(&stat))),
    }
}

fn traits_of(stat: &Stat, rules: &Rules) -> Traits {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => VersionKind::Directory,
        FileType::Symlink => VersionKind::Link,
        _ => VersionKind::File,
    };
    let stamp = match kind {
        VersionKind::Directory => FileStamp { size: 0, mtime: 0, mtime_nanos: 0, inode: stat.st_ino },
        _ => stamp_of_stat(stat),
    };
    let owner = rules.minds_owners().then_some((stat.st_uid, stat.st_gid));
    Traits { kind, stamp, mode: stat.st_mode & 0o7777, owner }
}

/// Returns the numeric owner and group of a file.
pub(super) fn owner_of(meta: &Metadata) -> (u32, u32) {
    (meta.uid(), meta.gid())
}

/// Returns the state of a path, without following links.
///
/// # Errors
/// When `lstat` fails for a reason other than a missing path. Also when the location itself is missing, because an
/// unmounted disk must not look like a thousand deleted files.
pub fn file_state(location: &Path, path: &RelPath) -> Result<FileState, DiskError> {
    match open_location(location)?.stat(path.as_path()) {
        Ok(stat) => Ok(FileState::of(&stat)),
        Err(errno) if is_absent(errno) => Ok(FileState::Gone),
        Err(errno) => Err(DiskError::io("read the status of", &location.join(path.as_path()), errno)),
    }
}

/// Fails when the location is missing or not a directory.
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
        let look = |name: &str| file_state(dir.path(), &RelPath::new(name).unwrap()).unwrap();
        fs::write(dir.path().join("file"), "abc").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        assert!(matches!(look("file"), FileState::File { stamp, .. } if stamp.size == 3));
        assert_eq!(look("link"), FileState::NotAFile(Kind::Symlink));
        assert_eq!(look("nothing"), FileState::Gone);
        assert_eq!(look("file/below"), FileState::Gone);
        fs::create_dir(dir.path().join("real")).unwrap();
        fs::write(dir.path().join("real/file"), "abc").unwrap();
        symlink("real", dir.path().join("way")).unwrap();
        assert_eq!(look("way/file"), FileState::Gone);
        let missing = file_state(&dir.path().join("no"), &RelPath::new("file").unwrap());
        assert!(matches!(missing, Err(DiskError::Location { .. })), "{missing:?}");
    }
}
