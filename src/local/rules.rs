//! The rules, from the settings, that decide by name, depth, kind and size which entries of a directory are replicated.
//! Except for the detection of the program's own files, they don't access the disk.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Stat;

use super::own::Own;
use super::own_names::{EXPIRED, PROCESSED, is_ours};
use crate::names::RelPath;
use crate::settings::{Directory, Links};

/// The rules of one directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rules(Arc<Directory>, Arc<Own>);

impl Rules {
    /// Creates the rules from a directory's settings.
    pub fn new(settings: &Arc<Directory>) -> Self {
        Self(settings.clone(), Arc::new(Own::new(settings.own_files.clone())))
    }

    /// Returns the directory's location.
    pub fn location(&self) -> &Path {
        &self.0.location
    }

    /// Returns whether a file or link is ignored because of its path.
    pub fn leaves_alone(&self, path: &RelPath) -> bool {
        let settings = &*self.0;
        settings.only.as_ref().is_some_and(|only| only != path)
            || self.is_out_of_reach(path)
            || settings.ignore_names.is_match(path.file_name())
            || settings.exclude.covers(path.as_path(), false)
            || !(settings.include.is_empty() || settings.include.reaches(path.as_path(), false))
    }

    /// Returns whether the rules allow scans to enter a directory at this path.
    pub fn enters(&self, path: &RelPath) -> bool {
        self.0.recursive && !self.is_out_of_reach(path) && !self.0.exclude.covers(path.as_path(), true)
    }

    /// Returns whether directories themselves are replicated. With `Include` they are not, so that vessels get only
    /// directories that contain files.
    pub fn takes_directories(&self) -> bool {
        self.0.is_mirror() && self.0.recursive && self.0.include.is_empty()
    }

    /// Returns whether a path may be taken, whatever its kind.
    pub fn may_take(&self, path: &RelPath) -> bool {
        !self.leaves_alone(path) || (self.takes_directories() && self.enters(path))
    }

    /// Returns whether a file is one of the program's own.
    pub(super) fn is_own(&self, path: &RelPath, stat: &Stat) -> bool {
        self.1.holds(&self.0.location.join(path.as_path()), stat)
    }

    /// Returns whether a file of this size in bytes is taken.
    pub fn takes_size(&self, size: u64) -> bool {
        (self.0.min_size..=self.0.max_size).contains(&size)
    }

    /// Returns how links are handled.
    pub fn links(&self) -> Links {
        self.0.links
    }

    /// Returns whether links are followed.
    pub fn follows(&self) -> bool {
        self.0.links == Links::Follow
    }

    /// Returns whether owner and group are replicated.
    pub fn minds_owners(&self) -> bool {
        self.0.owner
    }

    /// Returns whether subdirectories are included.
    pub fn is_recursive(&self) -> bool {
        self.0.recursive
    }

    /// Returns whether a path is too deep, is in `processed/` or `expired/`, or has a temporary name of this program.
    fn is_out_of_reach(&self, path: &RelPath) -> bool {
        let bytes = path.as_bytes();
        let is_in = |directory: &str| {
            bytes.strip_prefix(directory.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let retired = || is_in(PROCESSED) || (self.0.expire.is_some() && is_in(EXPIRED));
        let name: &OsStr = path.file_name();
        (!self.0.recursive && bytes.contains(&b'/')) || (!self.0.is_mirror() && retired()) || is_ours(name.as_bytes())
    }
}

#[cfg(test)]
impl Rules {
    pub(super) fn settings(&self) -> Arc<Directory> {
        self.0.clone()
    }

    /// Creates the rules of a directory at `location`; `lines` are further lines of its section in the settings.
    pub(super) fn of(location: &Path, lines: &str) -> Self {
        let text = format!(
            "[Directory d]\nLocation = {}\n{lines}\n[Vessel v]\nAddress = v\nUsername = u\n",
            location.display()
        );
        let environment = crate::settings::Environment::default();
        let settings = crate::settings::Settings::parse(&text, Path::new("/settings.ini"), &environment).unwrap();
        Self::new(&Arc::new(settings.directories[0].clone()))
    }
}
