//! How much room is left on a disk.

use std::io;
use std::path::Path;

/// The bytes that this program may still write to the file system of a path, and the number that the kernel knows that file
/// system by.
///
/// # Errors
/// When there is nothing at the path, or the file system does not say.
pub fn room_at(path: &Path) -> io::Result<(u64, u64)> {
    let room = rustix::fs::statvfs(path)?;
    let disk = rustix::fs::stat(path)?.st_dev;
    Ok((room.f_bavail.saturating_mul(room.f_frsize), disk))
}
