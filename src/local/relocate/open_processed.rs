//! Opens or creates the directory `processed/`, and rejects it if another user could redirect it.
//!
//! Users who may write to the location can put anything under this name at any moment. So a link is followed only if
//! nobody but the operator can have created it and nobody else can replace it. A new directory gets its mode only after
//! a check that it is still the one that this program created.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::moves::sync;
use crate::local::DiskError;
use crate::local::exposure::others_may_write;
use crate::local::own_names::PROCESSED;
use crate::rights::{CopyOf, keeping_inherited};
use crate::root::is_absent;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);

/// Opens `processed` in a location; `None` if it is missing and `make` is not set.
pub(super) fn open_processed(location: &OwnedFd, path: &Path, make: bool) -> Result<Option<OwnedFd>, DiskError> {
    open_ours(location, path, PROCESSED, make)
}

/// Opens a directory for sources, `processed` or `expired`, like [`open_processed`].
pub(super) fn open_ours(location: &OwnedFd, path: &Path, name: &str, make: bool) -> Result<Option<OwnedFd>, DiskError> {
    let processed = &path.join(name);
    let failed = |act| move |errno| DiskError::io(act, processed, errno);
    let name = OsStr::new(name);
    let opened = if make {
        make_and_open(location, name, location, path)
    } else {
        openat(location, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
    };
    let to = match opened {
        Err(Errno::NOENT) if !make => return Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) => open_link(location, name, processed)?,
        opened => opened.map_err(failed("open or create"))?,
    };
    // If `processed` were the location itself, each source would be found in `processed/` already, and removed.
    let (above, own) =
        (fstat(location).map_err(failed("read the status of"))?, fstat(&to).map_err(failed("read the status of"))?);
    if (above.st_dev, above.st_ino) == (own.st_dev, own.st_ino) {
        let why = "it is a link to the directory that contains it";
        return Err(DiskError::Processed { path: processed.clone(), why });
    }
    Ok(Some(to))
}

/// Opens the target of the link `processed`, if the operator created it and nobody else can replace it.
fn open_link(location: &OwnedFd, name: &OsStr, processed: &Path) -> Result<OwnedFd, DiskError> {
    let unfit = |why| DiskError::Processed { path: processed.into(), why };
    let failed = |errno| DiskError::io("read the status of", processed, errno);
    let link = openat(location, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let link = link.map_err(failed)?;
    let stat = fstat(&link).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Err(unfit("it is a file, not a directory"));
    }
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        let why = "it is a symbolic link that belongs neither to root nor to the user that contentmonster runs as";
        return Err(DiskError::ProcessedLink { path: processed.into(), why });
    }
    if others_may_write(&fstat(location).map_err(failed)?) {
        let why = "it is a symbolic link, and other users may write to its directory, so they could redirect it";
        return Err(DiskError::ProcessedLink { path: processed.into(), why });
    }
    let target = readlinkat(link.as_fd(), "", Vec::new()).map_err(failed)?;
    match openat(location, target, DIRECTORY, Mode::empty()) {
        Err(Errno::NOTDIR) => Err(unfit("it is a link to a file, not to a directory")),
        Err(errno) if is_absent(errno) => Err(unfit("it is a link whose target does not exist")),
        opened => opened.map_err(failed),
    }
}

/// Opens the directory `name` in `parent`, creating it with the mode of `model` if it is missing. Follows no link.
pub(super) fn make_and_open(
    parent: &OwnedFd,
    name: &OsStr,
    model: &OwnedFd,
    parent_path: &Path,
) -> rustix::io::Result<OwnedFd> {
    let open = || openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {}
        opened => return opened,
    }
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => {
            let made = open()?;
            let (found, model) = (fstat(&made)?, fstat(model)?);
            if is_just_made(&made, &found) {
                let mode = keeping_inherited(CopyOf::Directory.plain(model.st_mode), found.st_mode);
                // Setting the mode fails on a file system without modes, but the directory is usable there
                // nevertheless.
                fchmod(&made, Mode::from_raw_mode(mode)).ok();
            }
            sync(parent, parent_path).map_err(|_| Errno::IO)?;
            Ok(made)
        }
        Err(Errno::EXIST) => open(),
        Err(errno) => Err(errno),
    }
}

/// Returns whether an open directory is plausibly the one that this program has just created: owned by our user, with
/// its initial mode, and empty. Another user may have replaced it by a directory whose mode must not change.
fn is_just_made(directory: &OwnedFd, found: &Stat) -> bool {
    let is_empty = || {
        let entries = Dir::read_from(directory).ok()?;
        let mut names =
            entries.map(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")));
        Some(names.all(|is_itself| is_itself))
    };
    found.st_uid == geteuid().as_raw() && found.st_mode & 0o777 & !0o700 == 0 && is_empty() == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn opened(location: &Path, make: bool) -> Result<Option<OwnedFd>, DiskError> {
        open_processed(&fs::File::open(location).unwrap().into(), location, make)
    }

    #[test]
    fn processed_is_made_with_the_modes_of_the_location_that_lend_no_rights() {
        let dir = tempfile::tempdir().unwrap();
        set(dir.path(), 0o1775);
        assert!(opened(dir.path(), false).unwrap().is_none());
        opened(dir.path(), true).unwrap().unwrap();
        assert_eq!(fs::metadata(dir.path().join(PROCESSED)).unwrap().mode() & 0o7777, 0o1775);
    }

    #[test]
    fn a_directory_that_took_the_place_of_the_one_just_made_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let made = |name: &str, mode| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            set(&path, mode);
            let opened = OwnedFd::from(fs::File::open(&path).unwrap());
            let found = fstat(&opened).unwrap();
            (path, opened, found)
        };
        let (_, opened, found) = made("fresh", 0o700);
        assert!(is_just_made(&opened, &found));
        let (_, opened, found) = made("open", 0o750);
        assert!(!is_just_made(&opened, &found));
        let (path, opened, found) = made("full", 0o700);
        fs::write(path.join("file"), "").unwrap();
        assert!(!is_just_made(&opened, &found));
        if geteuid().is_root() {
            let (path, opened, _) = made("theirs", 0o700);
            chown(&path, Some(12_345), None).unwrap();
            assert!(!is_just_made(&opened, &fstat(&opened).unwrap()));
        }
    }

    #[test]
    fn a_link_is_followed_only_if_nobody_but_the_operator_can_have_made_it() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let link = dir.path().join(PROCESSED);
        symlink(elsewhere.path(), &link).unwrap();
        let inode = |opened: OwnedFd| fstat(opened).unwrap().st_ino;
        let there = fs::metadata(elsewhere.path()).unwrap().ino();
        assert_eq!(inode(opened(dir.path(), true).unwrap().unwrap()), there);
        set(dir.path(), 0o1777);
        assert_eq!(inode(opened(dir.path(), false).unwrap().unwrap()), there);
        set(dir.path(), 0o770);
        let refused = |words: &str| {
            for make in [true, false] {
                let fault = opened(dir.path(), make).unwrap_err().fault().to_string();
                assert!(fault.contains(words) && fault.contains("mount --bind"), "{fault}");
            }
        };
        refused("other users may write to its directory");
        set(dir.path(), 0o700);
        if geteuid().is_root() {
            lchown(&link, Some(12_345), None).unwrap();
            refused("belongs neither to root nor to the user");
            lchown(&link, Some(0), None).unwrap();
            chown(dir.path(), Some(12_345), None).unwrap();
            refused("other users may write to its directory");
        }
    }
}
