//! Decides whether a delivered source may be moved away: no process has it open for writing, no writer is likely to
//! reopen it by name, and it is unchanged since the delivery. The source is checked before the move, and again after
//! it.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::Retired;
use crate::local::file_state::owner_of;
use crate::local::open_writers::{Verdict, Writers};
use crate::local::{mode_of, stamp_of};
use crate::records::Version;

/// The mode bits that are compared: the bits that every vessel sets.
const PERMISSIONS: u32 = 0o777;

/// The last change of a file's content or metadata (ctime): seconds since 1970 and nanoseconds, by the file system's
/// clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed(i64, i64);

impl Changed {
    /// Creates the time from seconds and nanoseconds since 1970.
    pub fn at(seconds: i64, nanos: i64) -> Self {
        Self(seconds, nanos)
    }

    /// Returns the time since the change; `None` if the change is in the future.
    pub fn ago(self) -> Option<Duration> {
        let since = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos();
        let ago = i128::try_from(now).ok()? - since(self.0, self.1);
        u64::try_from(ago).ok().map(Duration::from_nanos)
    }
}

/// A function that returns how much longer a version must stay in place, given the last change of its file; zero if the
/// file may be moved.
pub type Wait<'a> = &'a dyn Fn(&Version, Changed) -> Duration;

/// Decides whether sources may be moved away.
#[derive(Clone, Copy)]
pub struct MayRetire<'a> {
    /// Detects whether a file is still open for writing.
    pub writers: &'a Writers,
    /// A function that returns how much longer a file must stay in place.
    pub wait: Wait<'a>,
}

/// A source that may be moved away. The file is kept open.
pub(super) struct Source(File);

impl MayRetire<'_> {
    /// Returns the source if it may be moved away now; otherwise the reason, as the result of its retirement.
    pub(super) fn check(
        &self,
        directory: impl AsFd,
        name: &OsStr,
        version: &Version,
    ) -> rustix::io::Result<Result<Source, Retired>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(&directory, name, flags, Mode::empty()) {
            // A file without read permission can be moved nevertheless, but supports no lease.
            Err(Errno::ACCESS | Errno::PERM) => openat(&directory, name, flags | OFlags::PATH, Mode::empty()),
            opened => opened,
        };
        let file = match file {
            Err(Errno::NOENT) => return Ok(Err(Retired::SourceGone)),
            Err(Errno::LOOP | Errno::NXIO) => return Ok(Err(Retired::SourceChanged)),
            file => File::from(file?),
        };
        let meta = metadata(&file)?;
        if !is_as_delivered(&meta, version) {
            return Ok(Err(Retired::SourceChanged));
        }
        let wait = (self.wait)(version, Changed::at(meta.ctime(), meta.ctime_nsec()));
        if !wait.is_zero() {
            return Ok(Err(Retired::NotYet(wait)));
        }
        Ok(match self.writers.judge(&version.path, &file, &meta) {
            Verdict::Free => Ok(Source(file)),
            Verdict::Open => Err(Retired::InUse),
            Verdict::Wait(left) => Err(Retired::NotYet(left)),
        })
    }

    /// Repeats the check after the source was renamed, when other programs can no longer open it by its old name.
    /// Returns whether the source is still unchanged since the delivery and not known to be open for writing.
    pub(super) fn still_holds(&self, source: &Source, version: &Version) -> bool {
        let unchanged = metadata(&source.0).is_ok_and(|meta| is_as_delivered(&meta, version));
        unchanged && self.writers.lease(&version.path, &source.0) != Some(true)
    }
}

fn metadata(file: &File) -> rustix::io::Result<Metadata> {
    file.metadata().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn is_as_delivered(meta: &Metadata, version: &Version) -> bool {
    meta.is_file()
        && stamp_of(meta) == version.stamp
        && (mode_of(meta) ^ version.mode) & PERMISSIONS == 0
        && version.owner.is_none_or(|owner| owner == owner_of(meta))
}
