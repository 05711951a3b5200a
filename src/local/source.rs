//! Reading source files: at offsets for the chunks, and once from end to end to hash them.
//!
//! A path is opened so that nothing swapped in can hurt: a link is not followed, a pipe doesn't hang. Knows nothing of
//! the ledger and of who wants the bytes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::Errno;

use super::scan::{Kind, Look, look, require};
use super::{DiskError, mode_of, stamp_of};
use crate::digest::{FileDigests, FileHasher};
use crate::names::RelPath;
use crate::records::{FileStamp, NewVersion};

/// How much is read at once while hashing: 1 MiB.
const READ_SIZE: u64 = 1 << 20;

/// The longest step of the clock that the kernel stamps files with (HZ = 100).
const CLOCK_STEP: Duration = Duration::from_millis(10);

/// An open source file. Share it in an `Arc`: reading takes `&self` and moves no position.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
    path: PathBuf,
}

impl SourceFile {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`DiskError::NotAFile`] for anything but a regular file (a link is none); [`DiskError::is_gone`] holds when
    /// nothing has the name.
    pub fn open(location: &Path, path: &RelPath) -> Result<Self, DiskError> {
        let whole = location.join(path.as_path());
        // NONBLOCK: opening a pipe that nobody writes to would wait for ever.
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&whole);
        let file = file.map_err(|error| unopened(location, path, &whole, error))?;
        let meta = file.metadata().map_err(|error| DiskError::io("look at", &whole, error))?;
        if !meta.is_file() {
            return Err(DiskError::NotAFile { path: whole, kind: Kind::of(meta.file_type()) });
        }
        // Only advice: more is read ahead; what doesn't know it does without.
        fadvise(&file, 0, None, Advice::Sequential).ok();
        Ok(Self { file, path: whole })
    }

    /// Its stamp now, of the open file, whatever has its name by now.
    pub fn stamp(&self) -> Result<FileStamp, DiskError> {
        self.metadata().map(|meta| stamp_of(&meta))
    }

    /// Its permission bits now (`0o7777`).
    pub fn mode(&self) -> Result<u32, DiskError> {
        self.metadata().map(|meta| mode_of(&meta))
    }

    /// What the kernel says of the open file now.
    pub(super) fn metadata(&self) -> Result<fs::Metadata, DiskError> {
        self.file.metadata().map_err(|error| DiskError::io("look at", &self.path, error))
    }

    /// Flushes its bytes to the disk.
    pub(super) fn flush(&self) -> Result<(), DiskError> {
        self.file.sync_all().map_err(|error| DiskError::io("flush", &self.path, error))
    }

    /// Reads just `len` bytes from `offset`.
    ///
    /// # Errors
    /// [`DiskError::Changed`] when the file ends before that.
    pub fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            // The allocator may have given more room than asked for: what is read too much is cut off below.
            match rustix::io::pread(&self.file, spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(DiskError::Changed { path: self.path.clone() }),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(DiskError::io("read", &self.path, errno)),
            }
        }
        bytes.truncate(len);
        Ok(bytes.into())
    }

    /// Passes the first `size` bytes in order to `take`, in pieces of at most 1 MiB.
    ///
    /// # Errors
    /// [`DiskError::Changed`] when the file is shorter, [`DiskError::Stopped`] when `stop` says so, whatever `take` says.
    pub(super) fn each_piece(
        &self,
        size: u64,
        stop: &dyn Fn() -> bool,
        take: &mut dyn FnMut(&[u8]) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let mut buffer = vec![0; usize::try_from(size.min(READ_SIZE)).expect("1 MiB at most")];
        let mut offset = 0;
        while offset < size {
            if stop() {
                return Err(DiskError::Stopped { path: self.path.clone() });
            }
            let piece = (size - offset).min(READ_SIZE) as usize;
            self.file.read_exact_at(&mut buffer[..piece], offset).map_err(|error| self.unread(error))?;
            take(&buffer[..piece])?;
            offset += piece as u64;
        }
        Ok(())
    }

    fn unread(&self, error: io::Error) -> DiskError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => DiskError::Changed { path: self.path.clone() },
            _ => DiskError::io("read", &self.path, error),
        }
    }
}

/// Opening a link says ELOOP and a socket ENXIO: what the name stands for tells more than the errno.
fn unopened(location: &Path, path: &RelPath, whole: &Path, error: io::Error) -> DiskError {
    match look(location, path) {
        Ok(Look::NotAFile(kind)) => DiskError::NotAFile { path: whole.into(), kind },
        _ => DiskError::io("open", whole, error),
    }
}

/// Hashes a file and its chunks, reading it once. As many bytes are hashed as the file had when this began.
///
/// `stop` is asked before every MiB.
///
/// # Errors
/// [`DiskError::Changed`] when the file got shorter, [`DiskError::Stopped`] when `stop` said so.
pub fn hash(source: &SourceFile, chunk_size: u64, stop: &dyn Fn() -> bool) -> Result<FileDigests, DiskError> {
    let mut hasher = FileHasher::new(chunk_size);
    source.each_piece(source.stamp()?.size, stop, &mut |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// What came of taking in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeIn {
    /// A whole version: its stamp was the same before and after it was hashed, and it still has its name.
    Version(NewVersion),
    /// It changed meanwhile, or was replaced: try again when it is quiet.
    Changing,
    /// Nothing has the name (any more).
    Gone,
    /// What has the name is no regular file.
    NotAFile(Kind),
}

/// Reads a file once and makes a version of it, if it holds still for that long.
///
/// Waits up to 10 ms when the file was written to just now: a change within the same step of the kernel's clock would
/// not show in its mtime.
///
/// # Errors
/// [`DiskError::Stopped`] when `stop` said so; [`DiskError::Location`] when the whole location is missing, which is not
/// the same as a file that is gone; what the disk says.
pub fn take_in(location: &Path, path: &RelPath, chunk_size: u64, stop: &dyn Fn() -> bool) -> Result<TakeIn, DiskError> {
    match hash_still(location, path, chunk_size, stop) {
        Err(DiskError::Changed { .. }) => Ok(TakeIn::Changing),
        Err(DiskError::NotAFile { kind, .. }) => Ok(TakeIn::NotAFile(kind)),
        Err(error) if error.is_gone() => require(location).map(|()| TakeIn::Gone),
        outcome => outcome,
    }
}

fn hash_still(location: &Path, path: &RelPath, chunk_size: u64, stop: &dyn Fn() -> bool) -> Result<TakeIn, DiskError> {
    let source = SourceFile::open(location, path)?;
    wait_for_the_clock(&source)?;
    let before = source.stamp()?;
    let digests = hash(&source, chunk_size, stop)?;
    let after = source.metadata()?;
    if stamp_of(&after) != before {
        return Ok(TakeIn::Changing);
    }
    match look(location, path)? {
        Look::File { stamp, .. } if stamp == before => {}
        Look::File { .. } => return Ok(TakeIn::Changing),
        Look::Gone => return Ok(TakeIn::Gone),
        Look::NotAFile(kind) => return Ok(TakeIn::NotAFile(kind)),
    }
    Ok(TakeIn::Version(NewVersion {
        path: path.clone(),
        stamp: before,
        mode: mode_of(&after),
        digest: digests.file,
        chunk_size,
        chunks: digests.chunks,
    }))
}

/// Lets the step of the clock pass in which the file was last written.
fn wait_for_the_clock(source: &SourceFile) -> Result<(), DiskError> {
    let written = source.metadata()?.modified().ok();
    let age = written.and_then(|at| SystemTime::now().duration_since(at).ok());
    if let Some(left) = age.and_then(|age| CLOCK_STEP.checked_sub(age)) {
        thread::sleep(left);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use std::cell::Cell;
    use std::ffi::OsStr;
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Arc;

    struct Shore(tempfile::TempDir);

    impl Shore {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn at(&self, name: &[u8]) -> PathBuf {
            self.0.path().join(OsStr::from_bytes(name))
        }

        fn put(&self, name: &[u8], bytes: &[u8]) -> RelPath {
            fs::write(self.at(name), bytes).unwrap();
            RelPath::new(name).unwrap()
        }

        fn take_in(&self, path: &RelPath, stop: &dyn Fn() -> bool) -> TakeIn {
            take_in(self.0.path(), path, 1000, stop).unwrap()
        }
    }

    fn go_on() -> bool {
        false
    }

    #[test]
    fn a_quiet_file_becomes_a_version_with_digests_of_whole_and_chunks() {
        let shore = Shore::new();
        let bytes: Vec<u8> = (0..2_500_000u32).map(|n| (n % 251) as u8).collect();
        let path = shore.put(b"caf\xe9\n", &bytes);
        fs::set_permissions(shore.at(path.as_bytes()), fs::Permissions::from_mode(0o640)).unwrap();
        let TakeIn::Version(version) = shore.take_in(&path, &go_on) else { panic!("not taken in") };
        assert_eq!(version.digest, Digest::of(&bytes));
        assert_eq!(version.chunks, bytes.chunks(1000).map(Digest::of).collect::<Vec<_>>());
        assert_eq!((version.mode, version.stamp.size, &version.path), (0o640, 2_500_000, &path));
    }

    #[test]
    fn an_empty_file_is_a_version_without_chunks() {
        let shore = Shore::new();
        let path = shore.put(b"empty", b"");
        let TakeIn::Version(version) = shore.take_in(&path, &go_on) else { panic!("not taken in") };
        assert_eq!((version.digest, version.chunks.len()), (Digest::of(b""), 0));
    }

    /// Takes in a file of 3 MiB to which `change` happens once, after its first MiB.
    fn taken_in_while(change: impl Fn(&Shore, &Path)) -> TakeIn {
        let shore = Shore::new();
        let path = shore.put(b"f", &[7; 3 << 20]);
        let asked = Cell::new(0);
        shore.take_in(&path, &|| {
            asked.set(asked.get() + 1);
            if asked.get() == 2 {
                change(&shore, &shore.at(b"f"));
            }
            false
        })
    }

    #[test]
    fn a_file_that_changes_while_it_is_hashed_is_no_version() {
        let appended = taken_in_while(|_, path| {
            OpenOptions::new().append(true).open(path).unwrap().write_all(b"x").unwrap();
        });
        assert_eq!(appended, TakeIn::Changing);
        let overwritten = taken_in_while(|_, path| {
            OpenOptions::new().write(true).open(path).unwrap().write_all(b"x").unwrap();
        });
        assert_eq!(overwritten, TakeIn::Changing);
        let cut = taken_in_while(|_, path| OpenOptions::new().write(true).open(path).unwrap().set_len(9).unwrap());
        assert_eq!(cut, TakeIn::Changing);
        let replaced = taken_in_while(|shore, path| {
            shore.put(b"g", &[7; 3 << 20]);
            fs::rename(shore.at(b"g"), path).unwrap();
        });
        assert_eq!(replaced, TakeIn::Changing);
    }

    #[test]
    fn a_file_that_vanishes_or_becomes_a_link_while_it_is_hashed_is_no_version() {
        assert_eq!(taken_in_while(|_, path| fs::remove_file(path).unwrap()), TakeIn::Gone);
        let linked = taken_in_while(|_, path| {
            fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        });
        assert_eq!(linked, TakeIn::NotAFile(Kind::Symlink));
    }

    #[test]
    fn what_is_no_regular_file_is_not_read_and_does_not_hang() {
        let shore = Shore::new();
        let take_in = |name: &str| shore.take_in(&RelPath::new(name).unwrap(), &go_on);
        shore.put(b"f", b"secret");
        symlink("f", shore.at(b"link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, shore.at(b"pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(shore.at(b"socket")).unwrap();
        assert_eq!(take_in("link"), TakeIn::NotAFile(Kind::Symlink));
        assert_eq!(take_in("pipe"), TakeIn::NotAFile(Kind::Fifo));
        assert_eq!(take_in("socket"), TakeIn::NotAFile(Kind::Socket));
        assert_eq!(take_in("..."), TakeIn::Gone);
        assert_eq!(take_in("f/below"), TakeIn::Gone);
    }

    #[test]
    fn hashing_stops_when_told() {
        let shore = Shore::new();
        let path = shore.put(b"f", b"abc");
        let source = SourceFile::open(shore.0.path(), &path).unwrap();
        assert!(matches!(hash(&source, 10, &|| true), Err(DiskError::Stopped { .. })));
    }

    #[test]
    fn ranges_are_read_exactly_and_from_several_threads() {
        let shore = Shore::new();
        let path = shore.put(b"f", b"0123456789");
        let source = Arc::new(SourceFile::open(shore.0.path(), &path).unwrap());
        let other = Arc::clone(&source);
        let there = thread::spawn(move || other.read_at(8, 2).unwrap());
        assert_eq!(&source.read_at(2, 3).unwrap()[..], b"234");
        assert_eq!(&there.join().unwrap()[..], b"89");
        assert!(source.read_at(10, 0).unwrap().is_empty());
        assert!(matches!(source.read_at(8, 3), Err(DiskError::Changed { .. })));
        fs::remove_file(shore.at(b"f")).unwrap();
        assert_eq!(&source.read_at(0, 10).unwrap()[..], b"0123456789");
    }
}
