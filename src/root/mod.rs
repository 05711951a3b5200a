//! One way to reach a path below a directory: no symbolic link on the way is followed, and nothing outside is reached.
//!
//! Another program may rename a directory and put a link in its place at any moment, so that a path that was checked leads
//! elsewhere when it is used. Here the kernel checks and opens in one step: `openat2` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS`, and where there is none (Linux before 5.6, some sandboxes) a walk that opens each directory with
//! `O_NOFOLLOW`. File systems that are mounted below are entered.
//!
//! A [`Root`] that [follows](Root::following) links is the one exception: it resolves paths as every program does, and so
//! reaches whatever a link below it leads to. [`trusted`] is for paths that the operator gave.

mod private;
mod trusted;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat, openat, openat2, statat};
use rustix::io::{Errno, Result};

pub use private::{open_private, take_from_others};
pub use trusted::open_trusted;

/// How often an open is repeated that the kernel could not decide, because something was being renamed meanwhile.
const TRIES: usize = 16;

/// A directory that paths start from.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    follows: bool,
}

/// The directory that holds what a path names, and its name there.
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
    /// Opens a directory to start from. Links in this path are followed: it is the operator's.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(path: &Path) -> Result<Self> {
        openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(Self::from)
    }

    /// The same directory, with links below it followed wherever they lead if `follows`.
    #[must_use]
    pub fn following(self, follows: bool) -> Self {
        Self { follows, ..self }
    }

    /// Opens a path below.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` where a link is in the way, `EXDEV` for a path that leads out by `..`; what the kernel says.
    pub fn open_below(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        if self.follows {
            return openat(&self.directory, path, flags | OFlags::CLOEXEC, mode);
        }
        open_beneath(self.as_fd(), path, flags, mode)
    }

    /// Opens the directory that holds what a path names, so that the name can be looked at, removed or renamed there.
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

    /// What a path is, without following a link that is its last component.
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
            // A kernel without it, or a sandbox that forbids it.
            Err(Errno::NOSYS | Errno::PERM) => break,
            done => return done,
        }
    }
    walk(from, path, flags, mode)
}

/// The same, one component at a time.
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

/// Whether an error says that nothing has the name: it is missing, or what should be a directory above it is a file or link.
pub fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    type Open = fn(BorrowedFd<'_>, &Path, OFlags, Mode) -> Result<OwnedFd>;

    /// `in/a/f`, `in/link -> a`, `in/out -> ../secret`, `in/a/up -> ..`, `secret/f`.
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
