//! What a program is to deliver, from where to where.

use std::path::{Path, PathBuf};

use crate::freight::Freight;
use crate::vessel::Vessel;

/// One delivery of all files by one program.
pub(crate) struct Task<'a> {
    pub(crate) vessel: &'a Vessel,
    pub(crate) freight: &'a Freight,
    /// A directory for each vessel, there and empty.
    pub(crate) destinations: &'a [PathBuf],
    /// An empty directory for the program's own files.
    pub(crate) work: &'a Path,
}
