//! Deletes delivered files: sources that are not kept, and old files in `processed/`.
//!
//! Another program may replace a file between a check and its removal. So the file is first renamed to a hidden name
//! that only this program uses. It is then checked again, and moved back if it is not the right file. If a crash leaves
//! a file under the hidden name, the next call for the same path deletes the file or moves it back.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;

use super::free_names::leaving_name;
use super::moves::{Taken, give_back, look_in, move_to_ours, remove, sync};
use super::open_processed::open_processed;
use super::processed_dir::open_readable;
use super::{FileState, MayRetire, Retired};
use crate::local::DiskError;
use crate::local::error::gone;
use crate::local::own_names::PROCESSED;
use crate::names::RelPath;
use crate::records::{FileStamp, Version};
use crate::root::is_absent;

/// Result of deleting one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    Removed,
    NotThere,
    /// The name belongs to another file, which stays.
    Another,
}

/// Deletes the sources of versions, and returns the result of each. A version missing from the result was not tried
/// (`stopped` returned true, or its directory is unusable), or was deleted but its directory could not be flushed.
///
/// Flushes the directories before it returns. After an error from the disk, the call can be repeated.
pub fn discard(
    location: &Path,
    versions: &[Version],
    may_retire: MayRetire<'_>,
    stopped: &dyn Fn() -> bool,
) -> Vec<(Version, Result<Retired, DiskError>)> {
    let mut all = Vec::with_capacity(versions.len());
    for beside in versions.chunk_by(|a, b| a.path.as_path().parent() == b.path.as_path().parent()) {
        if stopped() {
            break;
        }
        let outcomes = discard_beside(location, beside, may_retire, stopped).unwrap_or_else(|error| vec![Err(error)]);
        all.extend(beside.iter().cloned().zip(outcomes));
    }
    all
}

fn discard_beside(
    location: &Path,
    versions: &[Version],
    may_retire: MayRetire<'_>,
    stopped: &dyn Fn() -> bool,
) -> Result<Vec<Result<Retired, DiskError>>, DiskError> {
    let unopened = |errno| DiskError::io("open", &location.join(versions[0].path.as_path()), errno);
    let chain = open_chain(open_readable(location)?, &versions[0].path).map_err(unopened)?;
    let Some(directory) = chain.last().filter(|_| chain.len() == versions[0].path.as_path().iter().count()) else {
        return Ok(versions.iter().map(|_| Ok(Retired::SourceGone)).collect());
    };
    let discard = |version: &Version| {
        // A version without a digest was never read completely, so it cannot have been delivered.
        if version.digest.is_none() {
            return Ok(Retired::SourceChanged);
        }
        let failed = |errno| DiskError::io("delete", &location.join(version.path.as_path()), errno);
        let source = match may_retire.check(directory, version.path.file_name(), version).map_err(failed)? {
            Ok(source) => Some(source),
            // A crash may have left the source under the hidden name.
            Err(Retired::SourceGone) => None,
            Err(stays) => return Ok(stays),
        };
        let is_it = |stamp: &FileStamp| {
            *stamp == version.stamp && source.as_ref().is_none_or(|source| may_retire.still_holds(source, version))
        };
        let away = take_away(directory, &version.path, is_it).map_err(failed)?;
        Ok(match away {
            Away::Removed => Retired::Deleted,
            Away::NotThere => Retired::SourceGone,
            Away::Another => Retired::SourceChanged,
        })
    };
    let outcomes: Vec<_> = versions.iter().take_while(|_| !stopped()).map(discard).collect();
    sync(directory, location)?;
    Ok(outcomes)
}

/// Result of deleting a file in `processed/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// The file was deleted.
    Deleted,
    /// The file was already missing, or its name belongs to another file, which stays.
    NotThere,
    /// The file's ctime is after the given time, so the file stays.
    Later,
}

/// Deletes files in `processed/` whose size and modification time have not changed since they were moved there. Then
/// deletes the directories that became empty. Files whose ctime is after `until` (milliseconds since 1970) are kept:
/// another version with the same size and modification time may have been moved to that name since.
pub fn expire(location: &Path, files: &[(RelPath, FileStamp)], until: i64) -> Vec<Result<Expired, DiskError>> {
    files.iter().map(|(path, stamp)| expire_one(location, path, stamp, until)).collect()
}

fn expire_one(location: &Path, path: &RelPath, stamp: &FileStamp, until: i64) -> Result<Expired, DiskError> {
    let failed = |errno: Errno| DiskError::io("delete", &location.join(PROCESSED).join(path.as_path()), errno);
    let processed = match open_readable(location) {
        Err(DiskError::Location { source, .. }) if gone(&source) => return Ok(Expired::NotThere),
        opened => open_processed(&opened?, location, false)?,
    };
    let Some(processed) = processed else { return Ok(Expired::NotThere) };
    let chain = open_chain(processed, path).map_err(failed)?;
    let names: Vec<&OsStr> = path.as_path().iter().collect();
    let Some(directory) = chain.last().filter(|_| chain.len() == names.len()) else { return Ok(Expired::NotThere) };
    let changed = statat(directory, path.file_name(), AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_ctime);
    if changed.is_ok_and(|seconds| seconds.saturating_mul(1000) > until) {
        return Ok(Expired::Later);
    }
    // The inode is not compared, because a copy on another disk has another inode.
    let is_it = |found: &FileStamp| {
        (found.size, found.mtime, found.mtime_nanos) == (stamp.size, stamp.mtime, stamp.mtime_nanos)
    };
    if take_away(directory, path, is_it).map_err(failed)? != Away::Removed {
        return Ok(Expired::NotThere);
    }
    let above: Vec<_> = chain.iter().zip(&names).take(names.len() - 1).collect();
    // Removes the parent directories, the innermost first, up to the first that is not empty.
    for (directory, name) in above.into_iter().rev() {
        if unlinkat(directory, *name, AtFlags::REMOVEDIR).is_err() {
            break;
        }
    }
    Ok(Expired::Deleted)
}

/// Opens the directories along a path, as far as they exist; follows no link.
fn open_chain(top: OwnedFd, path: &RelPath) -> rustix::io::Result<Vec<OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut chain = vec![top];
    for name in path.as_path().parent().into_iter().flat_map(Path::iter) {
        match openat(&chain[chain.len() - 1], name, flags, Mode::empty()) {
            Err(errno) if is_absent(errno) => break,
            opened => chain.push(opened?),
        }
    }
    Ok(chain)
}

/// Removes a file, if `is_it` accepts the file's stamp.
fn take_away(directory: &OwnedFd, path: &RelPath, is_it: impl Fn(&FileStamp) -> bool) -> rustix::io::Result<Away> {
    let aside = leaving_name(path);
    match look_in(directory, path.file_name())? {
        FileState::File { stamp, .. } if is_it(&stamp) => {}
        FileState::Gone => return settle(directory, path, &aside, is_it),
        _ => return Ok(Away::Another),
    }
    for _ in 0..2 {
        match move_to_ours(directory, path.file_name(), directory, &aside) {
            Ok(()) => return settle(directory, path, &aside, is_it),
            Err(Taken::Failed(Errno::NOENT)) => return Ok(Away::NotThere),
            Err(Taken::Taken) => drop(settle(directory, path, &aside, &is_it)?),
            Err(Taken::Failed(errno)) => return Err(errno),
        }
    }
    Ok(Away::Another)
}

/// Removes the file under the hidden name, or moves it back if `is_it` rejects its stamp.
fn settle(
    directory: &OwnedFd,
    path: &RelPath,
    aside: &OsStr,
    is_it: impl Fn(&FileStamp) -> bool,
) -> rustix::io::Result<Away> {
    match look_in(directory, aside)? {
        FileState::Gone => Ok(Away::NotThere),
        FileState::File { stamp, .. } if is_it(&stamp) => remove(directory, aside).map(|()| Away::Removed),
        _ => give_back(directory, aside, directory, path).map(|_| Away::Another),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::stamp_of;
    use std::fs;

    fn stamp(path: &Path) -> FileStamp {
        stamp_of(&fs::metadata(path).unwrap())
    }

    fn path(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    #[test]
    fn what_is_old_goes_and_what_is_foreign_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |below: &str| dir.path().join("processed").join(below);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("a/empty")).unwrap();
        for name in ["a/b/ours", "a/changed", "ours"] {
            fs::write(at(name), "x").unwrap();
        }
        let files: Vec<_> = ["a/b/ours", "a/changed", "ours", "gone", "no/such"]
            .map(|name| (path(name), fs::metadata(at(name)).map_or(stamp(&at("ours")), |meta| stamp_of(&meta))))
            .into();
        fs::write(at("a/changed"), "xyz").unwrap();
        let expired = |until| expire(dir.path(), &files, until).into_iter().map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(expired(0)[..3], [Expired::Later; 3]);
        let [deleted, not_there] = [Expired::Deleted, Expired::NotThere];
        assert_eq!(expired(i64::MAX), [deleted, not_there, deleted, not_there, not_there]);
        assert!(!at("a/b").exists() && at("a/empty").exists() && at("a/changed").exists() && at("").exists());
    }

    #[test]
    fn what_a_crash_left_under_the_hidden_name_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &OsStr| dir.path().join(name);
        let directory = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        let aside = leaving_name(&path("file"));
        fs::write(at(&aside), "it").unwrap();
        let it = stamp(&at(&aside));
        assert_eq!(take_away(&directory, &path("file"), |found| *found == it), Ok(Away::Removed));
        assert_eq!(take_away(&directory, &path("file"), |found| *found == it), Ok(Away::NotThere));
        fs::write(at(&aside), "something newer").unwrap();
        assert_eq!(take_away(&directory, &path("file"), |found| *found == it), Ok(Away::Another));
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"something newer");
    }
}
