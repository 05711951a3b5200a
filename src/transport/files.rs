//! Sends file requests either to an SFTP server or, for a target on this host, to the kernel.
//!
//! Requests and replies are those of SFTP, so the callers do not depend on which implementation handles them.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::disk::{Asked, Disk};
use super::sftp::{Attrs, Handle, OpenFlags, SentWrite, Sftp, SftpError, Space};

/// The size of one write to a target on this host, in bytes.
const PIECE: u64 = 256 << 10;

/// The implementation that handles file requests: an SFTP server or this host's disk. Cheap to clone.
#[derive(Clone)]
pub(super) enum Files {
    Sftp(Sftp),
    Disk(Disk),
}

/// An open file, with the implementation that opened it.
#[derive(Clone)]
pub(super) enum Opened {
    Sftp(Sftp, Handle),
    Disk(Disk, Arc<File>),
}

/// A write or a copy whose reply is pending.
pub(super) enum SentBytes {
    Sftp(SentWrite),
    Disk(Asked<()>),
}

type Done<T> = Result<T, SftpError>;

/// Makes the same request to either implementation.
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

    /// Returns the canonical absolute path of a path. For a target on this host, returns the path unchanged, because no
    /// shell uses the path.
    pub(super) async fn realpath(&self, path: &[u8]) -> Done<Bytes> {
        match self {
            Self::Sftp(sftp) => sftp.realpath(path).await,
            Self::Disk(_) => Ok(Bytes::copy_from_slice(path)),
        }
    }

    /// Checks whether a path can be listed. The error gives the reason.
    pub(super) async fn can_list(&self, path: &[u8]) -> Done<()> {
        match self {
            Self::Sftp(sftp) => sftp.can_list(path).await,
            Self::Disk(disk) => disk.list(path, 1).await.map(drop),
        }
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

    pub(super) async fn rename(&self, from: &[u8], to: &[u8]) -> Done<()> {
        either!(self, at => at.rename(from, to).await)
    }

    pub(super) async fn posix_rename(&self, from: &[u8], to: &[u8]) -> Done<()> {
        either!(self, at => at.posix_rename(from, to).await)
    }

    pub(super) async fn statvfs(&self, path: &[u8]) -> Done<Space> {
        either!(self, at => at.statvfs(path).await)
    }

    /// Returns whether the server announced `fsync@openssh.com` but rejected it.
    pub(super) fn refuses_fsync(&self) -> bool {
        matches!(self, Self::Sftp(sftp) if sftp.refuses_fsync())
    }

    /// Returns whether the server announced `posix-rename@openssh.com` but rejected it.
    pub(super) fn refuses_posix_rename(&self) -> bool {
        matches!(self, Self::Sftp(sftp) if sftp.refuses_posix_rename())
    }

    /// Returns the shortest round-trip time measured so far; 0 for a target on this host.
    pub(super) fn round_trip(&self) -> Duration {
        match self {
            Self::Sftp(sftp) => sftp.round_trip(),
            Self::Disk(_) => Duration::ZERO,
        }
    }

    /// Waits until at least one request is waiting for its reply; never returns for a target on this host.
    pub(super) async fn asked(&self) {
        match self {
            Self::Sftp(sftp) => sftp.asked().await,
            Self::Disk(_) => std::future::pending().await,
        }
    }

    /// Returns whether replies are overdue, so that the link may be down. Always `false` for a target on this host,
    /// which has no link.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Sftp(sftp) if sftp.is_silent())
    }

    /// Returns how many bytes the channel accepted at once when the session started. Unlimited for a target on this
    /// host.
    pub(super) fn takes_at_once(&self) -> usize {
        match self {
            Self::Sftp(sftp) => sftp.takes_at_once(),
            Self::Disk(_) => usize::MAX,
        }
    }

    /// Returns the minimum size of a part in bytes.
    pub(super) fn worth_a_file(&self) -> u64 {
        match self {
            Self::Sftp(sftp) => sftp.worth_a_file(),
            Self::Disk(_) => PIECE,
        }
    }

    /// Returns how many written bytes are not confirmed yet; 0 for a target on this host.
    pub(super) fn unanswered_bytes(&self) -> u64 {
        match self {
            Self::Sftp(sftp) => sftp.unanswered_bytes(),
            Self::Disk(_) => 0,
        }
    }

    /// Returns how many written bytes were confirmed since the session started; 0 for a target on this host.
    pub(super) fn answered_bytes(&self) -> u64 {
        match self {
            Self::Sftp(sftp) => sftp.answered_bytes(),
            Self::Disk(_) => 0,
        }
    }
}

/// Makes the same request for an open file to either implementation.
macro_rules! on_file {
    ($file:expr, $at:ident, $file_there:ident => $sftp:expr, $disk:expr) => {
        match $file {
            Opened::Sftp($at, $file_there) => $sftp,
            Opened::Disk($at, $file_there) => $disk,
        }
    };
}

impl Opened {
    /// Returns the implementation that opened the file.
    pub(super) fn files(&self) -> Files {
        match self {
            Self::Sftp(sftp, _) => Files::Sftp(sftp.clone()),
            Self::Disk(disk, _) => Files::Disk(disk.clone()),
        }
    }

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

    /// Requests a copy of bytes from another file that is open on the same channel.
    pub(super) async fn send_copy(&self, offset: u64, from: &Self, from_offset: u64, length: u64) -> Done<SentBytes> {
        match (self, from) {
            (Self::Sftp(sftp, to), Self::Sftp(_, from)) => {
                Ok(SentBytes::Sftp(sftp.send_copy((from, from_offset), length, (to, offset)).await?))
            }
            (Self::Disk(disk, to), Self::Disk(_, from)) => {
                let (from, to) = ((from.clone(), from_offset), (to.clone(), offset));
                Ok(SentBytes::Disk(disk.send_copy(from, length, to).await?))
            }
            _ => Err(SftpError::Lost(
                "cannot copy on the vessel: the two files were opened on different connections".into(),
            )),
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
    /// Waits until the vessel has confirmed the bytes.
    pub(super) async fn wait(self) -> Done<()> {
        match self {
            Self::Sftp(sent) => sent.wait().await,
            Self::Disk(asked) => asked.wait().await,
        }
    }
}
