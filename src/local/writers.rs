//! Does anybody have a file open for writing? Asks whoever can tell, the surest first.
//!
//! 1. The kernel, by a read lease: sure, and the only one that knows what was opened before this program started. It needs
//!    ownership of the file or `CAP_LEASE`. Of a file system that other hosts write to, it knows the writers of this host.
//! 2. The watch, which saw a file written to and not closed, or closed.
//! 3. `/proc`, as far as it can be read, which for other users' programs needs rights, too.
//! 4. Where none of them can tell, time: nobody has changed the file for longer than its writer is likely to pause. That
//!    grows with how long the file was being written, and with its size.

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

/// For how long `/proc` is not read again.
const PROC_AGE: Duration = Duration::from_secs(1);
/// The kernel tells of a close a moment before it counts the file as closed.
const CLOSING: Duration = Duration::from_millis(200);
const CLOSING_STEP: Duration = Duration::from_millis(2);
/// How fast a writer is thought to be at the least where nobody can tell whether it is still at work, in bytes per second.
const SLOW_WRITER: u64 = 4 << 20;
/// The longest that a file must have been quiet, unless `SettleTime` is longer.
const LONGEST_QUIET: Duration = Duration::from_secs(600);
/// The longest that a file which was closed once is left alone before it retires.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// File systems that other hosts, or programs behind them, write to without this kernel's knowledge: `f_type` of AFS, its
/// kernel module, Ceph, CIFS, Coda, FUSE, GFS2, GPFS, Lustre, NFS, OCFS2, 9P, SMB, SMB 2 and VirtualBox's shared folders.
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

/// Whether a file may be taken, or moved away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody has it open for writing, as far as anybody can tell.
    Free,
    /// Somebody has it open for writing.
    Open,
    /// Nobody can tell; it must stay unchanged for so much longer.
    Wait(Duration),
}

/// What `/proc` said, and when.
type ReadAt = (Instant, Arc<OpenFiles>);

/// Tells who writes to the files of one directory. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Writers {
    settle_time: Duration,
    witness: Witness,
    open_files: Arc<Mutex<Option<ReadAt>>>,
}

impl Writers {
    /// For a directory with this `SettleTime`.
    pub fn new(settle_time: Duration) -> Self {
        Self { settle_time, witness: Witness::default(), open_files: Arc::default() }
    }

    /// What the watch enters its states in.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Whether an open file may be taken in or moved away. `file` must be open for reading only.
    pub fn judge(&self, path: &RelPath, file: &File, meta: &Metadata) -> Verdict {
        let shared = fstatfs(file).is_ok_and(|fs| is_among_shared(fs.f_type));
        match self.lease(path, file) {
            Some(true) => Verdict::Open,
            Some(false) if !shared => Verdict::Free,
            _ => self.judge_without_lease(path, meta),
        }
    }

    /// The same for what could not be opened, or has no lease.
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
            // A clock that is far ahead tells nothing; that it holds still was seen by two looks.
            None => Verdict::Free,
        }
    }

    /// Whether somebody has a file open for writing, going by the kernel alone; `None` where it can't tell.
    pub fn lease(&self, path: &RelPath, file: &File) -> Option<bool> {
        loop {
            let open = contentmonster_lease::is_open_for_writing(file).ok()?;
            let closing = || matches!(self.witness.seen(path), Seen::Closed(ago) if ago < CLOSING);
            if !open || !closing() {
                return Some(open);
            }
            thread::sleep(CLOSING_STEP);
        }
    }

    /// How long a file must have been left alone before it retires: its writer may come back to it by its name, or change
    /// its mode or time. `SettleTime`; of a file that was closed once, 10 s at the most.
    pub fn rest(&self, path: &RelPath) -> Duration {
        if self.witness.comes_back(path) { self.settle_time } else { self.settle_time.min(LONGEST_REST) }
    }

    /// How long what was seen of a closed file counts.
    fn keep(&self) -> Duration {
        self.settle_time.max(LONGEST_REST) * 2
    }

    /// Drops what counts no more.
    pub fn tidy(&self) {
        self.witness.tidy(self.keep());
    }

    /// Whether a program other than this one has the file open for writing, going by `/proc`; `None` where that can't tell.
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

/// Whether a directory lies on a file system that others may write to without this kernel's knowledge.
pub fn is_shared(directory: &Path) -> bool {
    statfs(directory).is_ok_and(|fs| is_among_shared(fs.f_type))
}

/// What the kernel calls a type is 32 bits long, and sign-extended where the field is longer.
fn is_among_shared(f_type: impl TryInto<i64>) -> bool {
    f_type.try_into().is_ok_and(|f_type| SHARED.contains(&(f_type as u32)))
}

/// How long ago the kernel last noted a change of a file, of its bytes or of anything else; `None` when that lies more than an
/// hour in the future, so that the clock was set back or is another's.
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

/// How long a file must have been quiet where nobody can tell whether it is open: `SettleTime`, a fourth of the time that it was
/// being written for, and what a slow writer needs for a fourth of its size; at most 10 min, unless `SettleTime` is longer.
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
