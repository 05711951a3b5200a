//! Safely opens a path that the operator specified, even if other users can write to a directory on the path.
//!
//! Symbolic links of root and of this process's user are followed. A link of another user is rejected, because it could
//! make this program write to any path.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Maximum number of symbolic links in one path, the same as in the kernel.
const MOST_LINKS: usize = 40;

/// Returns whether links of `user` are followed: whether `user` is root or the user that this program runs as.
pub(super) fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

/// Opens a file. Follows links on the path, including the last component, if root or this process's user owns them.
///
/// # Errors
/// If another user owns one of the links, an error that names the link; any other error of the kernel.
pub fn open_trusted(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    // The kernel follows links in these directories, because their targets are not always paths: `/dev/stderr` may lead
    // to `pipe:[4711]`.
    if path.starts_with("/dev") || path.starts_with("/proc") {
        return Ok(openat(CWD, path, flags | OFlags::CLOEXEC, mode)?.into());
    }
    let (directory, name) = resolve(path)?;
    Ok(openat(&directory, &name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode)?.into())
}

/// Follows all links of a path, including the last component. Returns the directory of the resulting path, and the name
/// of its last component.
fn resolve(path: &Path) -> io::Result<(OwnedFd, OsString)> {
    let start = |path: &Path| {
        let start = if path.is_absolute() { "/" } else { "." };
        openat(CWD, start, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let mut directory = start(path)?;
    // The remaining components in reverse order, so that `pop` returns the next one.
    let mut ahead = names(path);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        let found = openat(&directory, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let found = match found {
            Err(Errno::NOENT) if ahead.is_empty() => return Ok((directory, name)),
            found => found?,
        };
        let stat = fstat(&found)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP.into());
                }
                if !is_trusted(stat.st_uid) {
                    return Err(refused(&name, stat.st_uid));
                }
                let target = OsString::from_vec(readlinkat(found.as_fd(), "", Vec::new())?.into_bytes());
                if Path::new(&target).is_absolute() {
                    directory = start(Path::new(&target))?;
                }
                ahead.extend(names(Path::new(&target)));
            }
            _ if ahead.is_empty() => return Ok((directory, name)),
            _ => directory = found,
        }
    }
    Err(Errno::ISDIR.into())
}

/// Returns the components of a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).map(OsStr::to_owned).collect()
}

fn refused(name: &OsStr, owner: u32) -> io::Error {
    io::Error::other(format!(
        "`{}` in this path is a symbolic link that belongs to user {owner}, who could redirect it; remove the link, or \
         give it to root or to the user that contentmonster runs as (chown -h)",
        name.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{lchown, symlink};

    fn write(path: &Path) -> io::Result<File> {
        open_trusted(path, OFlags::WRONLY | OFlags::CREATE, Mode::RUSR | Mode::WUSR)
    }

    #[test]
    fn links_of_root_and_ours_are_followed_and_those_of_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |below: &str| dir.path().join(below);
        fs::create_dir_all(at("real/deep")).unwrap();
        symlink("real", at("ours")).unwrap();
        symlink(at("real/deep"), at("absolute")).unwrap();
        symlink("ours/deep/../file", at("to file")).unwrap();
        symlink("loop", at("loop")).unwrap();
        for path in ["ours/one", "absolute/two", "to file", "real/../three"] {
            write(&at(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        }
        for made in ["real/one", "real/deep/two", "real/file", "three"] {
            assert!(at(made).is_file(), "{made}");
        }
        assert!(write(&at("loop")).is_err() && write(&at("none/file")).is_err());
        if geteuid().is_root() {
            symlink("real", at("theirs")).unwrap();
            lchown(at("theirs"), Some(12_345), Some(12_345)).unwrap();
            lchown(at("to file"), Some(12_345), None).unwrap();
            for refused in ["theirs/one", "to file"] {
                let error = write(&at(refused)).unwrap_err().to_string();
                assert!(error.contains("belongs to user 12345") && error.contains("chown -h"), "{error}");
            }
        }
    }
}
