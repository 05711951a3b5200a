//! What is asked of the files, and where in them something stands.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::settings::problems::Diagnostic;

/// A line of a file.
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

/// What is wrong with a file, and where.
#[derive(Clone, Debug)]
pub(in crate::settings) struct Trouble {
    pub(in crate::settings) spot: Spot,
    /// The keyword; empty where it is about the whole line.
    pub(in crate::settings) keyword: String,
    pub(in crate::settings) diagnostic: Diagnostic,
}

/// A file to read.
#[derive(Clone, Debug)]
pub(in crate::settings) struct Source {
    pub(in crate::settings) file: PathBuf,
    /// Where the paths of its `Include`s begin.
    pub(in crate::settings) beside: PathBuf,
    /// Whether it is an error when it isn't there.
    pub(in crate::settings) required: bool,
    /// Whether it must belong to us or root, and be writable for nobody else.
    pub(in crate::settings) guarded: bool,
}

/// Who asks, and what is known without the files.
#[derive(Clone, Debug)]
pub(in crate::settings) struct Asked<'a> {
    /// The host as it was written.
    pub(in crate::settings) host: &'a str,
    /// What holds before the files: the user and the port.
    pub(in crate::settings) user: Option<&'a str>,
    pub(in crate::settings) port: Option<u16>,
    /// Who runs this program, and that user's home directory.
    pub(in crate::settings) local_user: Option<&'a str>,
    pub(in crate::settings) home: Option<&'a Path>,
}
