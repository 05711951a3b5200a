//! Moves the sources of delivered versions into `processed/`, or into `expired/`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::io::Errno;

use super::free_names::{free_number, leaving_name, numbered};
use super::may_retire::{MayRetire, Source};
use super::moves::{Taken, give_back, look_in, move_to_ours, remove, sync};
use super::processed_dir::ProcessedDir;
use super::{Retired, copy};
use crate::digest::Digest;
use crate::local::DiskError;
use crate::local::file_state::FileState;
use crate::local::own_names::{EXPIRED, PROCESSED};
use crate::local::source::{SourceFile, hash};
use crate::names::RelPath;
use crate::records::{Entry, FileStamp, Version};

/// Maximum number of attempts to find a free name, in case other programs keep taking the free names.
const TRIES: usize = 100;

/// A point in a retirement at which tests can interfere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The source was checked and is about to be moved.
    Checked,
    /// A file was moved by mistake and is about to be moved back: it is not the version, or it is open for writing.
    Mistaken,
    /// The copy is in place, the source is about to be removed.
    Copied,
}

/// The retirement of one version.
struct Retirement<'a> {
    dirs: &'a ProcessedDir<'a>,
    path: &'a RelPath,
    stamp: &'a FileStamp,
    /// `None` if the file was never read completely.
    digest: Option<&'a Digest>,
    version: &'a Version,
    may_retire: MayRetire<'a>,
    pause: &'a dyn Fn(Moment),
}

/// Moves versions into `processed/`, keeping mode and mtime, and returns the result of each. A version missing from the
/// result was not tried (`stopped` returned true, or its directory is unusable), or was moved but not flushed.
///
/// If another file has the name in `processed/`, `.1`, `.2`, … is appended. The directories are flushed before this
/// returns, so that after a power loss a file is under at least one of its names.
///
/// After an error from the disk, the source is still in place or safe in `processed/`, and the call can be repeated.
pub fn retire(
    location: &Path,
    versions: &[Version],
    may_retire: MayRetire<'_>,
    stopped: &dyn Fn() -> bool,
) -> Vec<(Version, Result<Retired, DiskError>)> {
    retire_with(location, (versions, PROCESSED), may_retire, stopped, &|_| {})
}

/// Moves versions into `expired/`, like [`retire`]. Also moves versions whose files were never read.
pub fn set_aside(
    location: &Path,
    versions: &[Version],
    may_retire: MayRetire<'_>,
    stopped: &dyn Fn() -> bool,
) -> Vec<(Version, Result<Retired, DiskError>)> {
    retire_with(location, (versions, EXPIRED), may_retire, stopped, &|_| {})
}

fn retire_with(
    location: &Path,
    (versions, into): (&[Version], &str),
    may_retire: MayRetire<'_>,
    stopped: &dyn Fn() -> bool,
    pause: &dyn Fn(Moment),
) -> Vec<(Version, Result<Retired, DiskError>)> {
    let mut all = Vec::with_capacity(versions.len());
    for beside in versions.chunk_by(|a, b| a.path.as_path().parent() == b.path.as_path().parent()) {
        if stopped() {
            break;
        }
        let outcomes = retire_beside(location, (beside, into), may_retire, stopped, pause)
            .unwrap_or_else(|error| vec![Err(error)]);
        all.extend(beside.iter().cloned().zip(outcomes));
    }
    all
}

/// Retires versions of one directory until stopped, and flushes once for all of them.
fn retire_beside(
    location: &Path,
    (versions, into): (&[Version], &str),
    may_retire: MayRetire<'_>,
    stopped: &dyn Fn() -> bool,
    pause: &dyn Fn(Moment),
) -> Result<Vec<Result<Retired, DiskError>>, DiskError> {
    let Some(dirs) = ProcessedDir::open_as(location, &versions[0].path, into)? else {
        return Ok(versions.iter().map(|_| Ok(Retired::SourceGone)).collect());
    };
    let retire = |version: &Version| {
        let Entry { path, stamp, digest, .. } = &version.entry;
        // A version without a digest was never read completely, so it cannot have been delivered.
        if digest.is_none() && into == PROCESSED {
            return Ok(Retired::SourceChanged);
        }
        Retirement { dirs: &dirs, path, stamp, digest: digest.as_ref(), version, may_retire, pause }.run()
    };
    let outcomes: Vec<_> = versions.iter().take_while(|_| !stopped()).map(retire).collect();
    if outcomes.iter().any(|outcome| matches!(outcome, Ok(Retired::Moved(_)))) {
        dirs.flush()?;
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
        let checked = self.may_retire.check(&self.dirs.from, self.path.file_name(), self.version);
        let source = match checked.map_err(|errno| self.failed("open", errno))? {
            Ok(source) => source,
            Err(stays) => return Ok(stays),
        };
        (self.pause)(Moment::Checked);
        let mut free = self.free_number()?;
        if let Some(target) = self.find_copy(free)? {
            sync(&self.dirs.to, &self.dirs.processed)?;
            return self.remove_source(Retired::AlreadyThere(target), &source);
        }
        for _ in 0..TRIES {
            let target = numbered(self.path, free);
            match move_to_ours(&self.dirs.from, self.path.file_name(), &self.dirs.to, target.file_name()) {
                Ok(()) => return self.confirm(target, &source),
                Err(Taken::Taken) => free = self.free_number()?,
                Err(Taken::Failed(Errno::XDEV)) => return self.copy_across(&source),
                // Either the source or `processed/` no longer exists.
                Err(Taken::Failed(Errno::NOENT)) if self.source()? == FileState::Gone => {
                    return Ok(Retired::SourceGone);
                }
                Err(Taken::Failed(errno)) => return Err(self.failed("retire", errno)),
            }
        }
        Err(self.failed("retire", Errno::EXIST))
    }

    /// Returns a number that makes this version's name free in `processed/`.
    fn free_number(&self) -> Result<u64, DiskError> {
        let number = free_number(&self.dirs.to, self.path);
        number.map_err(|e| DiskError::io("read the status of", &self.dirs.target(self.path), e))
    }

    /// Returns the path in `processed/` where an earlier attempt put the version's bytes. Checks only the plain name
    /// and the number before the free one, because the numbers in between belong to other versions, and there may be
    /// thousands.
    fn find_copy(&self, free: u64) -> Result<Option<RelPath>, DiskError> {
        let Some(last) = free.checked_sub(1).filter(|_| self.digest.is_some()) else { return Ok(None) };
        if self.holds_it(self.path, 0)? {
            return Ok(Some(self.path.clone()));
        }
        if last == 0 {
            return Ok(None);
        }
        let target = numbered(self.path, last);
        Ok(self.holds_it(&target, last)?.then_some(target))
    }

    fn source(&self) -> Result<FileState, DiskError> {
        look_in(&self.dirs.from, self.path.file_name()).map_err(|errno| self.failed("read the status of", errno))
    }

    fn failed(&self, act: &'static str, errno: Errno) -> DiskError {
        DiskError::io(act, &self.dirs.location.join(self.path.as_path()), errno)
    }

    /// Returns whether `processed/` has the version's bytes at `target`.
    ///
    /// A numbered file must also have the version's mtime, which moving and copying keep. Without this condition, every
    /// retirement of a file that is rewritten each minute would hash all its earlier copies.
    fn holds_it(&self, target: &RelPath, number: u64) -> Result<bool, DiskError> {
        let there = look_in(&self.dirs.to, target.file_name());
        let there = match there.map_err(|e| DiskError::io("read the status of", &self.dirs.target(target), e))? {
            FileState::File { stamp, .. } => stamp,
            FileState::Gone | FileState::NotAFile(_) => return Ok(false),
        };
        let time = |stamp: &FileStamp| (stamp.mtime, stamp.mtime_nanos);
        if there.size != self.stamp.size || (number > 0 && time(&there) != time(self.stamp)) {
            return Ok(false);
        }
        let Some(digest) = self.digest else { return Ok(time(&there) == time(self.stamp)) };
        let (name, whole) = (Path::new(target.file_name()), self.dirs.target(target));
        let copy = match SourceFile::open_in(&self.dirs.to, name, whole) {
            Err(DiskError::NotAFile { .. }) => return Ok(false),
            Err(error) if error.is_gone() => return Ok(false),
            copy => copy?,
        };
        let same = hash(&copy, &|| false)? == *digest;
        if same {
            copy.flush()?;
        }
        Ok(same)
    }

    /// Handles a missing source. Looks for the file in `processed/`, because the program may have crashed after it
    /// moved the file and before it recorded the move in the ledger.
    fn perhaps_moved_earlier(&self) -> Result<Retired, DiskError> {
        for number in 0.. {
            let target = numbered(self.path, number);
            if self.holds_it(&target, number)? {
                sync(&self.dirs.to, &self.dirs.processed)?;
                return Ok(Retired::AlreadyThere(target));
            }
            if matches!(look_in(&self.dirs.to, target.file_name()), Ok(FileState::Gone) | Err(_)) {
                return Ok(Retired::SourceGone);
            }
        }
        unreachable!("the numbers don't end")
    }

    /// Checks the file again after the move, when other programs can no longer replace it. Doesn't flush.
    fn confirm(&self, target: RelPath, source: &Source) -> Result<Retired, DiskError> {
        let moved = look_in(&self.dirs.to, target.file_name());
        let is_it = matches!(moved, Ok(FileState::File { stamp, .. }) if stamp == *self.stamp);
        if is_it && self.may_retire.still_holds(source, self.version) {
            return Ok(Retired::Moved(target));
        }
        (self.pause)(Moment::Mistaken);
        self.give_back(self.dirs.to.as_fd(), target.file_name())
    }

    /// Moves a file back that was moved by mistake, to its own name or, if that is taken again, to the next free one.
    fn give_back(&self, from: BorrowedFd<'_>, name: &OsStr) -> Result<Retired, DiskError> {
        let got = give_back(from, name, &self.dirs.from, self.path).map_err(|errno| self.failed("put back", errno))?;
        self.dirs.flush()?;
        if got != *self.path {
            tracing::warn!(
                location = %self.dirs.location.display(), file = %self.path, kept_as = %got,
                "The file was replaced twice during its move to processed/; kept the first replacement under another \
                 name"
            );
        }
        Ok(Retired::SourceChanged)
    }

    /// Removes the source, whose bytes are now in `processed/`, unless another file has taken the source's name.
    ///
    /// First renames the source to a name that only this program uses, and checks it there. If the program crashes
    /// between the rename and the removal, [`sweep`](super::sweep) restores the source.
    fn remove_source(&self, done: Retired, source: &Source) -> Result<Retired, DiskError> {
        (self.pause)(Moment::Copied);
        let from = &self.dirs.from;
        let aside = leaving_name(self.path);
        match move_to_ours(from, self.path.file_name(), from, &aside) {
            Ok(()) => {}
            Err(Taken::Failed(Errno::NOENT)) => return Ok(done),
            // A file of an earlier attempt still has the name that only this program uses, because it was not swept
            // yet. That file is restored first; the retirement is repeated later.
            Err(Taken::Taken) => return self.give_back(from.as_fd(), &aside),
            Err(Taken::Failed(errno)) => return Err(self.failed("remove", errno)),
        }
        match look_in(from, &aside) {
            Ok(FileState::File { stamp, .. })
                if stamp == *self.stamp && self.may_retire.still_holds(source, self.version) =>
            {
                remove(from, &aside).map_err(|errno| self.failed("remove", errno))?;
                self.dirs.flush()?;
                Ok(done)
            }
            _ => {
                (self.pause)(Moment::Mistaken);
                self.give_back(from.as_fd(), &aside)
            }
        }
    }

    /// Copies the file to `processed/` on another file system, then removes the source.
    fn copy_across(&self, source: &Source) -> Result<Retired, DiskError> {
        let digest = match self.digest {
            Some(digest) => *digest,
            None => {
                let whole = self.dirs.location.join(self.path.as_path());
                hash(&SourceFile::open_in(&self.dirs.from, Path::new(self.path.file_name()), whole)?, &|| false)?
            }
        };
        let Some(copied) = copy::make(self.dirs, self.path, self.stamp, &digest)? else {
            return Ok(Retired::SourceChanged);
        };
        for _ in 0..TRIES {
            let target = numbered(self.path, self.free_number()?);
            match copied.publish(self.dirs, target.file_name()) {
                Ok(()) => {
                    sync(&self.dirs.to, &self.dirs.processed)?;
                    return self.remove_source(Retired::Moved(target), source);
                }
                Err(Taken::Taken) => {}
                Err(Taken::Failed(errno)) => return Err(DiskError::io("create", &self.dirs.target(&target), errno)),
            }
        }
        Err(self.failed("retire", Errno::EXIST))
    }
}

#[cfg(test)]
mod tests;
