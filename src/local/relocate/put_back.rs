//! Moves files in `processed/` back to the location if they were written to after their move.

use rustix::io::Errno;

use super::FileState;
use super::moves::{give_back, look_in};
use super::processed_dir::ProcessedDir;
use crate::local::DiskError;
use crate::names::RelPath;
use crate::records::FileStamp;

/// A file that was moved into `processed/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The file's former path below the location.
    pub path: RelPath,
    /// The file's path below `processed/`.
    pub to: RelPath,
    /// The file's metadata when it was moved.
    pub stamp: FileStamp,
}

/// Moves a file back to the location if it was written to since it was moved. The file gets its former name or the next
/// free one, and is treated as a new file. Returns whether the file was moved back.
///
/// # Errors
/// Any error of the disk; the file then stays where it is.
pub fn put_back(location: &std::path::Path, moved: &Moved) -> Result<bool, DiskError> {
    let Some(dirs) = ProcessedDir::open(location, &moved.path)? else { return Ok(false) };
    let failed = |errno: Errno| DiskError::io("put back", &dirs.target(&moved.to), errno);
    let seen = |stamp: FileStamp| (stamp.size, stamp.mtime, stamp.mtime_nanos);
    match look_in(&dirs.to, moved.to.file_name()).map_err(failed)? {
        FileState::File { stamp, .. } if seen(stamp) != seen(moved.stamp) => {}
        _ => return Ok(false),
    }
    give_back(&dirs.to, moved.to.file_name(), &dirs.from, &moved.path).map_err(failed)?;
    dirs.flush()?;
    Ok(true)
}
