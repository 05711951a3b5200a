//! Retires files to another file system by a verified, flushed copy, and cleans up after a crash.
//!
//! The copy is made under a unique hidden name and stays locked while it is being made. [`sweep`] removes copies that
//! are not locked.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Dir, FileType, FlockOperation, Gid, Mode, OFlags, Timespec, Timestamps, Uid, fchmod, fchown, flock, fstat,
    futimens, openat,
};
use rustix::io::Errno;

use super::FileState;
use super::moves::{Taken, give_back, look_in, move_to_ours, remove, sync, sync_file};
use super::open_processed::open_processed;
use super::processed_dir::{ProcessedDir, open_readable};
use crate::digest::{Digest, FileHasher};
use crate::local::own_names::{COPYING, LEAVING, PROCESSED};
use crate::local::source::SourceFile;
use crate::local::{DiskError, stamp_of};
use crate::names::RelPath;
use crate::records::FileStamp;
use crate::rights::CopyOf;
use crate::root::open_beneath;

/// A copy under a temporary name. Dropping it removes the copy, unless the copy was published.
pub(super) struct Copied {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
    file: File,
}

impl Drop for Copied {
    fn drop(&mut self) {
        // If the copy was published, this name no longer exists. If the removal fails, the next start sweeps the file.
        remove(&self.directory, &self.name).ok();
    }
}

impl Copied {
    fn begin(dirs: &ProcessedDir<'_>) -> Result<Self, DiskError> {
        let name = OsString::from(format!("{COPYING}{:016x}.tmp", random()));
        let path = dirs.processed.join(&name);
        let failed = |errno| DiskError::io("create", &path, errno);
        let directory = dirs.to.try_clone().map_err(|error| DiskError::io("create", &path, error))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&directory, &name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        // The lock fails on a file system without locks. This is safe: `sweep` cannot lock the file there either, and
        // keeps it.
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok();
        Ok(Self { directory, name, path, file: file.into() })
    }

    /// Renames the copy to its name in `processed/`.
    pub(super) fn publish(&self, dirs: &ProcessedDir<'_>, name: &OsStr) -> Result<(), Taken> {
        move_to_ours(&self.directory, &self.name, &dirs.to, name)
    }

    /// Copies the first `size` bytes of a source and returns their digest.
    fn fill(&mut self, source: &SourceFile, size: u64) -> Result<Digest, DiskError> {
        let mut hasher = FileHasher::new(u64::MAX);
        source.each_piece(size, &|| false, &mut |piece| {
            hasher.update(piece);
            self.file.write_all(piece).map_err(|error| DiskError::io("write", &self.path, error))
        })?;
        Ok(hasher.finish().file)
    }

    /// Copies the source's metadata and flushes the copy. Omits set-user-id and set-group-id, because an archive
    /// doesn't need them.
    fn finish(&self, source: &fs::Metadata) -> Result<(), DiskError> {
        let failed = |errno| DiskError::io("set the mode and time of", &self.path, errno);
        let owner = (source.uid(), source.gid());
        // This fails unless the program runs as root, because other users may not change the owner of a file.
        fchown(&self.file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))).ok();
        let got = fstat(&self.file).map_err(failed)?;
        let mode = CopyOf::File.owned(source.mode(), owner, Some((got.st_uid, got.st_gid)));
        fchmod(&self.file, Mode::from_raw_mode(CopyOf::File.plain(mode))).map_err(failed)?;
        let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
        futimens(
            &self.file,
            &Timestamps {
                last_access: time(source.atime(), source.atime_nsec()),
                last_modification: time(source.mtime(), source.mtime_nsec()),
            },
        )
        .map_err(failed)?;
        sync_file(&self.file, &self.path)
    }
}

/// Returns a number that is unlikely to be used by another copy on this file system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Copies a version into `processed/` under a temporary name; `None` if the source has become another version.
pub(super) fn make(
    dirs: &ProcessedDir<'_>,
    path: &RelPath,
    stamp: &FileStamp,
    digest: &Digest,
) -> Result<Option<Copied>, DiskError> {
    let whole = dirs.location.join(path.as_path());
    let source = match SourceFile::open_in(&dirs.from, Path::new(path.file_name()), whole) {
        Err(DiskError::NotAFile { .. }) => return Ok(None),
        Err(error) if error.is_gone() => return Ok(None),
        source => source?,
    };
    let before = source.metadata()?;
    if stamp_of(&before) != *stamp {
        return Ok(None);
    }
    let mut copied = Copied::begin(dirs)?;
    match copied.fill(&source, stamp.size) {
        Ok(found) if found == *digest => {}
        Ok(_) | Err(DiskError::Changed { .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    copied.finish(&before)?;
    let named = look_in(&dirs.from, path.file_name());
    let still = matches!(named, Ok(FileState::File { stamp: now, .. }) if now == *stamp);
    Ok((still && source.stamp()? == *stamp).then_some(copied))
}

/// Cleans up after a crash during a retirement. Call it once, before the directory is first scanned.
///
/// Removes unfinished copies directly in `processed/`, not in its subdirectories. If a source in the directory was
/// renamed for its removal but not removed, restores its name, with `recursive` also in subdirectories. The next scan
/// and retirement determine whether the source is the delivered version.
///
/// # Errors
/// When the directory can't be listed, or the disk fails. A missing `processed/` is not an error.
pub fn sweep(location: &Path, recursive: bool) -> Result<(), DiskError> {
    let opened = open_readable(location)?;
    let unlisted = |errno: Errno| DiskError::Location { act: "list", path: location.into(), source: errno.into() };
    let below = give_names_back(&opened, location, unlisted)?;
    let processed = match open_processed(&opened, location, false) {
        // A `processed/` that can't be used, for example an unsafe link, is not swept. The next retirement reports the
        // error.
        Err(DiskError::Processed { .. } | DiskError::ProcessedLink { .. }) => None,
        processed => processed?,
    };
    if recursive {
        let skipped = OsStr::new(PROCESSED);
        sweep_below(&opened, location, below.iter().filter(|name| *name != skipped));
    }
    let Some(processed) = processed else { return Ok(()) };
    let path = location.join(PROCESSED);
    let (names, _) = names_in(&processed, COPYING).map_err(|errno| DiskError::io("list", &path, errno))?;
    names.iter().try_for_each(|name| remove_unheld(&processed, &path, name))
}

/// Restores the names of sources that were renamed for their removal, in these directories and all directories below
/// them. Skips directories that cannot be read, and keeps few directories open at any depth.
fn sweep_below<'a>(above: &OwnedFd, path: &Path, names: impl Iterator<Item = &'a OsString>) {
    let mut waiting: Vec<PathBuf> = names.map(PathBuf::from).collect();
    while let Some(below) = waiting.pop() {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        // A path that is too long can be skipped: scans do not take in the files below it either.
        let Ok(directory) = open_beneath(above.as_fd(), &below, flags, Mode::empty()) else { continue };
        let whole = path.join(&below);
        let unlisted = |errno| DiskError::io("list", &whole, errno);
        if let Ok(deeper) = give_names_back(&directory, &whole, unlisted) {
            waiting.extend(deeper.iter().map(|name| below.join(name)));
        }
    }
}

/// Restores the names of the sources in a directory that were renamed for their removal. Returns the names of the
/// subdirectories.
fn give_names_back(
    directory: &OwnedFd,
    path: &Path,
    unlisted: impl Fn(Errno) -> DiskError,
) -> Result<Vec<OsString>, DiskError> {
    let (names, below) = names_in(directory, LEAVING).map_err(unlisted)?;
    for name in names {
        // If the name was truncated to make room for the prefix, the file gets the truncated name and is taken in as a
        // new file.
        let Ok(own) = RelPath::new(&name.as_bytes()[LEAVING.len()..]) else { continue };
        give_back(directory, &name, directory, &own)
            .map_err(|errno| DiskError::io("put back", &path.join(&name), errno))?;
        sync(directory, path)?;
    }
    Ok(below)
}

/// Returns the names in a directory that begin with `prefix`, and the names of its subdirectories.
fn names_in(directory: &OwnedFd, prefix: &str) -> rustix::io::Result<(Vec<OsString>, Vec<OsString>)> {
    let (mut ours, mut directories) = (Vec::new(), Vec::new());
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name.as_bytes().starts_with(prefix.as_bytes()) {
            ours.push(name.to_owned());
        } else if matches!(entry.file_type(), FileType::Directory | FileType::Unknown) && name != "." && name != ".." {
            directories.push(name.to_owned());
        }
    }
    Ok((ours, directories))
}

/// Removes an unfinished copy, unless a process that is still making it holds its lock.
fn remove_unheld(processed: &OwnedFd, path: &Path, name: &OsStr) -> Result<(), DiskError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(processed, name, flags, Mode::empty()) else { return Ok(()) };
    if flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    remove(processed, name).map_err(|errno| DiskError::io("remove", &path.join(name), errno))
}
