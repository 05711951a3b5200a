//! The shore's disk: scans, reads and watches directories, and moves away delivered files.
//!
//! No other module accesses the source files. All functions here block the calling thread, except the async ones.
//! Sources are read for sending through [`SourceCache`], which is async and has its own blocking threads. A file is
//! identified by its [`FileStamp`].
//!
//! All paths below a location are accessed through [`Root`](crate::root::Root), which follows no links, because a link
//! can lead out of the directory. With `Links = follow`, links are followed when sources are examined and read,
//! wherever the links lead. But no file is changed through a link. Events of [`watch`] are only hints; [`scan()`] and
//! [`classify()`] return the actual state.

mod disk_space;
mod error;
mod exposure;
mod file_state;
mod meet;
mod mounts;
mod open_files;
mod open_location;
mod open_writers;
mod own;
mod own_names;
mod patience;
mod relocate;
mod rules;
mod scan;
mod source;
mod source_cache;
mod take_in;
mod watch;
mod witness;

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::records::FileStamp;

pub use disk_space::{FreeSpace, FreeSpaces};
pub use error::DiskError;
pub use exposure::exposed_to;
pub use file_state::{Found, Kind, PathState, is_file, is_missing};
pub use meet::{Meeting, meeting};
pub use mounts::{Change, MountTable, Mounts, uncertain};
pub use open_location::{OpenLocation, classify};
pub use open_writers::{Writers, is_shared};
pub use own_names::{EXPIRED, PROCESSED};
pub use patience::within;
pub use relocate::{
    Changed, Expired, MayRetire, Moved, Retired, discard, expire, is_directory_in_processed, put_back, retire,
    set_aside, sweep,
};
pub use rules::Rules;
pub use scan::{Scan, is_empty, scan};
pub use source::{SourceFile, hash_chunks};
pub use source_cache::{Arrival, Source, SourceCache};
pub use take_in::{Intake, TakeIn};
pub use watch::{Hint, Watcher};

/// Builds the stamp of a file from its metadata.
fn stamp_of(meta: &Metadata) -> FileStamp {
    FileStamp {
        size: meta.size(),
        mtime: meta.mtime(),
        mtime_nanos: u32::try_from(meta.mtime_nsec()).unwrap_or(0),
        inode: meta.ino(),
    }
}

/// Returns the permission bits of a file (`0o7777`).
fn mode_of(meta: &Metadata) -> u32 {
    meta.mode() & 0o7777
}
