//! The shore's disk: what lies in a directory, reading it, watching it, and moving away what was delivered.
//!
//! Nothing else touches the shore's files. All functions here block and are plain `fn`s: call them where blocking is
//! allowed; only [`SourceCache`], through which sources are sent, is async and blocks on threads of its own. A file is known by its [`FileStamp`].
//! Everything below a location is reached by [`Root`](crate::root::Root), which follows no link, for a link can lead out of the
//! directory; with `Links = follow` sources are looked at and read through links, wherever they lead, and nothing is changed there.
//! Events from [`watch`] are hints; [`scan()`] and [`file_state()`] are the truth.
//!
//! Knows nothing of the ledger, of vessels, or of when a file counts as finished.

mod disk_space;
mod error;
mod exposure;
mod file_state;
mod intake;
mod meet;
mod mounts;
mod open_files;
mod own;
mod own_names;
mod patience;
mod relocate;
mod rules;
mod scan;
mod source;
mod source_cache;
mod watch;
mod witness;
mod writers;

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::records::FileStamp;

pub use disk_space::{Room, Rooms};
pub use error::DiskError;
pub use exposure::exposed_to;
pub use file_state::{FileState, Found, Kind, PathState, classify, file_state, is_file, is_missing};
pub use intake::{Intake, TakeIn};
pub use meet::{Meeting, meeting};
pub use mounts::{Change, Mounts};
pub use own_names::PROCESSED;
pub use patience::within;
pub use relocate::{
    Changed, Expired, Guard, Moved, Retired, discard, expire, is_directory_in_processed, put_back, retire, sweep,
};
pub use rules::Rules;
pub use scan::{Scan, is_empty, scan};
pub use source::hash_chunks;
pub use source_cache::{Arrival, Source, SourceCache};
pub use watch::{Hint, Watcher};
pub use writers::{Writers, is_shared};

/// The stamp of a file, out of what the kernel says of it.
fn stamp_of(meta: &Metadata) -> FileStamp {
    FileStamp {
        size: meta.size(),
        mtime: meta.mtime(),
        mtime_nanos: u32::try_from(meta.mtime_nsec()).unwrap_or(0),
        inode: meta.ino(),
    }
}

/// The permission bits of a file (`0o7777`).
fn mode_of(meta: &Metadata) -> u32 {
    meta.mode() & 0o7777
}
