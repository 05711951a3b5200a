//! The query to the ssh config files, and places in them.

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

/// A problem of a file, and its place.
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
    /// The directory of relative `Include` paths.
    pub(in crate::settings) beside: PathBuf,
    /// Whether the file must exist.
    pub(in crate::settings) required: bool,
    /// Whether the file must belong to us or root, and be writable for nobody else.
    pub(in crate::settings) guarded: bool,
}

/// The query, with the values known without the files.
#[derive(Clone, Debug)]
pub(in crate::settings) struct Asked<'a> {
    /// The host as written.
    pub(in crate::settings) host: &'a str,
    /// The user and port that take precedence over the files.
    pub(in crate::settings) user: Option<&'a str>,
    pub(in crate::settings) port: Option<u16>,
    /// The user that runs this program, and that user's home directory.
    pub(in crate::settings) local_user: Option<&'a str>,
    pub(in crate::settings) home: Option<&'a Path>,
}
