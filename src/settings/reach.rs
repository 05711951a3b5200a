//! Resolves a path on this host by looking it up on the disk: follows symbolic links, `..` and bind mounts.
//!
//! Two sections can name the same directory by different paths. A path that doesn't exist yet is resolved from its
//! nearest existing ancestor. A disk that hangs must not delay the reading of the settings, so each path is resolved in
//! its own thread, with a deadline.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long to wait for all paths that are resolved at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum number of paths that are resolved at once.
const AT_ONCE: usize = 64;

/// A path with all equivalent paths to the same directory or file.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    /// Absolute paths without links, `.` and `..`: first the resolved path, then its equivalents through bind mounts.
    ways: Vec<PathBuf>,
    /// Whether the path is a file, according to the disk.
    pub(super) is_file: bool,
    /// Whether the disk responded in time.
    pub(super) answered: bool,
}

impl Reach {
    /// Resolves paths. If a disk doesn't respond in time, only `.` and `..` of its paths are resolved.
    pub(super) fn of(paths: &[PathBuf]) -> Vec<Self> {
        let mounts = Arc::new(mounts(&fs::read("/proc/self/mountinfo").unwrap_or_default()));
        paths.chunks(AT_ONCE).flat_map(|some| Self::of_some(some, &mounts)).collect()
    }

    fn of_some(paths: &[PathBuf], mounts: &Arc<Vec<Mount>>) -> Vec<Self> {
        let (sender, answers) = mpsc::channel();
        let mut reaches: Vec<_> = paths.iter().map(|path| Self::as_written(path)).collect();
        let mut waiting = 0;
        for (at, path) in paths.iter().cloned().enumerate() {
            let (sender, mounts) = (sender.clone(), mounts.clone());
            let asking = std::thread::Builder::new().name("resolve".to_owned());
            // Sending fails after the deadline, when the receiver no longer exists.
            let asked = asking.spawn(move || drop(sender.send((at, Self::resolve(&path, &mounts)))));
            waiting += usize::from(asked.is_ok());
        }
        let deadline = Instant::now() + PATIENCE;
        while waiting > 0
            && let Ok((at, reach)) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            reaches[at] = reach;
            waiting -= 1;
        }
        reaches
    }

    fn as_written(path: &Path) -> Self {
        Self { ways: vec![plain(path)], is_file: false, answered: false }
    }

    fn resolve(path: &Path, mounts: &[Mount]) -> Self {
        let real = follow(path);
        let mut ways = vec![real.clone()];
        // Determines the path inside the file system, and from it the path below each other mount point of that file
        // system.
        let existing = real.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let rest = real.strip_prefix(existing).unwrap_or(Path::new(""));
        let homes = mounts.iter().filter(|mount| existing.starts_with(&mount.point));
        if let Some(home) = homes.max_by_key(|mount| mount.point.components().count()) {
            let inside = home.root.join(existing.strip_prefix(&home.point).unwrap_or(Path::new("")));
            for mount in mounts.iter().filter(|mount| mount.device == home.device) {
                let Ok(below) = inside.strip_prefix(&mount.root) else { continue };
                let other = joined(&mount.point, below);
                // Compares the device and inode of both directories, because `other` leads elsewhere if another mount
                // hides the mount point.
                let way = joined(&other, rest);
                if !ways.contains(&way) && identity(&other).is_some_and(|id| Some(id) == identity(existing)) {
                    ways.push(way);
                }
            }
        }
        Self { ways, is_file: real.is_file(), answered: true }
    }

    /// Returns the path of `other` relative to this path: empty if they are equal, `None` if `other` isn't below this
    /// path.
    pub(super) fn holds(&self, other: &Self) -> Option<PathBuf> {
        let ways = self.ways.iter().flat_map(|own| other.ways.iter().map(move |way| way.strip_prefix(own)));
        ways.flatten().min_by_key(|below| below.components().count()).map(Path::to_owned)
    }

    /// Creates a `Reach` for a path on a vessel, which can't be resolved from here.
    pub(super) fn elsewhere(path: PathBuf) -> Self {
        Self { ways: vec![path], is_file: false, answered: true }
    }

    /// Returns the path `name` below this directory or, if this is a file, below the file's directory.
    pub(super) fn beside_or_below(&self, name: &str) -> Self {
        let base = |way: &PathBuf| if self.is_file { way.parent().unwrap_or(way).join(name) } else { way.join(name) };
        Self { ways: self.ways.iter().map(base).collect(), is_file: false, answered: self.answered }
    }
}

/// Resolves `.`, `..` and links in a path, as far as the path exists.
fn follow(path: &Path) -> PathBuf {
    let mut real = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                real.push(name);
                if let Ok(leads_to) = fs::canonicalize(&real) {
                    real = leads_to;
                }
            }
            Component::ParentDir => drop(real.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    real
}

/// Resolves `.` and `..` in a path without the disk.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    plain
}

/// Joins paths. `Path::join` with an empty path would append a slash.
fn joined(path: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// A mounted file system, or a part of one.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// `major:minor`.
    device: Vec<u8>,
    /// The mounted directory, as a path inside the file system.
    root: PathBuf,
    /// The mount point.
    point: PathBuf,
}

/// Parses `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn mounts(text: &[u8]) -> Vec<Mount> {
    let mount = |line: &[u8]| {
        let mut fields = line.split(|b| *b == b' ').skip(2);
        let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Mount { device: device.to_owned(), root: unescaped(root), point: unescaped(point) })
    };
    text.split(|b| *b == b'\n').filter_map(mount).collect()
}

/// Decodes blanks, tabs, line feeds and backslashes, which are written as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'\\').then(|| after.get(..3)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes).into()
}

/// Removes `.` and `..` from a path on a vessel. Links are not resolved, because that is impossible from here.
pub(super) fn remote(path: &[u8]) -> PathBuf {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let mut components = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir if components.file_name().is_some() => drop(components.pop()),
            Component::ParentDir if components.has_root() => {}
            Component::CurDir => {}
            other => components.push(other),
        }
    }
    components
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn reach(path: impl Into<PathBuf>) -> Reach {
        Reach::of(&[path.into()]).remove(0)
    }

    #[test]
    fn a_path_is_known_through_links_and_dots_and_when_it_does_not_exist_yet() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        fs::create_dir_all(place("shore/outbox")).unwrap();
        symlink("shore/outbox", place("link")).unwrap();
        fs::write(place("shore/file"), "").unwrap();
        let shore = reach(place("shore"));
        for (path, below) in [
            ("shore/../link", "outbox"),
            ("link/../", ""),
            ("link/new/../later/deep", "outbox/later/deep"),
            ("./shore", ""),
        ] {
            assert_eq!(shore.holds(&reach(place(path))).as_deref(), Some(Path::new(below)), "{path}");
        }
        assert!(shore.holds(&reach(place("shoreline"))).is_none());
        assert!(reach(place("link")).holds(&shore).is_none());
        assert!(reach(place("shore/file")).is_file && !shore.is_file);
        let beside = reach(place("shore/file")).beside_or_below("processed");
        assert_eq!(shore.holds(&beside).as_deref(), Some(Path::new("processed")));
    }

    #[test]
    fn mount_points_are_read_with_what_is_escaped_in_them() {
        let text = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw\nnonsense\n";
        let mount = Mount { device: b"98:0".to_vec(), root: "/mnt1".into(), point: "/mnt 2".into() };
        assert_eq!(mounts(text), [mount]);
    }

    #[test]
    fn paths_on_a_vessel_are_compared_by_their_components() {
        for (path, components) in
            [("/in//a/./b/", "/in/a/b"), ("in/../out", "out"), ("../up", "../up"), ("/..", "/"), ("./x", "x")]
        {
            assert_eq!(remote(path.as_bytes()), Path::new(components), "{path}");
        }
    }
}
