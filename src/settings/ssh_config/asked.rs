//! The query for a host's values in the ssh config files, and the places of lines and problems in these files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::settings::problems::Diagnostic;

/// A line of an ssh config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Spot {
    pub(in crate::settings) file: Arc<Path>,
    pub(in crate::settings) line: usize,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A problem in an ssh config file, and its place.
#[derive(Clone, Debug)]
pub(in crate::settings) struct Trouble {
    pub(in crate::settings) spot: Spot,
    /// The keyword; empty if the problem concerns the whole line.
    pub(in crate::settings) keyword: String,
    pub(in crate::settings) diagnostic: Diagnostic,
}

/// An ssh config file to read.
#[derive(Clone, Debug)]
pub(in crate::settings) struct Source {
    pub(in crate::settings) file: PathBuf,
    /// The directory at which relative paths of `Include` start.
    pub(in crate::settings) beside: PathBuf,
    /// Whether the file must exist.
    pub(in crate::settings) required: bool,
    /// Whether the file must belong to this user or root, and be writable by nobody else.
    pub(in crate::settings) guarded: bool,
}

/// The query: the host, and values that are known without the files.
#[derive(Clone, Debug)]
pub(in crate::settings) struct Asked<'a> {
    /// The host as written in the settings or in `ProxyJump`.
    pub(in crate::settings) host: &'a str,
    /// The user and port that take precedence over the files.
    pub(in crate::settings) user: Option<&'a str>,
    pub(in crate::settings) port: Option<u16>,
    /// The user that runs this program, and that user's home directory.
    pub(in crate::settings) local_user: Option<&'a str>,
    pub(in crate::settings) home: Option<&'a Path>,
}
