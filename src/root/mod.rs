//! Accesses paths below a directory without following symbolic links, so that nothing outside the directory is reached.
//!
//! Another program may replace a directory by a link at any moment, even between a check of a path and its use. So the
//! kernel checks and opens the path in one step: `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`. Where
//! `openat2` is unavailable (Linux before 5.6, some sandboxes), each directory on the path is opened with `O_NOFOLLOW`.
//! Mount points on the path are entered.
//!
//! The exception is a [`Root`] that [follows](Root::following) links: this root resolves paths as other programs do,
//! and so reaches the target of any link below it. [`trusted`] is for paths that the operator specified.

mod private;
mod trusted;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat, openat, openat2, statat};
use rustix::io::{Errno, Result};

pub use private::{open_private, take_from_others};
pub use trusted::open_trusted;

/// Maximum number of attempts when the kernel can't complete an open because of a concurrent rename.
const TRIES: usize = 16;

/// A directory from which paths start.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    follows: bool,
}

/// The parent directory of a path, and the last component of the path.
pub struct Holder<'a> {
    directory: Directory<'a>,
    /// The last component of the path; `.` for the root itself.
    pub name: &'a OsStr,
}

enum Directory<'a> {
    Root(BorrowedFd<'a>),
    Below(OwnedFd),
}

impl AsFd for Holder<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.directory {
            Directory::Root(root) => *root,
            Directory::Below(below) => below.as_fd(),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl From<OwnedFd> for Root {
    fn from(directory: OwnedFd) -> Self {
        Self { directory, follows: false }
    }
}

impl Root {
    /// Opens a directory as a root. Links in this path are followed, because the operator specified it.
    ///
    /// # Errors
    /// Any error of the kernel.
    pub fn open(path: &Path) -> Result<Self> {
        openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(Self::from)
    }

    /// Sets whether links below this root are followed, wherever they lead.
    #[must_use]
    pub fn following(self, follows: bool) -> Self {
        Self { follows, ..self }
    }

    /// Opens a path below this root.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` if the path contains a link, `EXDEV` if the path is absolute or leaves the root by `..`;
    /// any other error of the kernel.
    pub fn open_below(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        if self.follows {
            return openat(&self.directory, path, flags | OFlags::CLOEXEC, mode);
        }
        open_beneath(self.as_fd(), path, flags, mode)
    }

    /// Opens the parent directory of a path, so that the last component can be examined, removed or renamed there.
    ///
    /// # Errors
    /// As [`open_below`](Self::open_below).
    pub fn holder<'a>(&'a self, path: &'a Path) -> Result<Holder<'a>> {
        let name = path.file_name().unwrap_or(OsStr::new("."));
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            None => Ok(Holder { directory: Directory::Root(self.as_fd()), name }),
            Some(parent) => {
                let directory = self.open_below(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
                Ok(Holder { directory: Directory::Below(directory), name })
            }
        }
    }

    /// Returns the status of a path, without following a link in its last component.
    ///
    /// # Errors
    /// As [`open_below`](Self::open_below).
    pub fn stat(&self, path: &Path) -> Result<Stat> {
        let holder = self.holder(path)?;
        statat(&holder, holder.name, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Opens a path below a directory, following no link. `O_NOFOLLOW` and `O_CLOEXEC` are always set.
///
/// # Errors
/// As [`Root::open_below`].
pub fn open_beneath(from: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match openat2(from, path, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The kernel lacks `openat2`, or a sandbox forbids it.
            Err(Errno::NOSYS | Errno::PERM) => break,
            done => return done,
        }
    }
    walk(from, path, flags, mode)
}

/// Does the same as [`open_beneath`] without `openat2`, one component at a time. Rejects any `..`.
fn walk(from: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let mut directory: Option<OwnedFd> = None;
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        let name = match component {
            Component::Normal(name) => name,
            Component::CurDir => OsStr::new("."),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(Errno::XDEV),
        };
        let above = directory.as_ref().map_or(from, AsFd::as_fd);
        if components.peek().is_none() {
            return openat(above, name, flags, mode);
        }
        let way = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = Some(openat(above, name, way, Mode::empty())?);
    }
    Err(Errno::NOENT)
}

/// Returns whether an error means that the path does not exist: it is missing, or one of its directories is a file or a
/// link.
pub fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    type Open = fn(BorrowedFd<'_>, &Path, OFlags, Mode) -> Result<OwnedFd>;

    /// Creates `in/a/f`, `in/link -> a`, `in/out -> ../secret`, `in/a/up -> ..`, `secret/f`.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |below: &str| dir.path().join(below);
        fs::create_dir_all(at("in/a")).unwrap();
        fs::create_dir(at("secret")).unwrap();
        fs::write(at("in/a/f"), "f").unwrap();
        fs::write(at("secret/f"), "secret").unwrap();
        symlink("a", at("in/link")).unwrap();
        symlink("../secret", at("in/out")).unwrap();
        symlink("..", at("in/a/up")).unwrap();
        dir
    }

    #[test]
    fn no_link_is_followed_and_nothing_outside_is_reached_with_openat2_or_without() {
        let dir = tree();
        let root = Root::open(&dir.path().join("in")).unwrap();
        let without = |from: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode| {
            walk(from, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)
        };
        let ways: [Open; 2] = [open_beneath, without];
        for open in ways {
            let open = |path: &str| open(root.as_fd(), Path::new(path), OFlags::RDONLY, Mode::empty());
            assert!(open("a/f").is_ok() && open("a").is_ok() && open(".").is_ok());
            for outside in ["link/f", "out/f", "out", "link", "a/up/a/f"] {
                assert!(open(outside).is_err_and(is_absent), "{outside}");
            }
            assert_eq!(open("../secret/f").err(), Some(Errno::XDEV));
            assert_eq!(open("/etc/passwd").err(), Some(Errno::XDEV));
            assert_eq!(open("a/none").err(), Some(Errno::NOENT));
        }
    }

    #[test]
    fn a_holder_is_the_directory_of_a_path_and_only_links_that_are_meant_are_followed() {
        let dir = tree();
        let root = Root::open(&dir.path().join("in")).unwrap();
        assert_eq!(root.stat(Path::new("a/f")).unwrap().st_size, 1);
        assert!(root.stat(Path::new("out/f")).is_err_and(is_absent));
        assert_eq!(root.stat(Path::new("out")).unwrap().st_size, "../secret".len() as i64);
        assert_eq!(root.holder(Path::new(".")).unwrap().name, ".");
        let follows = Root::open(&dir.path().join("in")).unwrap().following(true);
        assert_eq!(follows.stat(Path::new("out/f")).unwrap().st_size, 6);
    }
}
