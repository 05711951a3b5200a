//! Moving what was delivered into `processed/`, and nothing else (promise P3).
//!
//! Between any look at a name and any act on it, another program may have put a new file there. So a file is first moved
//! by one rename, then looked at under the name that only we use, and given back when it is not the delivered version.
//! Nothing is ever overwritten: every move refuses a name that is taken. Each step can be repeated after a crash.
//!
//! Flushing a directory costs more than moving a hundred files, so what leaves one directory is moved first and flushed
//! together. Until then nothing counts as moved; and `processed/`, which gains names, is always flushed before the
//! directory that loses them, whoever asks for that first: no power loss may find a file under neither.
//!
//! `processed` may be a link to a directory elsewhere: that is the operator's way to keep the archive on another disk, and
//! the one link that is followed, where nobody else can have made it (see `processed`). Across file systems (see `copy`) the
//! copy is verified and flushed first.
//!
//! Nothing is moved that somebody has open for writing; see `guard`. Whoever opened it between that look and the move is
//! found by a look after the move, and the file is given back.

mod copy;
mod delete;
mod guard;
mod moves;
mod processed;
mod processed_dir;
mod put_back;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use super::DiskError;
use super::file_state::FileState;
use super::own_names::PROCESSED;
use super::source::{SourceFile, hash};
use crate::digest::Digest;
use crate::names::RelPath;
use crate::records::{FileStamp, Version};
use guard::Source;
use moves::{Taken, give_back, look_in, move_to_ours, remove, sync};
use processed_dir::{ProcessedDir, free_number, leaving_name, numbered};

pub use copy::sweep;
pub use delete::{Expired, discard, expire};
pub use guard::{Changed, Guard};
pub use put_back::{Moved, put_back};

/// Whether a directory has the name below `processed/` that a file of this path would get; a look, for what is said of it.
pub fn is_directory_in_processed(location: &Path, path: &RelPath) -> bool {
    std::fs::symlink_metadata(location.join(PROCESSED).join(path.as_path())).is_ok_and(|found| found.is_dir())
}

/// How often another free name is looked for, when somebody takes the one that was free.
const TRIES: usize = 100;

/// What came of retiring a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retired {
    /// It was moved to this path below `processed/`.
    Moved(RelPath),
    /// `processed/` had the same bytes at this path, from an earlier attempt or delivery; the source is gone now.
    AlreadyThere(RelPath),
    /// It was deleted.
    Deleted,
    /// Neither the source nor a copy of it in `processed/` exists: somebody removed it.
    SourceGone,
    /// The source is another version than the one named; it stays where it is, to be found by the next scan.
    SourceChanged,
    /// Somebody has the source open for writing; it stays where it is.
    InUse,
    /// It stays where it is for at least so much longer: it has not been left alone for long enough.
    NotYet(Duration),
}

/// A moment in a retirement, for tests to make something happen in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The source was looked at and is about to be moved.
    Checked,
    /// Something else than the version was moved and is about to be given back.
    Mistaken,
    /// The copy is in place, the source is about to be removed.
    Copied,
}

/// One retirement.
struct Retirement<'a> {
    places: &'a ProcessedDir<'a>,
    path: &'a RelPath,
    stamp: &'a FileStamp,
    digest: &'a Digest,
    version: &'a Version,
    guard: Guard<'a>,
    pause: &'a dyn Fn(Moment),
}

/// Moves versions into `processed/`, each with its mode and mtime, and says what came of them. Those that it does not
/// speak of were not tried, because `stopped` said so or their directory can't be used, or may be moved but not flushed.
///
/// A name that is taken there gets `.1`, `.2`, … at its end, unless what has it holds the same bytes. The directories
/// are flushed before this returns, so that no power loss takes both names.
///
/// An error is what the disk says; the source is then still in its place or safe in `processed/`, and the call can be
/// repeated.
pub fn retire(
    location: &Path,
    versions: &[Version],
    guard: Guard<'_>,
    stopped: &dyn Fn() -> bool,
) -> Vec<(Version, Result<Retired, DiskError>)> {
    retire_with(location, versions, guard, stopped, &|_| {})
}

fn retire_with(
    location: &Path,
    versions: &[Version],
    guard: Guard<'_>,
    stopped: &dyn Fn() -> bool,
    pause: &dyn Fn(Moment),
) -> Vec<(Version, Result<Retired, DiskError>)> {
    let mut all = Vec::with_capacity(versions.len());
    for beside in versions.chunk_by(|a, b| a.path.as_path().parent() == b.path.as_path().parent()) {
        if stopped() {
            break;
        }
        let outcomes = retire_beside(location, beside, guard, stopped, pause).unwrap_or_else(|error| vec![Err(error)]);
        all.extend(beside.iter().cloned().zip(outcomes));
    }
    all
}

/// Retires versions that lie in one directory, up to where it is stopped, and flushes once for all of them.
fn retire_beside(
    location: &Path,
    versions: &[Version],
    guard: Guard<'_>,
    stopped: &dyn Fn() -> bool,
    pause: &dyn Fn(Moment),
) -> Result<Vec<Result<Retired, DiskError>>, DiskError> {
    let Some(places) = ProcessedDir::open(location, &versions[0].path)? else {
        return Ok(versions.iter().map(|_| Ok(Retired::SourceGone)).collect());
    };
    let retire = |version: &Version| {
        let Version { path, stamp, digest, .. } = version;
        // What nobody has read can't have been delivered.
        let Some(digest) = digest else { return Ok(Retired::SourceChanged) };
        Retirement { places: &places, path, stamp, digest, version, guard, pause }.run()
    };
    let outcomes: Vec<_> = versions.iter().take_while(|_| !stopped()).map(retire).collect();
    if outcomes.iter().any(|outcome| matches!(outcome, Ok(Retired::Moved(_)))) {
        places.flush()?;
    }
    Ok(outcomes)
}

impl Retirement<'_> {
    fn run(&self) -> Result<Retired, DiskError> {
        match self.source()? {
            FileState::File { stamp, .. } if stamp == *self.stamp => {}
            FileState::Gone => return self.perhaps_moved_earlier(),
            _ => return Ok(Retired::SourceChanged),
        }
        let checked = self.guard.check(&self.places.from, self.path.file_name(), self.version);
        let source = match checked.map_err(|errno| self.failed("open", errno))? {
            Ok(source) => source,
            Err(stays) => return Ok(stays),
        };
        (self.pause)(Moment::Checked);
        if let Some(target) = self.find_copy()? {
            sync(&self.places.to, &self.places.processed)?;
            return self.remove_source(Retired::AlreadyThere(target), &source);
        }
        for _ in 0..TRIES {
            let target = self.free_target()?;
            match move_to_ours(&self.places.from, self.path.file_name(), &self.places.to, target.file_name()) {
                Ok(()) => return self.confirm(target, &source),
                Err(Taken::Taken) => {}
                Err(Taken::Failed(Errno::XDEV)) => return self.copy_across(&source),
                // Either the source has gone or `processed/` has.
                Err(Taken::Failed(Errno::NOENT)) if self.source()? == FileState::Gone => {
                    return Ok(Retired::SourceGone);
                }
                Err(Taken::Failed(errno)) => return Err(self.failed("retire", errno)),
            }
        }
        Err(self.failed("retire", Errno::EXIST))
    }

    /// The first name for this version that nothing has in `processed/`.
    fn free_target(&self) -> Result<RelPath, DiskError> {
        let number = free_number(&self.places.to, self.path);
        let number = number.map_err(|e| DiskError::io("read the status of", &self.places.target(self.path), e))?;
        Ok(numbered(self.path, number))
    }

    /// Where `processed/` holds the version's bytes, if its plain name or its last number does: an earlier attempt put it
    /// there. Those in between are others, and there may be thousands.
    fn find_copy(&self) -> Result<Option<RelPath>, DiskError> {
        if self.holds_it(self.path, 0)? {
            return Ok(Some(self.path.clone()));
        }
        let free = free_number(&self.places.to, self.path);
        let free = free.map_err(|e| DiskError::io("read the status of", &self.places.target(self.path), e))?;
        let Some(last) = free.checked_sub(1).filter(|last| *last > 0) else { return Ok(None) };
        let target = numbered(self.path, last);
        Ok(self.holds_it(&target, last)?.then_some(target))
    }

    fn source(&self) -> Result<FileState, DiskError> {
        look_in(&self.places.from, self.path.file_name()).map_err(|errno| self.failed("read the status of", errno))
    }

    fn failed(&self, act: &'static str, errno: Errno) -> DiskError {
        DiskError::io(act, &self.places.location.join(self.path.as_path()), errno)
    }

    /// Whether `processed/` holds the version's bytes at `target`.
    ///
    /// All but the plain name must have the version's mtime too, which moving and copying keep: else a file that is
    /// written anew every minute would have all its old fellows hashed every time.
    fn holds_it(&self, target: &RelPath, number: u64) -> Result<bool, DiskError> {
        let there = look_in(&self.places.to, target.file_name());
        let there = match there.map_err(|e| DiskError::io("read the status of", &self.places.target(target), e))? {
            FileState::File { stamp, .. } => stamp,
            FileState::Gone | FileState::NotAFile(_) => return Ok(false),
        };
        let time = |stamp: &FileStamp| (stamp.mtime, stamp.mtime_nanos);
        if there.size != self.stamp.size || (number > 0 && time(&there) != time(self.stamp)) {
            return Ok(false);
        }
        let (name, whole) = (Path::new(target.file_name()), self.places.target(target));
        let copy = match SourceFile::open_in(&self.places.to, name, whole) {
            Err(DiskError::NotAFile { .. }) => return Ok(false),
            Err(error) if error.is_gone() => return Ok(false),
            copy => copy?,
        };
        let same = hash(&copy, &|| false)? == *self.digest;
        if same {
            copy.flush()?;
        }
        Ok(same)
    }

    /// The source is gone: a crash may have come between its move and the note of it in the ledger.
    fn perhaps_moved_earlier(&self) -> Result<Retired, DiskError> {
        for number in 0.. {
            let target = numbered(self.path, number);
            if self.holds_it(&target, number)? {
                sync(&self.places.to, &self.places.processed)?;
                return Ok(Retired::AlreadyThere(target));
            }
            if matches!(look_in(&self.places.to, target.file_name()), Ok(FileState::Gone) | Err(_)) {
                return Ok(Retired::SourceGone);
            }
        }
        unreachable!("the numbers don't end")
    }

    /// Looks again at what was moved: only now nobody else can put another file under the name. Doesn't flush.
    fn confirm(&self, target: RelPath, source: &Source) -> Result<Retired, DiskError> {
        let moved = look_in(&self.places.to, target.file_name());
        let is_it = matches!(moved, Ok(FileState::File { stamp, .. }) if stamp == *self.stamp);
        if is_it && self.guard.still_holds(source, self.version) {
            return Ok(Retired::Moved(target));
        }
        (self.pause)(Moment::Mistaken);
        self.give_back(self.places.to.as_fd(), target.file_name())
    }

    /// Gives back what was moved by mistake, under its name or, if that is taken again, under the next free one.
    fn give_back(&self, from: BorrowedFd<'_>, name: &OsStr) -> Result<Retired, DiskError> {
        let got =
            give_back(from, name, &self.places.from, self.path).map_err(|errno| self.failed("put back", errno))?;
        self.places.flush()?;
        if got != *self.path {
            tracing::warn!(
                location = %self.places.location.display(), file = %self.path, kept_as = %got,
                "The file was replaced twice while it retired; the version in between was kept under another name"
            );
        }
        Ok(Retired::SourceChanged)
    }

    /// Removes the source, which `processed/` now holds, unless another file has taken its name.
    ///
    /// It is first given a name that only we use, and looked at there. A crash in between is settled by [`sweep`].
    fn remove_source(&self, done: Retired, source: &Source) -> Result<Retired, DiskError> {
        (self.pause)(Moment::Copied);
        let from = &self.places.from;
        let aside = leaving_name(self.path);
        match move_to_ours(from, self.path.file_name(), from, &aside) {
            Ok(()) => {}
            Err(Taken::Failed(Errno::NOENT)) => return Ok(done),
            // An earlier one was not swept yet: that comes first, and this is repeated.
            Err(Taken::Taken) => return self.give_back(from.as_fd(), &aside),
            Err(Taken::Failed(errno)) => return Err(self.failed("remove", errno)),
        }
        match look_in(from, &aside) {
            Ok(FileState::File { stamp, .. })
                if stamp == *self.stamp && self.guard.still_holds(source, self.version) =>
            {
                remove(from, &aside).map_err(|errno| self.failed("remove", errno))?;
                self.places.flush()?;
                Ok(done)
            }
            _ => {
                (self.pause)(Moment::Mistaken);
                self.give_back(from.as_fd(), &aside)
            }
        }
    }

    /// Copies to another file system.
    fn copy_across(&self, source: &Source) -> Result<Retired, DiskError> {
        let Some(copied) = copy::make(self.places, self.path, self.stamp, self.digest)? else {
            return Ok(Retired::SourceChanged);
        };
        for _ in 0..TRIES {
            let target = self.free_target()?;
            match copied.publish(self.places, target.file_name()) {
                Ok(()) => {
                    sync(&self.places.to, &self.places.processed)?;
                    return self.remove_source(Retired::Moved(target), source);
                }
                Err(Taken::Taken) => {}
                Err(Taken::Failed(errno)) => return Err(DiskError::io("make", &self.places.target(&target), errno)),
            }
        }
        Err(self.failed("retire", Errno::EXIST))
    }
}

#[cfg(test)]
mod tests;
