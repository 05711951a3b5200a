//! What of a directory is taken, by its settings: names, depth, kinds and sizes. Looks at nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Stat;

use super::own::Own;
use super::own_names::{PROCESSED, is_ours};
use crate::names::RelPath;
use crate::settings::{Directory, Links};

/// The rules of one directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rules(Arc<Directory>, Arc<Own>);

impl Rules {
    /// The rules that a directory's settings make.
    pub fn new(settings: &Arc<Directory>) -> Self {
        Self(settings.clone(), Arc::new(Own::new(settings.own_files.clone())))
    }

    /// Where the directory lies.
    pub fn location(&self) -> &Path {
        &self.0.location
    }

    /// Whether a file or link is left alone, going by its path.
    pub fn leaves_alone(&self, path: &RelPath) -> bool {
        let settings = &*self.0;
        settings.only.as_ref().is_some_and(|only| only != path)
            || self.is_out_of_reach(path)
            || settings.ignore_names.is_match(path.file_name())
            || settings.exclude.covers(path.as_path(), false)
            || !(settings.include.is_empty() || settings.include.reaches(path.as_path(), false))
    }

    /// Whether a directory is entered, going by its path.
    pub fn enters(&self, path: &RelPath) -> bool {
        self.0.recursive && !self.is_out_of_reach(path) && !self.0.exclude.covers(path.as_path(), true)
    }

    /// Whether directories themselves are taken: with `Include` there are as many as files need.
    pub fn takes_directories(&self) -> bool {
        self.0.is_mirror() && self.0.recursive && self.0.include.is_empty()
    }

    /// Whether a path may be taken, whatever it is.
    pub fn may_take(&self, path: &RelPath) -> bool {
        !self.leaves_alone(path) || (self.takes_directories() && self.enters(path))
    }

    /// Whether a file is one of the program's own.
    pub(super) fn is_own(&self, path: &RelPath, stat: &Stat) -> bool {
        self.1.holds(&self.0.location.join(path.as_path()), stat)
    }

    /// Whether a file of so many bytes is taken.
    pub fn takes_size(&self, size: u64) -> bool {
        (self.0.min_size..=self.0.max_size).contains(&size)
    }

    /// What is done with links.
    pub fn links(&self) -> Links {
        self.0.links
    }

    /// Whether links are followed.
    pub fn follows(&self) -> bool {
        self.0.links == Links::Follow
    }

    /// Whether owner and group matter.
    pub fn minds_owners(&self) -> bool {
        self.0.owner
    }

    /// Whether what lies in directories is taken too.
    pub fn is_recursive(&self) -> bool {
        self.0.recursive
    }

    /// Too deep, among what has retired, or a temporary name of our own.
    fn is_out_of_reach(&self, path: &RelPath) -> bool {
        let bytes = path.as_bytes();
        let retired = |bytes: &[u8]| {
            bytes.strip_prefix(PROCESSED.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let name: &OsStr = path.file_name();
        (!self.0.recursive && bytes.contains(&b'/'))
            || (!self.0.is_mirror() && retired(bytes))
            || is_ours(name.as_bytes())
    }
}

#[cfg(test)]
impl Rules {
    pub(super) fn settings(&self) -> Arc<Directory> {
        self.0.clone()
    }

    /// The rules of a directory at `location` with these lines in its section.
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
