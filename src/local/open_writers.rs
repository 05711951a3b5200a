//! Detects whether a file is open for writing. Uses the following methods, the most reliable first:
//!
//! 1. The kernel's read leases. They are reliable, even for files that were opened before this program started. A lease
//!    needs ownership of the file or `CAP_LEASE`. On a shared file system it only shows the writers of this host.
//! 2. The watcher's events, which show that a file was written and not yet closed, or that it was closed.
//! 3. `/proc`, as far as it is readable; the files of other users' processes are readable only with privileges.
//! 4. The file's age, if nothing else can tell. The file must be unchanged for longer than its writer is likely to
//!    pause. This time grows with the time that the writing has taken so far, and with the file's size.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{fstatfs, statfs};

use super::open_files::OpenFiles;
use super::witness::{Seen, Witness};
use crate::names::RelPath;

/// Maximum age of a reading of `/proc`, and of the last check whether a file system is shared.
const PROC_AGE: Duration = Duration::from_secs(1);
/// For this long after its close event a file may still look open, because the kernel reports a close shortly before it
/// counts the file as closed. Such a file is checked again every `CLOSING_STEP`.
const CLOSING: Duration = Duration::from_millis(200);
const CLOSING_STEP: Duration = Duration::from_millis(2);
/// Minimum assumed speed of a writer that cannot be detected, in bytes per second.
const SLOW_WRITER: u64 = 4 << 20;
/// The longest time that a file must be unchanged, unless `SettleTime` is longer.
const LONGEST_QUIET: Duration = Duration::from_secs(600);
/// The longest time that a file must be unchanged before it retires, if it was closed only once.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// The types (`f_type`) of file systems that can change without this kernel's knowledge, because other hosts, or the
/// programs that implement the file system, write to them: AFS, AFS of the kernel's own module, Ceph, CIFS, Coda, FUSE,
/// GFS2, GPFS, Lustre, NFS, OCFS2, 9P, SMB, SMB 2 and VirtualBox's shared folders.
const SHARED: [u32; 15] = [
    0x5346_414F,
    0x6B41_4653,
    0x00C3_6400,
    0xFF53_4D42,
    0x7375_7245,
    0x6573_5546,
    0x0116_1970,
    0x4750_4653,
    0x0BD0_0BD0,
    0x6969,
    0x7461_636F,
    0x0102_1997,
    0x517B,
    0xFE53_4D42,
    0x786F_4256,
];

/// Whether a file may be taken in or moved away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No process has the file open for writing, as far as can be detected.
    Free,
    /// A process has the file open for writing.
    Open,
    /// Open writers cannot be detected; the file must stay unchanged for this much longer.
    Wait(Duration),
}

/// The last reading of `/proc`, with its time.
type ReadAt = (Instant, Arc<OpenFiles>);

/// The last check whether a device holds a shared file system: its time, the device, and the result.
type SharedAt = (Instant, u64, bool);

/// Detects writers of the files of one directory. Clones share their state.
#[derive(Clone, Debug)]
pub struct Writers {
    settle_time: Duration,
    witness: Witness,
    open_files: Arc<Mutex<Option<ReadAt>>>,
    shared: Arc<Mutex<Option<SharedAt>>>,
}

impl Writers {
    /// Creates a detector for a directory with this `SettleTime`.
    pub fn new(settle_time: Duration) -> Self {
        Self { settle_time, witness: Witness::default(), open_files: Arc::default(), shared: Arc::default() }
    }

    /// Returns the records of the watcher's events, which the watcher fills.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Decides whether a file may be taken in or moved away. `file` must be opened for reading only.
    pub fn judge(&self, path: &RelPath, file: &File, meta: &Metadata) -> Verdict {
        let shared = self.is_shared(file, meta.dev());
        match self.lease(path, file) {
            Some(true) => Verdict::Open,
            Some(false) if !shared => Verdict::Free,
            _ => self.judge_without_lease(path, meta),
        }
    }

    /// Returns whether a file is on a shared file system. Keeps the answer for the last device for 1 s, because many
    /// files of one directory are checked at once.
    fn is_shared(&self, file: &File, device: u64) -> bool {
        let mut last = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((at, of, shared)) if of == device && at.elapsed() < PROC_AGE => shared,
            _ => {
                let shared = fstatfs(file).is_ok_and(|fs| is_among_shared(fs.f_type));
                *last = Some((Instant::now(), device, shared));
                shared
            }
        }
    }

    /// Decides like [`judge`](Self::judge), if the kernel grants no lease on the file, or if the lease is not
    /// sufficient because the file system is shared.
    pub fn judge_without_lease(&self, path: &RelPath, meta: &Metadata) -> Verdict {
        match self.witness.seen(path) {
            Seen::Open if self.is_in_proc(meta) != Some(false) => return Verdict::Open,
            Seen::Closed(ago) if ago < self.keep() => return Verdict::Free,
            _ => {}
        }
        if self.is_in_proc(meta) == Some(true) {
            return Verdict::Open;
        }
        let needed = quiet_needed(self.settle_time, meta);
        match quiet_for(meta) {
            Some(quiet) => {
                needed.checked_sub(quiet).filter(|left| !left.is_zero()).map_or(Verdict::Free, Verdict::Wait)
            }
            // The file's ctime is far in the future, so the file's age is unknown. The shore's tasks have already found
            // the file unchanged in two checks (see `shore::settle`).
            None => Verdict::Free,
        }
    }

    /// Returns whether a file is open for writing, according to the kernel's leases alone; `None` if the kernel grants
    /// no lease on it.
    pub fn lease(&self, path: &RelPath, file: &File) -> Option<bool> {
        loop {
            let open = contentmonster_kernel::is_open_for_writing(file).ok()?;
            let closing = || matches!(self.witness.seen(path), Seen::Closed(ago) if ago < CLOSING);
            if !open || !closing() {
                return Some(open);
            }
            thread::sleep(CLOSING_STEP);
        }
    }

    /// Returns how long a file must be unchanged before it retires: `SettleTime`, but at most 10 s for a file that was
    /// closed only once. This leaves the writer time to reopen the file by name, or to change its mode or times.
    pub fn rest(&self, path: &RelPath) -> Duration {
        if self.witness.comes_back(path) { self.settle_time } else { self.settle_time.min(LONGEST_REST) }
    }

    /// Returns how long the close event of a file counts as proof that the file is closed.
    fn keep(&self) -> Duration {
        self.settle_time.max(LONGEST_REST) * 2
    }

    /// Drops expired records of the watcher's events.
    pub fn tidy(&self) {
        self.witness.tidy(self.keep());
    }

    /// Returns whether another process has the file open for writing, according to `/proc`; `None` if `/proc` does not
    /// show the files of all processes.
    fn is_in_proc(&self, meta: &Metadata) -> Option<bool> {
        let mut last = self.open_files.lock().unwrap_or_else(PoisonError::into_inner);
        let open_files = match &*last {
            Some((at, open_files)) if at.elapsed() < PROC_AGE => open_files.clone(),
            _ => {
                let open_files = Arc::new(OpenFiles::now());
                *last = Some((Instant::now(), open_files.clone()));
                open_files
            }
        };
        drop(last);
        open_files.holds((meta.dev(), meta.ino()))
    }
}

/// Returns whether a directory is on a file system that other hosts or programs can write to without this kernel's
/// knowledge.
pub fn is_shared(directory: &Path) -> bool {
    statfs(directory).is_ok_and(|fs| is_among_shared(fs.f_type))
}

/// Returns whether a file system type is in `SHARED`. Types have 32 bits; where the field is longer, they are
/// sign-extended.
fn is_among_shared(f_type: impl TryInto<i64>) -> bool {
    f_type.try_into().is_ok_and(|f_type| SHARED.contains(&(f_type as u32)))
}

/// Returns the time since the last change of a file's content or metadata (ctime). `None` if the ctime is more than 1 h
/// in the future, because the clock was set back or the time comes from another host's clock.
pub(super) fn quiet_for(meta: &Metadata) -> Option<Duration> {
    let at = |seconds: i64, nanos: i64| Duration::new(seconds.max(0) as u64, nanos.clamp(0, 999_999_999) as u32);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let changed = at(meta.ctime(), meta.ctime_nsec());
    match now.checked_sub(changed) {
        Some(quiet) => Some(quiet),
        None if changed - now > Duration::from_secs(3600) => None,
        None => Some(Duration::ZERO),
    }
}

/// Returns how long a file must be unchanged if open writers can't be detected: `SettleTime`, plus a quarter of the
/// time during which the file was written, plus a quarter of the time that a slow writer needs for a file of this size.
/// At most 10 min, unless `SettleTime` is longer.
fn quiet_needed(settle_time: Duration, meta: &Metadata) -> Duration {
    let written_for = match (meta.created(), meta.modified()) {
        (Ok(created), Ok(modified)) => modified.duration_since(created).unwrap_or_default(),
        _ => Duration::ZERO,
    };
    let grown = settle_time + written_for / 4 + Duration::from_secs(meta.len() / SLOW_WRITER) / 4;
    grown.min(LONGEST_QUIET.max(settle_time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn path() -> RelPath {
        RelPath::new("f").unwrap()
    }

    #[test]
    fn the_kernel_says_who_has_a_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let writers = Writers::new(Duration::from_secs(2));
        let mut writer = File::create(dir.path().join("f")).unwrap();
        let judge = || {
            let file = File::open(dir.path().join("f")).unwrap();
            writers.judge(&path(), &file, &file.metadata().unwrap())
        };
        assert_eq!(judge(), Verdict::Open);
        writer.write_all(b"x").unwrap();
        assert_eq!(judge(), Verdict::Open);
        drop(writer);
        assert_eq!(judge(), Verdict::Free);
    }

    #[test]
    fn without_a_lease_the_watch_tells_and_without_a_watch_time_does() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "x").unwrap();
        let meta = fs::metadata(dir.path().join("f")).unwrap();
        let writers = Writers::new(Duration::from_secs(3000));
        assert!(matches!(writers.judge_without_lease(&path(), &meta), Verdict::Wait(_)));
        writers.witness().closed(&path());
        assert_eq!(writers.judge_without_lease(&path(), &meta), Verdict::Free);
        assert_eq!(Writers::new(Duration::ZERO).judge_without_lease(&path(), &meta), Verdict::Free);
    }

    #[test]
    fn where_nobody_can_tell_a_large_file_must_be_quiet_for_longer() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        let settle = Duration::from_secs(2);
        let small = quiet_needed(settle, &file.metadata().unwrap());
        file.set_len(1 << 30).unwrap();
        let large = quiet_needed(settle, &file.metadata().unwrap());
        assert!(small >= settle && large > small * 10 && large <= LONGEST_QUIET, "{small:?} {large:?}");
    }
}
