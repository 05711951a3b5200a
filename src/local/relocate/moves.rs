//! Moves files within one file system without overwriting others. Also reads the status of files, and removes and
//! flushes them.
//!
//! All functions take an open directory and a name in it, so a concurrent rename of the directory is harmless.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

use super::FileState;
use super::free_names::numbered;
use crate::local::DiskError;
use crate::names::RelPath;

/// Reason why a move failed.
#[derive(Debug)]
pub(super) enum Taken {
    /// The new name is taken.
    Taken,
    /// Another error.
    Failed(Errno),
}

impl From<Errno> for Taken {
    fn from(errno: Errno) -> Self {
        if errno == Errno::EXIST { Self::Taken } else { Self::Failed(errno) }
    }
}

/// Returns whether the error means that the file system can't rename without overwriting.
fn unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

fn rename(from: impl AsFd, name: &OsStr, to: impl AsFd, new: &OsStr) -> rustix::io::Result<()> {
    renameat_with(from, name, to, new, RenameFlags::NOREPLACE)
}

/// Moves a file to a name that only this program uses. Other programs may replace the file at the old name meanwhile.
pub(super) fn move_to_ours(from: impl AsFd, name: &OsStr, to: impl AsFd, new: &OsStr) -> Result<(), Taken> {
    match rename(&from, name, &to, new) {
        Err(errno) if unsupported(errno) => Ok(check_then_rename(from, name, to, new)?),
        done => Ok(done?),
    }
}

/// Moves a file from a name that only this program uses to a name that other programs may create meanwhile.
fn move_from_ours(from: impl AsFd, name: &OsStr, to: impl AsFd, new: &OsStr) -> Result<(), Taken> {
    match rename(&from, name, &to, new) {
        Err(errno) if unsupported(errno) => Ok(link_then_unlink(from, name, to, new)?),
        done => Ok(done?),
    }
}

/// Renames a file after a check that the new name is free. Safe only if no other program creates the new name.
fn check_then_rename(from: impl AsFd, name: &OsStr, to: impl AsFd, new: &OsStr) -> rustix::io::Result<()> {
    match statat(&to, new, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => renameat(from, name, to, new),
        Err(errno) => Err(errno),
    }
}

/// Creates a hard link under the new name, then removes the old name. Safe only if no other program replaces the file
/// at the old name. On file systems without hard links, falls back to [`check_then_rename`].
fn link_then_unlink(from: impl AsFd, name: &OsStr, to: impl AsFd, new: &OsStr) -> rustix::io::Result<()> {
    match linkat(&from, name, &to, new, AtFlags::empty()) {
        Ok(()) => unlinkat(from, name, AtFlags::empty()),
        Err(Errno::EXIST) => Err(Errno::EXIST),
        Err(_) => check_then_rename(from, name, to, new),
    }
}

/// Moves a file back to its directory, under its own name or the next free one; returns the resulting path.
pub(super) fn give_back(from: impl AsFd, name: &OsStr, to: impl AsFd, path: &RelPath) -> rustix::io::Result<RelPath> {
    for number in 0.. {
        let target = numbered(path, number);
        match move_from_ours(&from, name, &to, target.file_name()) {
            Ok(()) => return Ok(target),
            Err(Taken::Taken) => {}
            Err(Taken::Failed(errno)) => return Err(errno),
        }
    }
    unreachable!("the numbers don't end")
}

/// Returns the state of a name, without following links.
pub(super) fn look_in(directory: impl AsFd, name: &OsStr) -> rustix::io::Result<FileState> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileState::of(&stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(FileState::Gone),
        Err(errno) => Err(errno),
    }
}

/// Removes a file; a missing one is not an error.
pub(super) fn remove(directory: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// Flushes a directory, so that its names survive a power loss. Ignores file systems that can't flush directories.
pub(super) fn sync(directory: &OwnedFd, path: &Path) -> Result<(), DiskError> {
    match rustix::fs::fsync(directory) {
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) | Ok(()) => Ok(()),
        Err(errno) => Err(DiskError::io("flush", path, errno)),
    }
}

/// Flushes a file's bytes.
pub(super) fn sync_file(file: &File, path: &Path) -> Result<(), DiskError> {
    file.sync_all().map_err(|error| DiskError::io("flush", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn no_way_of_moving_overwrites() {
        type Way = fn(&OwnedFd, &OsStr, &OwnedFd, &OsStr) -> rustix::io::Result<()>;
        let ways: [Way; 3] = [
            |a, b, c, d| rename(a, b, c, d),
            |a, b, c, d| check_then_rename(a, b, c, d),
            |a, b, c, d| link_then_unlink(a, b, c, d),
        ];
        for way in ways {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("a"), "a").unwrap();
            fs::write(dir.path().join("b"), "b").unwrap();
            let fd = OwnedFd::from(File::open(dir.path()).unwrap());
            assert_eq!(way(&fd, OsStr::new("a"), &fd, OsStr::new("b")), Err(Errno::EXIST));
            assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"b");
            assert_eq!(way(&fd, OsStr::new("a"), &fd, OsStr::new("c")), Ok(()));
            assert_eq!(names(dir.path()), ["b", "c"]);
            assert_eq!(way(&fd, OsStr::new("a"), &fd, OsStr::new("d")), Err(Errno::NOENT));
        }
    }
}
