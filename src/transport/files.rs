//! Who does what is asked of a vessel's files: an SFTP server, or this host's own kernel for a target on this host.
//!
//! The requests are SFTP's, and so are the answers; nothing above knows which of the two it is.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::disk::{Asked, Disk};
use super::sftp::{Attrs, Handle, OpenFlags, SentWrite, Sftp, SftpError, Space};

/// What is worth sending in one write to this host, in bytes.
const PIECE: u64 = 256 << 10;

/// Whoever it is; cheap to clone.
#[derive(Clone)]
pub(super) enum Files {
    Sftp(Sftp),
    Disk(Disk),
}

/// A file that one of them has opened.
#[derive(Clone)]
pub(super) enum Opened {
    Sftp(Sftp, Handle),
    Disk(Disk, Arc<File>),
}

/// A write or a copy on its way.
pub(super) enum SentBytes {
    Sftp(SentWrite),
    Disk(Asked<()>),
}

type Done<T> = Result<T, SftpError>;

/// The same request to either.
macro_rules! either {
    ($files:expr, $at:ident => $request:expr) => {
        match $files {
            Files::Sftp($at) => $request,
            Files::Disk($at) => $request,
        }
    };
}

impl Files {
    pub(super) fn is_ended(&self) -> bool {
        either!(self, at => at.is_ended())
    }

    pub(super) fn why_ended(&self) -> SftpError {
        either!(self, at => at.why_ended())
    }

    pub(super) async fn over(&self) {
        either!(self, at => at.over().await);
    }

    pub(super) async fn open(&self, path: &[u8], flags: OpenFlags, mode: u32) -> Done<Opened> {
        Ok(match self {
            Self::Sftp(sftp) => Opened::Sftp(sftp.clone(), sftp.open(path, flags, mode).await?),
            Self::Disk(disk) => Opened::Disk(disk.clone(), disk.open_file(path, flags, mode).await?),
        })
    }

    pub(super) async fn lstat(&self, path: &[u8]) -> Done<Attrs> {
        either!(self, at => at.lstat(path).await)
    }

    pub(super) async fn stat(&self, path: &[u8]) -> Done<Attrs> {
        either!(self, at => at.stat(path).await)
    }

    pub(super) async fn setstat(&self, path: &[u8], set: Attrs) -> Done<()> {
        either!(self, at => at.setstat(path, set).await)
    }

    pub(super) async fn lsetstat(&self, path: &[u8], set: Attrs) -> Done<()> {
        either!(self, at => at.lsetstat(path, set).await)
    }

    pub(super) async fn list(&self, path: &[u8], most: usize) -> Done<Vec<(Bytes, Attrs)>> {
        either!(self, at => at.list(path, most).await)
    }

    pub(super) async fn remove(&self, path: &[u8]) -> Done<()> {
        either!(self, at => at.remove(path).await)
    }

    pub(super) async fn mkdir(&self, path: &[u8], mode: u32) -> Done<()> {
        either!(self, at => at.mkdir(path, mode).await)
    }

    pub(super) async fn rmdir(&self, path: &[u8]) -> Done<()> {
        either!(self, at => at.rmdir(path).await)
    }

    pub(super) async fn symlink(&self, target: &[u8], link: &[u8]) -> Done<()> {
        either!(self, at => at.symlink(target, link).await)
    }

    pub(super) async fn readlink(&self, path: &[u8]) -> Done<Bytes> {
        either!(self, at => at.readlink(path).await)
    }

    pub(super) async fn realpath(&self, path: &[u8]) -> Done<Bytes> {
        match self {
            Self::Sftp(sftp) => sftp.realpath(path).await,
            // Places on this host are given from the root on.
            Self::Disk(_) => Ok(Bytes::copy_from_slice(path)),
        }
    }

    pub(super) async fn rename(&self, from: &[u8], to: &[u8]) -> Done<()> {
        either!(self, at => at.rename(from, to).await)
    }

    pub(super) async fn posix_rename(&self, from: &[u8], to: &[u8]) -> Done<()> {
        either!(self, at => at.posix_rename(from, to).await)
    }

    pub(super) async fn statvfs(&self, path: &[u8]) -> Done<Space> {
        either!(self, at => at.statvfs(path).await)
    }

    /// Whether it announced that it can flush an open file, and refused to.
    pub(super) fn refuses_fsync(&self) -> bool {
        matches!(self, Self::Sftp(sftp) if sftp.refuses_fsync())
    }

    /// Whether it announced that it can rename over a file, and refused to.
    pub(super) fn refuses_posix_rename(&self) -> bool {
        matches!(self, Self::Sftp(sftp) if sftp.refuses_posix_rename())
    }

    /// The shortest time that a question and its answer took so far; nothing on this host.
    pub(super) fn round_trip(&self) -> Duration {
        match self {
            Self::Sftp(sftp) => sftp.round_trip(),
            Self::Disk(_) => Duration::ZERO,
        }
    }

    /// Whether answers are due that don't come, so that the link may be down. There is no link to this host.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Sftp(sftp) if sftp.is_silent())
    }

    /// How many bytes were taken at once at the beginning.
    pub(super) fn takes_at_once(&self) -> usize {
        match self {
            Self::Sftp(sftp) => sftp.takes_at_once(),
            Self::Disk(_) => usize::MAX,
        }
    }

    /// How many bytes are worth a file of their own.
    pub(super) fn worth_a_file(&self) -> u64 {
        match self {
            Self::Sftp(sftp) => sftp.worth_a_file(),
            Self::Disk(_) => PIECE,
        }
    }

    /// Bytes written over a link that wait for an answer.
    pub(super) fn unanswered_bytes(&self) -> u64 {
        match self {
            Self::Sftp(sftp) => sftp.unanswered_bytes(),
            Self::Disk(_) => 0,
        }
    }

    /// Bytes written over a link and answered.
    pub(super) fn answered_bytes(&self) -> u64 {
        match self {
            Self::Sftp(sftp) => sftp.answered_bytes(),
            Self::Disk(_) => 0,
        }
    }
}

/// The same request for an open file to either.
macro_rules! on_file {
    ($file:expr, $at:ident, $file_there:ident => $sftp:expr, $disk:expr) => {
        match $file {
            Opened::Sftp($at, $file_there) => $sftp,
            Opened::Disk($at, $file_there) => $disk,
        }
    };
}

impl Opened {
    pub(super) fn worth_writing(&self) -> u64 {
        match self {
            Self::Sftp(sftp, _) => sftp.worth_writing(),
            Self::Disk(..) => PIECE,
        }
    }

    pub(super) async fn send_write(&self, offset: u64, bytes: Bytes) -> Done<SentBytes> {
        Ok(match self {
            Self::Sftp(sftp, handle) => SentBytes::Sftp(sftp.send_write(handle, offset, bytes).await?),
            Self::Disk(disk, file) => SentBytes::Disk(disk.send_write(file.clone(), offset, bytes).await?),
        })
    }

    /// Asks for a copy of bytes of another file that the same has opened.
    pub(super) async fn send_copy(&self, offset: u64, from: &Self, from_offset: u64, length: u64) -> Done<SentBytes> {
        match (self, from) {
            (Self::Sftp(sftp, to), Self::Sftp(_, from)) => {
                Ok(SentBytes::Sftp(sftp.send_copy((from, from_offset), length, (to, offset)).await?))
            }
            (Self::Disk(disk, to), Self::Disk(_, from)) => {
                let (from, to) = ((from.clone(), from_offset), (to.clone(), offset));
                Ok(SentBytes::Disk(disk.send_copy(from, length, to).await?))
            }
            _ => Err(SftpError::Lost("the two files are open on different connections".into())),
        }
    }

    pub(super) async fn read(&self, offset: u64, length: u32) -> Done<Option<Bytes>> {
        on_file!(self, at, file => at.read(file, offset, length).await, at.read(file.clone(), offset, length).await)
    }

    pub(super) async fn fstat(&self) -> Done<Attrs> {
        on_file!(self, at, file => at.fstat(file).await, at.fstat(file.clone()).await)
    }

    pub(super) async fn fsetstat(&self, set: Attrs) -> Done<()> {
        on_file!(self, at, file => at.fsetstat(file, set).await, at.fsetstat(file.clone(), set).await)
    }

    pub(super) async fn finish(&self, set: Attrs, flush: bool) -> Done<(Done<()>, Done<()>)> {
        on_file!(self, at, file => at.finish(file, set, flush).await, at.finish(file.clone(), set, flush).await)
    }

    pub(super) async fn fsync(&self) -> Done<()> {
        on_file!(self, at, file => at.fsync(file).await, at.fsync(file.clone()).await)
    }

    pub(super) async fn close(&self) -> Done<()> {
        on_file!(self, at, file => at.close(file.clone()).await, at.close(file.clone()).await)
    }
}

impl SentBytes {
    /// Waits until the vessel has taken them.
    pub(super) async fn wait(self) -> Done<()> {
        match self {
            Self::Sftp(sent) => sent.wait().await,
            Self::Disk(asked) => asked.wait().await,
        }
    }
}
