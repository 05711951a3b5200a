//! Moves delivered files into `processed/`, and no others (promise P3 in `DESIGN.md`).
//!
//! Another program may replace a file between our check and our move. So a file is first renamed to a name that only
//! this program uses, then checked again, and moved back if it is not the delivered version. No move overwrites an
//! existing name, and every step can be repeated after a crash.
//!
//! Flushing a directory costs more than moving a hundred files, so all files of one directory are moved first and
//! flushed together. A file counts as moved only after the flush. `processed/` is always flushed before the source
//! directory, because otherwise a power loss could leave a file under neither name.
//!
//! `processed` may be a link to a directory on another disk. No other link is followed. The link `processed` is
//! followed only if nobody but the operator can have created it (see `open_processed`). A file that goes to another
//! file system is copied; its source is removed only after the copy was verified and flushed (see `copy`).
//!
//! A file that is open for writing is not moved (see `may_retire`). If a program opens the file between this check and
//! the move, a second check after the move detects this, and the file is moved back.

mod copy;
mod delete;
mod free_names;
mod may_retire;
mod moves;
mod open_processed;
mod processed_dir;
mod put_back;
mod retire;

use std::path::Path;
use std::time::Duration;

use super::file_state::FileState;
use super::own_names::PROCESSED;
use crate::names::RelPath;

pub use copy::sweep;
pub use delete::{Expired, discard, expire};
pub use may_retire::{Changed, MayRetire};
pub use put_back::{Moved, put_back};
pub use retire::{retire, set_aside};

/// Returns whether the path that a file would get below `processed/` is a directory. For messages only.
pub fn is_directory_in_processed(location: &Path, path: &RelPath) -> bool {
    std::fs::symlink_metadata(location.join(PROCESSED).join(path.as_path())).is_ok_and(|found| found.is_dir())
}

/// Result of retiring a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retired {
    /// The file was moved to this path below `processed/`.
    Moved(RelPath),
    /// `processed/` had the same bytes at this path, from an earlier attempt or delivery, and the source no longer
    /// exists.
    AlreadyThere(RelPath),
    /// The file was deleted.
    Deleted,
    /// Neither the source nor a copy of it in `processed/` exists, because another program or a person removed the
    /// source.
    SourceGone,
    /// The file with the source's name is no longer this version. It stays in place for the next scan.
    SourceChanged,
    /// The source is open for writing; it stays in place.
    InUse,
    /// The file stays in place for at least this long, because it changed too recently.
    NotYet(Duration),
}
