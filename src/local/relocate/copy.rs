//! Retiring across file systems: a verified, flushed copy; and what a crash leaves of one.
//!
//! The copy is made under a hidden name that no other copy has, locked while it is being made. [`sweep`] removes those
//! that nobody holds.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, FlockOperation, Gid, Mode, OFlags, Timespec, Timestamps, Uid, fchmod, fchown, flock, futimens, openat,
};

use super::moves::{Taken, give_back, look_in, move_to_ours, remove, sync, sync_file};
use super::places::{COPYING, LEAVING, Places};
use super::{Look, PROCESSED};
use crate::digest::{Digest, FileHasher};
use crate::local::source::SourceFile;
use crate::local::{DiskError, stamp_of};
use crate::names::RelPath;
use crate::records::FileStamp;

/// A whole copy under its temporary name, which goes when this goes unpublished.
pub(super) struct Copied {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
    file: File,
}

impl Drop for Copied {
    fn drop(&mut self) {
        // After a publication the name is gone already; else what stays is swept at the next start.
        remove(&self.directory, &self.name).ok();
    }
}

impl Copied {
    fn begin(places: &Places<'_>) -> Result<Self, DiskError> {
        let name = OsString::from(format!("{COPYING}{:016x}.tmp", random()));
        let path = places.processed.join(&name);
        let failed = |errno| DiskError::io("make", &path, errno);
        let directory = places.to.try_clone().map_err(|error| DiskError::io("make", &path, error))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&directory, &name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        // Where locks don't work, sweeping does not either: it stays on the safe side.
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok();
        Ok(Self { directory, name, path, file: file.into() })
    }

    /// Gives the copy its name in `processed/`.
    pub(super) fn publish(&self, places: &Places<'_>, name: &OsStr) -> Result<(), Taken> {
        move_to_ours(&self.directory, &self.name, &places.to, name)
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

    /// Gives the copy what the source has besides its bytes, and flushes it.
    fn finish(&self, source: &fs::Metadata) -> Result<(), DiskError> {
        let failed = |errno| DiskError::io("set the mode and time of", &self.path, errno);
        // Only root may give files away. It comes before the mode, for it takes set-user-id bits.
        fchown(&self.file, Some(Uid::from_raw(source.uid())), Some(Gid::from_raw(source.gid()))).ok();
        fchmod(&self.file, Mode::from_raw_mode(source.mode())).map_err(failed)?;
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

/// A number that no other copy on this file system is likely to have.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Copies a version into `processed/` under a temporary name; `None` when the source is another version by now.
pub(super) fn make(
    places: &Places<'_>,
    path: &RelPath,
    stamp: &FileStamp,
    digest: &Digest,
) -> Result<Option<Copied>, DiskError> {
    let source = match SourceFile::open(places.location, path) {
        Err(DiskError::NotAFile { .. }) => return Ok(None),
        Err(error) if error.is_gone() => return Ok(None),
        source => source?,
    };
    let before = source.metadata()?;
    if stamp_of(&before) != *stamp {
        return Ok(None);
    }
    let mut copied = Copied::begin(places)?;
    match copied.fill(&source, stamp.size) {
        Ok(found) if found == *digest => {}
        Ok(_) | Err(DiskError::Changed { .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    copied.finish(&before)?;
    let named = look_in(&places.from, path.file_name());
    let still = matches!(named, Ok(Look::File { stamp: now, .. }) if now == *stamp);
    Ok((still && source.stamp()? == *stamp).then_some(copied))
}

/// Settles what a crash in the middle of a retirement left in a directory and, where it is `recursive`, in those below it. To be
/// called once before it is scanned.
///
/// Unfinished copies in `processed/` are removed. A source that was about to be removed gets its name back: whether it
/// was the delivered version, the next scan and retirement tell.
///
/// # Errors
/// When the directory can't be listed, or what the disk says. A missing `processed/` is none.
pub fn sweep(location: &Path, recursive: bool) -> Result<(), DiskError> {
    give_names_back(location)?;
    let processed = location.join(PROCESSED);
    let mut below = if recursive { directories_in(location) } else { Vec::new() };
    while let Some(directory) = below.pop() {
        if directory != processed && give_names_back(&directory).is_ok() {
            below.extend(directories_in(&directory));
        }
    }
    let names = match ours_in(&processed, COPYING) {
        Err(DiskError::Location { source, .. }) if super::error::gone(&source) => return Ok(()),
        names => names?,
    };
    names.iter().try_for_each(|name| remove_unheld(&processed, name))
}

fn give_names_back(location: &Path) -> Result<(), DiskError> {
    for name in ours_in(location, LEAVING)? {
        let directory = open_directory(location).map_err(|errno| DiskError::io("open", location, errno))?;
        // A name that was too long to be kept whole comes back shortened, as a new file.
        let Ok(path) = RelPath::new(&name.as_bytes()[LEAVING.len()..]) else { continue };
        give_back(&directory, &name, &directory, &path)
            .map_err(|errno| DiskError::io("put back", &location.join(&name), errno))?;
        sync(&directory, location)?;
    }
    Ok(())
}

/// The directories in a directory, as far as they can be seen.
fn directories_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The names in a directory that begin with one of our prefixes.
fn ours_in(directory: &Path, prefix: &str) -> Result<Vec<OsString>, DiskError> {
    let unlisted = |source| DiskError::Location { act: "list", path: directory.into(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(unlisted)? {
        let name = entry.map_err(unlisted)?.file_name();
        if name.as_bytes().starts_with(prefix.as_bytes()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes an unfinished copy that no process is making.
fn remove_unheld(processed: &Path, name: &OsStr) -> Result<(), DiskError> {
    let path = processed.join(name);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(CWD, &path, flags, Mode::empty()) else { return Ok(()) };
    if flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    remove(CWD, path.as_os_str()).map_err(|errno| DiskError::io("remove", &path, errno))
}
