//! Reads source files: at offsets to send chunks, and once from start to end to hash them.
//!
//! Files are opened in a way that is safe if another program replaces the path: links are not followed unless the
//! settings say so, and a named pipe doesn't block.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, Mode, OFlags, fadvise, fstat};
use rustix::io::Errno;

use super::file_state::{FileState, Kind, file_state, open_location};
use super::open_writers::{Verdict, Writers};
use super::{DiskError, stamp_of};
use crate::digest::{Digest, FileDigests, FileHasher, Hasher};
use crate::names::RelPath;
use crate::records::FileStamp;
use crate::root::{Root, open_beneath};

/// Read size while hashing: 1 MiB.
const READ_SIZE: u64 = 1 << 20;

/// Flags for opening a source. `NONBLOCK`, because opening a named pipe without a writer would block forever otherwise.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The coarsest resolution of the kernel's clock for file times (HZ = 100).
const CLOCK_STEP: Duration = Duration::from_millis(10);

/// An open source file. Can be shared in an `Arc`: reads take `&self` and share no position.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
    path: PathBuf,
}

impl SourceFile {
    /// Opens a file for reading. With `follow`, follows links wherever they lead.
    ///
    /// # Errors
    /// [`DiskError::NotAFile`] for anything but a regular file, including a link that is not followed.
    /// [`DiskError::is_gone`] holds for the error if the path does not exist, or if a directory in the path is a link
    /// that is not followed.
    pub fn open(location: &Path, path: &RelPath, follow: bool) -> Result<Self, DiskError> {
        Self::open_below(&open_location(location)?.following(follow), location, path)
    }

    /// Opens a file below an open location.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn open_below(root: &Root, location: &Path, path: &RelPath) -> Result<Self, DiskError> {
        let whole = location.join(path.as_path());
        let opened = root.open_below(path.as_path(), FLAGS, Mode::empty());
        let file = opened.map_err(|errno| unopened(location, path, &whole, errno))?;
        Self::of(file.into(), whole)
    }

    /// Opens a file in an open directory, following no link. `whole` is the file's full path, for messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn open_in(directory: impl AsFd, path: &Path, whole: PathBuf) -> Result<Self, DiskError> {
        match open_beneath(directory.as_fd(), path, FLAGS, Mode::empty()) {
            Ok(file) => Self::of(file.into(), whole),
            Err(Errno::LOOP) => Err(DiskError::NotAFile { path: whole, kind: Kind::Symlink }),
            Err(Errno::NXIO) => Err(DiskError::NotAFile { path: whole, kind: Kind::Socket }),
            Err(errno) => Err(DiskError::io("open", &whole, errno)),
        }
    }

    fn of(file: File, path: PathBuf) -> Result<Self, DiskError> {
        let stat = fstat(&file).map_err(|errno| DiskError::io("read the status of", &path, errno))?;
        if let FileState::NotAFile(kind) = FileState::of(&stat) {
            return Err(DiskError::NotAFile { path, kind });
        }
        // A hint to read ahead more; file systems may ignore it.
        fadvise(&file, 0, None, Advice::Sequential).ok();
        Ok(Self { file, path })
    }

    /// Returns the current stamp of the open file, even if its path now refers to another file.
    pub fn stamp(&self) -> Result<FileStamp, DiskError> {
        self.metadata().map(|meta| stamp_of(&meta))
    }

    /// Returns the current metadata of the open file.
    pub(super) fn metadata(&self) -> Result<fs::Metadata, DiskError> {
        self.file.metadata().map_err(|error| DiskError::io("read the status of", &self.path, error))
    }

    /// Decides whether the file may be taken in or moved away, or is still open for writing. `path` is the file's path
    /// in the watcher's records, and `meta` is the file's current metadata.
    pub(super) fn judge(&self, path: &RelPath, meta: &fs::Metadata, writers: &Writers) -> Verdict {
        writers.judge(path, &self.file, meta)
    }

    /// Flushes the file's bytes to the disk.
    pub(super) fn flush(&self) -> Result<(), DiskError> {
        self.file.sync_all().map_err(|error| DiskError::io("flush", &self.path, error))
    }

    /// Reads exactly `len` bytes from `offset`.
    ///
    /// # Errors
    /// [`DiskError::Changed`] when the file ends before these bytes.
    pub fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            // The vector may have more capacity than requested, so this may read too much; it is truncated below.
            match rustix::io::pread(&self.file, spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(DiskError::Changed { path: self.path.clone() }),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(DiskError::io("read", &self.path, errno)),
            }
        }
        bytes.truncate(len);
        Ok(bytes.into())
    }

    /// Passes the first `size` bytes to `take`, in order and in pieces of at most 1 MiB.
    ///
    /// # Errors
    /// [`DiskError::Changed`] when the file is shorter, [`DiskError::Stopped`] when `stop` returned true, any error of
    /// `take`.
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
                return Err(self.stopped());
            }
            let piece = (size - offset).min(READ_SIZE) as usize;
            self.file.read_exact_at(&mut buffer[..piece], offset).map_err(|error| self.unread(error))?;
            take(&buffer[..piece])?;
            offset += piece as u64;
        }
        Ok(())
    }

    /// Returns the error for a read that was stopped.
    pub(super) fn stopped(&self) -> DiskError {
        DiskError::Stopped { path: self.path.clone() }
    }

    fn unread(&self, error: io::Error) -> DiskError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => DiskError::Changed { path: self.path.clone() },
            _ => DiskError::io("read", &self.path, error),
        }
    }
}

/// Converts an error of opening a file. If the path is not a regular file, the result names its kind, which explains
/// more than the errno (ELOOP for a link, ENXIO for a socket).
fn unopened(location: &Path, path: &RelPath, whole: &Path, errno: Errno) -> DiskError {
    match file_state(location, path) {
        Ok(FileState::NotAFile(kind)) => DiskError::NotAFile { path: whole.into(), kind },
        // A link among the parent directories is treated as if the path did not exist.
        Ok(FileState::Gone) if errno == Errno::LOOP => DiskError::io("open", whole, Errno::NOENT),
        _ => DiskError::io("open", whole, errno),
    }
}

/// Hashes a file, up to the size that it had at the start. Calls `stop` before every MiB.
///
/// # Errors
/// [`DiskError::Changed`] when the file got shorter, [`DiskError::Stopped`] when `stop` returned true.
pub fn hash(source: &SourceFile, stop: &dyn Fn() -> bool) -> Result<Digest, DiskError> {
    let mut hasher = Hasher::default();
    source.each_piece(source.stamp()?.size, stop, &mut |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// Hashes a file and its chunks, reading it once.
///
/// # Errors
/// [`DiskError::Changed`] when the file got shorter.
pub fn hash_chunks(source: &SourceFile, chunk_size: u64) -> Result<FileDigests, DiskError> {
    let mut hasher = FileHasher::new(chunk_size);
    let stop = &|| false;
    source.each_piece(source.stamp()?.size, stop, &mut |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// If the file was written within the last clock tick, waits until the tick is over. Otherwise a later write within the
/// same tick would not change the file's time. Returns the metadata after the wait. Blocks the calling thread.
pub(super) fn wait_for_the_clock(source: &SourceFile) -> Result<fs::Metadata, DiskError> {
    let meta = source.metadata()?;
    let age = meta.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    match age.and_then(|age| CLOCK_STEP.checked_sub(age)) {
        Some(left) => {
            thread::sleep(left);
            source.metadata()
        }
        None => Ok(meta),
    }
}
