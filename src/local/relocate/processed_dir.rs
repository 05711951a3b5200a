//! The source and target directories of a retirement.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::moves::sync;
use super::open_processed::{make_and_open, open_ours};
use crate::local::DiskError;
use crate::local::file_state::open_location;
use crate::local::own_names::PROCESSED;
use crate::names::RelPath;
use crate::root::is_absent;

/// The directories that a source is moved from and to.
pub(super) struct ProcessedDir<'a> {
    pub(super) location: &'a Path,
    /// The path of `processed/`.
    pub(super) processed: PathBuf,
    /// The directory of the source.
    pub(super) from: OwnedFd,
    /// The target directory, in or below `processed/`.
    pub(super) to: OwnedFd,
}

impl<'a> ProcessedDir<'a> {
    /// Opens both directories, creating missing ones in `processed/`; `None` when the source's directory no longer
    /// exists.
    pub(super) fn open(location: &'a Path, path: &RelPath) -> Result<Option<Self>, DiskError> {
        Self::open_as(location, path, PROCESSED)
    }

    /// Opens both directories like [`ProcessedDir::open`], but with the directory `name` instead of `processed`.
    pub(super) fn open_as(location: &'a Path, path: &RelPath, name: &str) -> Result<Option<Self>, DiskError> {
        let top = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut from = open_readable(location)?;
        let processed = location.join(name);
        let opened = open_ours(&from, location, name, true)?;
        let mut to = opened.ok_or_else(|| DiskError::io("create", &processed, Errno::NOENT))?;
        let mut above = processed.clone();
        let parents = path.as_path().parent().into_iter().flat_map(Path::iter);
        for name in parents {
            from = match openat(&from, name, top | OFlags::NOFOLLOW, Mode::empty()) {
                Err(errno) if is_absent(errno) => return Ok(None),
                opened => opened.map_err(|errno| DiskError::io("open", &location.join(path.as_path()), errno))?,
            };
            to = make_and_open(&to, name, &from, &above).map_err(|errno| match errno {
                Errno::NOTDIR | Errno::EXIST | Errno::LOOP => {
                    DiskError::Processed { path: above.join(name), why: "it is not a directory" }
                }
                errno => DiskError::io("open or create", &above.join(name), errno),
            })?;
            above.push(name);
        }
        Ok(Some(Self { location, processed, from, to }))
    }

    /// Flushes both directories: first the target, then the directory of the source.
    pub(super) fn flush(&self) -> Result<(), DiskError> {
        sync(&self.to, &self.processed)?;
        sync(&self.from, self.location)
    }

    /// Returns the full path of a file, given its path below `processed/`.
    pub(super) fn target(&self, path: &RelPath) -> PathBuf {
        self.processed.join(path.as_path())
    }
}

/// Opens a location for listing and flushing.
pub(super) fn open_readable(location: &Path) -> Result<OwnedFd, DiskError> {
    let top = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    openat(open_location(location)?, ".", top, Mode::empty()).map_err(|errno| DiskError::Location {
        act: "open",
        path: location.into(),
        source: errno.into(),
    })
}
