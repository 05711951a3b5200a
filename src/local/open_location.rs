//! The location of a directory, opened once for many paths below it.

use std::os::fd::AsFd;

use super::DiskError;
use super::file_state::{PathState, classify_in, open_location};
use super::rules::Rules;
use super::source::SourceFile;
use crate::names::RelPath;
use crate::root::{Root, is_absent};

/// Returns the state of a path under the rules of its directory.
///
/// # Errors
/// When the status of the path, or the location, cannot be read.
pub fn classify(rules: &Rules, path: &RelPath) -> Result<PathState, DiskError> {
    OpenLocation::open(rules)?.classify(path)
}

/// The location of a directory, opened once for many paths below it. Keep it only briefly: it does not notice a file
/// system that is mounted over the location meanwhile.
pub struct OpenLocation<'a> {
    rules: &'a Rules,
    root: Root,
}

impl<'a> OpenLocation<'a> {
    /// Opens a directory's location.
    ///
    /// # Errors
    /// [`DiskError::Location`] when the location can't be opened.
    pub fn open(rules: &'a Rules) -> Result<Self, DiskError> {
        Ok(Self { rules, root: open_location(rules.location())?.following(rules.follows()) })
    }

    /// Returns the state of a path under the rules of the directory.
    ///
    /// # Errors
    /// When the status of the path can't be read.
    pub fn classify(&self, path: &RelPath) -> Result<PathState, DiskError> {
        let Self { rules, root } = self;
        let seen = root.holder(path.as_path()).and_then(|holder| classify_in(holder.as_fd(), holder.name, rules, path));
        match seen {
            Err(errno) if is_absent(errno) => Ok(PathState::Gone),
            seen => {
                seen.map_err(|errno| DiskError::io("read the status of", &rules.location().join(path.as_path()), errno))
            }
        }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As [`SourceFile::open`].
    pub(super) fn open_file(&self, path: &RelPath) -> Result<SourceFile, DiskError> {
        SourceFile::open_below(&self.root, self.rules.location(), path)
    }
}
