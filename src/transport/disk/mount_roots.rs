//! The target directories of a local target. All requests operate inside them.
//!
//! Each directory must exist before any request: if a directory were created in place of an unmounted disk, the files
//! would fill the wrong disk. Each directory must also keep its identity, because another directory appears at its path
//! when a disk is unmounted. So every request opens its target directory first and compares the identity. No link
//! inside a target directory is followed, because other users may be able to create links there that lead outside.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, fstat, open, statx};
use rustix::process::geteuid;

use super::refused;
use crate::root::open_beneath;
use crate::settings::LocalTarget;
use crate::transport::error::ConnectError;
use crate::transport::sftp::SftpError;

/// The identity of a directory: its file system and its inode number.
type Identity = (u64, u64);

struct Place {
    path: PathBuf,
    identity: Identity,
}

/// The target directories, each with the identity that it had when [`MountRoots::find`] opened it.
pub(super) struct MountRoots {
    places: Vec<Place>,
    owners: Owners,
}

/// The owners of files that this process creates: its own user and, on a file system such as FAT that gives all files
/// one owner, that owner.
#[derive(Default)]
pub(super) struct Owners(Mutex<HashSet<(u64, u32)>>);

impl Owners {
    /// Records the owner of a file that this process created.
    pub(super) fn note(&self, made: &Metadata) {
        if made.uid() != geteuid().as_raw() {
            self.noted().insert((made.dev(), made.uid()));
        }
    }

    /// Returns whether a file has the same owner as files that this process creates on the same file system.
    pub(super) fn have(&self, found: &Metadata) -> bool {
        found.uid() == geteuid().as_raw() || self.noted().contains(&(found.dev(), found.uid()))
    }

    fn noted(&self) -> MutexGuard<'_, HashSet<(u64, u32)>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

/// A name in an open directory, which is a target directory or one of its subdirectories.
pub(super) struct At<'a> {
    pub(super) directory: OwnedFd,
    /// The name of a file or directory; `.` for the target directory itself.
    pub(super) name: &'a OsStr,
    pub(super) owners: &'a Owners,
}

impl MountRoots {
    /// Finds the directories of a target.
    ///
    /// # Errors
    /// When no disk is mounted at `MountPoint`, or when a directory is missing or overlaps with a source.
    pub(super) fn find(target: &LocalTarget) -> Result<Self, ConnectError> {
        let away = |why: String, remedy: &str| ConnectError::Away { why, remedy: remedy.into() };
        let mounted = || match &target.mount_point {
            Some(mount_point) if !is_mount_point(mount_point).unwrap_or(false) => {
                let why = format!("nothing is mounted at the MountPoint {}", mount_point.display());
                Err(away(why, "mount the disk; the mount point is checked again every few seconds"))
            }
            _ => Ok(()),
        };
        mounted()?;
        let mut places = Vec::new();
        for wanted in &target.places {
            let path = wanted.base();
            let what = format!("{}, the target directory of [Directory {}],", path.display(), wanted.directory);
            let (_, identity) = look(path).map_err(|e| match e {
                rustix::io::Errno::NOENT => away(
                    format!("{what} does not exist"),
                    "mount its disk, or create the directory: with Transport = local contentmonster never creates it",
                ),
                e => away(
                    format!("{what} can't be used: {e}"),
                    "make it a directory that contentmonster's user can read and write, with search permission (x) \
                     on every directory above it",
                ),
            })?;
            if let Some(source) = target.sources.iter().find(|source| overlap(&wanted.path, source)) {
                let why = format!("{what} overlaps with {}, from which files are sent", source.display());
                return Err(away(why, "choose another RemoteLocation"));
            }
            places.push(Place { path: path.to_owned(), identity });
        }
        // Checks the mount again: if the disk was unmounted meanwhile, the directories found are below its mount point
        // but not on the disk.
        mounted()?;
        Ok(Self { places, owners: Owners::default() })
    }

    /// Checks that all target directories still exist with the same identity.
    pub(super) fn check(&self) -> Result<(), SftpError> {
        self.places.iter().try_for_each(|place| place.open().map(drop))
    }

    /// Opens the parent directory of a path.
    ///
    /// # Errors
    /// [`SftpError::Lost`] when the target directory is gone or was replaced. "No such file" when the path is outside
    /// all target directories, or when a directory above its last component is missing or a link.
    pub(super) fn at<'a>(&'a self, path: &'a [u8]) -> Result<At<'a>, SftpError> {
        let path = Path::new(OsStr::from_bytes(path));
        let holding = self.places.iter().filter(|place| path.starts_with(&place.path));
        let Some(place) = holding.max_by_key(|place| place.path.as_os_str().len()) else {
            return Err(refused(rustix::io::Errno::NOENT.into()));
        };
        let (below, opened) = (path.strip_prefix(&place.path).unwrap_or(path), place.open()?);
        let name = below.file_name().unwrap_or(OsStr::new("."));
        let directory = match below.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            None => opened,
            Some(parent) => open_beneath(opened.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
                .map_err(|errno| refused(errno.into()))?,
        };
        Ok(At { directory, name, owners: &self.owners })
    }
}

impl Place {
    fn open(&self) -> Result<OwnedFd, SftpError> {
        match look(&self.path) {
            Ok((opened, identity)) if identity == self.identity => Ok(opened),
            Ok(_) => Err(SftpError::Lost(format!("{} was replaced by another disk or directory", self.path.display()))),
            Err(e) => Err(SftpError::Lost(format!("{} can no longer be opened: {e}", self.path.display()))),
        }
    }
}

/// Opens a target directory and returns its identity. The handle is kept only for the duration of a request, so that
/// the disk can be unmounted.
fn look(path: &Path) -> rustix::io::Result<(OwnedFd, Identity)> {
    let opened = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let found = fstat(&opened)?;
    Ok((opened, (found.st_dev, found.st_ino)))
}

/// Returns whether a file system is mounted at a path.
fn is_mount_point(path: &Path) -> io::Result<bool> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)?;
    if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    // Kernels before 5.8 do not report mount points. There, a directory counts as a mount point if its parent is on
    // another file system, or if it is its own parent.
    let above = rustix::fs::stat(path.join(".."))?;
    let own = rustix::fs::stat(path)?;
    Ok((own.st_dev, own.st_ino) == (above.st_dev, above.st_ino) || own.st_dev != above.st_dev)
}

/// Returns whether two paths, with links resolved, are equal or one contains the other.
fn overlap(one: &Path, other: &Path) -> bool {
    let (one, other) = (real(one), real(other));
    one.starts_with(&other) || other.starts_with(&one)
}

/// Returns a path with links resolved. The last component may be missing.
fn real(path: &Path) -> PathBuf {
    let beside = |path: &Path| Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(|| beside(path)).unwrap_or_else(|| path.to_owned())
}
