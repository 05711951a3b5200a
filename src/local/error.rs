//! Errors of the shore's disk, and their remedies.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Kind;
use crate::fault::{Cause, Fault, Pace};
use crate::names::display_bytes;

/// An error of the shore's disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A call on a file, or on a directory below a location, failed.
    #[error("can't {act} {}: {source}", shown(path))]
    Io {
        /// The action that failed, a verb.
        act: &'static str,
        /// The path concerned.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A directory's location can't be used at all.
    #[error("can't {act} the directory {}: {source}", shown(path))]
    Location {
        /// The action that failed, a verb.
        act: &'static str,
        /// The location.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The file has changed: it is shorter than expected, or its stamp differs.
    #[error("{} changed while it was being read", shown(path))]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The path is not a regular file.
    #[error("{} is not a regular file but a {kind}", shown(path))]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// The actual kind of the path.
        kind: Kind,
    },
    /// `processed/` can't be used.
    #[error("cannot retire into {}: {why}", shown(path))]
    Processed {
        /// The expected path of `processed/`.
        path: PathBuf,
        /// Why `processed/` can't be used.
        why: &'static str,
    },
    /// `processed` is a link that other users may have created or may replace.
    #[error("cannot retire into {}: {why}", shown(path))]
    ProcessedLink {
        /// The expected path of `processed/`.
        path: PathBuf,
        /// Why the link is not followed.
        why: &'static str,
    },
    /// The file system has not answered for more than 2 s.
    #[error("the file system of {} does not answer", shown(path))]
    Silent {
        /// The location.
        path: PathBuf,
    },
    /// The caller asked to stop.
    #[error("stopped while reading {}", shown(path))]
    Stopped {
        /// The file that was being read.
        path: PathBuf,
    },
    /// The kernel grants no more inotify watches or instances.
    #[error("can't watch the directory {}: the kernel's limit {sysctl} is reached", shown(path))]
    WatchLimit {
        /// The location that is not watched.
        path: PathBuf,
        /// The name of the sysctl limit.
        sysctl: &'static str,
    },
}

impl DiskError {
    /// Wraps a failed call; accepts errors of `rustix` and of `std`.
    pub(super) fn io(act: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { act, path: path.into(), source: source.into() }
    }

    /// Returns whether the file, or a directory above it, does not exist.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Io { source, .. } if gone(source))
    }

    /// Converts the error to a fault. The fault's scope says whether the file is parked, or whether the attempt is
    /// repeated once the shore is repaired.
    pub fn fault(&self) -> Fault {
        self.sorted().of(Cause::Source)
    }

    fn sorted(&self) -> Fault {
        match self {
            Self::Changed { .. } => Fault::file(self).at(Pace::Soon),
            Self::NotAFile { .. } => {
                Fault::file(self).mend("put a regular file in its place; only regular files are delivered")
            }
            Self::Stopped { .. } => Fault::attempt(self),
            Self::Silent { .. } => Fault::attempt(self)
                .at(Pace::Slow)
                .mend("restore the file server, or unmount the file system (umount -l); its files are sent when it answers again"),
            Self::Processed { path, .. } => Fault::file(self).at(Pace::Unhurried).mend(format_args!(
                "move {} away, and create a directory there that contentmonster may write to",
                shown(path)
            )),
            Self::ProcessedLink { path, .. } => Fault::file(self).at(Pace::Unhurried).mend(format_args!(
                "make root the owner of {link} (chown -h) and let only root and contentmonster's user write to its \
                 directory, or replace it with a directory and mount the archive there (mount --bind); until then the \
                 files stay where they are",
                link = shown(path)
            )),
            Self::WatchLimit { sysctl, .. } => Fault::attempt(self).at(Pace::Unhurried).mend(watch_remedy(sysctl)),
            Self::Location { path, source, .. } => location_fault(self, path, source),
            Self::Io { path, source, .. } => io_fault(self, path, source),
        }
    }
}

fn watch_remedy(sysctl: &str) -> String {
    let enough = if sysctl.ends_with("instances") { 1024 } else { 524_288 };
    format!(
        "raise the limit with `sysctl -w {sysctl}={enough}`, and write it to a file in /etc/sysctl.d; until then \
         changes are only found by a scan every RescanInterval"
    )
}

fn location_fault(error: &DiskError, path: &Path, source: &io::Error) -> Fault {
    let fault = Fault::attempt(error).at(Pace::Unhurried);
    match Errno::from_io_error(source) {
        Some(Errno::NOENT | Errno::NOTDIR) => {
            fault.mend(format_args!("create the directory {}, or correct its Location in the settings", shown(path)))
        }
        Some(Errno::ACCESS | Errno::PERM) => {
            fault.mend(format_args!("give contentmonster's user read and write access to {}", shown(path)))
        }
        _ => io_fault(error, path, source).at(Pace::Unhurried),
    }
}

fn io_fault(error: &DiskError, path: &Path, source: &io::Error) -> Fault {
    let waits = || Fault::attempt(error).at(Pace::Unhurried);
    match Errno::from_io_error(source) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Fault::file(error).at(Pace::Soon),
        Some(Errno::NOSPC | Errno::DQUOT) => {
            waits().mend(format_args!("free some space on the shore, on the file system of {}", shown(path)))
        }
        Some(Errno::ROFS) => waits().mend(format_args!("remount the file system of {} read-write", shown(path))),
        Some(Errno::ACCESS | Errno::PERM) => Fault::file(error)
            .at(Pace::Unhurried)
            .mend(format_args!("give contentmonster's user access to {} and its directory", shown(path))),
        Some(Errno::IO) => Fault::file(error).mend("the error comes from a disk of this host; check the kernel's log"),
        Some(Errno::NAMETOOLONG) => Fault::file(error).mend("shorten the file's name"),
        Some(Errno::MFILE | Errno::NFILE) => {
            waits().mend("raise the limit of open files (LimitNOFILE= in the systemd unit, or `ulimit -n`)")
        }
        _ => Fault::attempt(error),
    }
}

/// Returns whether the error means that the path does not exist.
pub(super) fn gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR))
}

/// Formats a path for people, on one line.
fn shown(path: &Path) -> String {
    display_bytes(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Scope;

    fn of(errno: Errno) -> Fault {
        DiskError::io("open", Path::new("/srv/a\nb"), errno).fault()
    }

    #[test]
    fn a_fault_says_what_where_and_what_to_do() {
        let full = of(Errno::NOSPC);
        assert_eq!((full.scope, full.pace), (Scope::Attempt, Pace::Unhurried));
        assert!(full.reason.starts_with("can't open /srv/a\\nb: "), "{full}");
        assert!(full.remedy.contains("free some space"), "{full}");
        assert_eq!(of(Errno::NOENT).scope, Scope::File);
        assert_eq!(of(Errno::ACCESS).scope, Scope::File);
        assert_eq!(of(Errno::STALE).scope, Scope::Attempt);
        let missing = DiskError::Location { act: "list", path: "/srv/x".into(), source: Errno::NOENT.into() };
        assert!(missing.fault().remedy.contains("correct its Location"));
    }

    #[test]
    fn a_watch_limit_names_the_sysctl_and_what_goes_on() {
        let limit = DiskError::WatchLimit { path: "/srv".into(), sysctl: "fs.inotify.max_user_watches" };
        let text = limit.fault().to_string();
        assert!(text.contains("sysctl -w fs.inotify.max_user_watches=524288"), "{text}");
        assert!(text.contains("RescanInterval"), "{text}");
    }
}
