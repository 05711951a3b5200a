//! An open file on a vessel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::error::RemoteError;
use super::files::{Opened, SentBytes};
use super::sftp::{Attrs, SftpError};
use super::stat;
use crate::names::RemotePath;

/// An open file on a vessel; cheap to clone. If no caller closes the file, it is closed when the last clone is dropped.
#[derive(Clone)]
pub struct RemoteFile(Arc<OpenFile>);

struct OpenFile {
    opened: Opened,
    path: RemotePath,
    /// The number of the way (one of several routes to the vessel) that the channel uses.
    route: usize,
    closed: AtomicBool,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // A server may allow only some hundred open handles, so failed operations must not leave any open.
        if !self.closed.load(Ordering::Acquire)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let opened = self.opened.clone();
            runtime.spawn(async move { opened.close().await });
        }
    }
}

/// A write or a copy whose reply is pending.
pub struct Sent {
    write: SentBytes,
    path: RemotePath,
    length: u64,
}

impl Sent {
    /// Returns the number of written or copied bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Waits until the vessel has confirmed the bytes. Returns the number of bytes.
    pub async fn taken(self) -> Result<u64, RemoteError> {
        let taken = self.write.wait().await;
        taken.map(|()| self.length).map_err(|e| RemoteError::from_sftp(&e, format_args!("writing to {}", self.path)))
    }
}

impl RemoteFile {
    fn error(&self, error: &SftpError, doing: &str) -> RemoteError {
        RemoteError::from_sftp(error, format_args!("{doing} {}", self.0.path))
    }

    /// Creates a handle for an opened file. `route` is the number of the way that its channel uses.
    pub(super) fn new(opened: Opened, path: RemotePath, route: usize) -> Self {
        Self(Arc::new(OpenFile { opened, path, route, closed: AtomicBool::new(false) }))
    }

    /// Returns the [number of the way](super::SftpChannel::route) that the file's channel uses.
    pub fn route(&self) -> usize {
        self.0.route
    }

    /// Returns the recommended size of one write in bytes.
    pub fn worth_writing(&self) -> u64 {
        self.0.opened.worth_writing()
    }

    /// Returns the file's path.
    pub fn path(&self) -> &RemotePath {
        &self.0.path
    }

    /// Sends a write. Waits first while too many bytes are in flight. Writes reach the vessel in the order in which the
    /// calls return.
    pub async fn send(&self, offset: u64, bytes: Bytes) -> Result<Sent, RemoteError> {
        let length = bytes.len() as u64;
        let sent = self.0.opened.send_write(offset, bytes).await;
        Ok(Sent { write: sent.map_err(|e| self.error(&e, "writing to"))?, path: self.0.path.clone(), length })
    }

    /// Requests the vessel to copy bytes from another file that is open on the same channel (`copy-data`). Copies and
    /// writes are sent in the order in which the calls return. A `length` of 0 would mean the rest of the file `from`.
    pub async fn copy(&self, offset: u64, from: &Self, from_offset: u64, length: u64) -> Result<Sent, RemoteError> {
        let copied = self.0.opened.send_copy(offset, &from.0.opened, from_offset, length).await;
        Ok(Sent { write: copied.map_err(|e| self.error(&e, "copying to"))?, path: self.0.path.clone(), length })
    }

    /// Fills `length` bytes from `offset` on with zeros. The range must begin at or after the current end of the file.
    /// Sends only the last byte, so the vessel fills the range before it with zeros (a hole).
    pub async fn send_zeros(&self, offset: u64, length: u64) -> Result<Sent, RemoteError> {
        let sent = self.send(offset + length - 1, Bytes::from_static(&[0])).await?;
        Ok(Sent { length, ..sent })
    }

    /// Reads at most `length` bytes at an offset. Returns `None` at the end of the file.
    pub async fn read_at(&self, offset: u64, length: u32) -> Result<Option<Bytes>, RemoteError> {
        self.0.opened.read(offset, length).await.map_err(|e| self.error(&e, "reading"))
    }

    /// Returns the current attributes of the file. If the vessel can't query open files, queries the path.
    pub async fn attrs(&self) -> Result<Attrs, RemoteError> {
        let attrs = match self.0.opened.fstat().await {
            Err(e) if e.is_refusal() => stat::at(&self.0.opened.files(), self.0.path.as_bytes()).await,
            attrs => attrs,
        };
        attrs.map_err(|e| self.error(&e, "reading the status of"))
    }

    /// Sets attributes of the file. If a size is set, truncates or extends the file.
    pub async fn set(&self, attrs: Attrs) -> Result<(), RemoteError> {
        self.0.opened.fsetstat(attrs).await.map_err(|e| self.error(&e, "setting mode, time or size of"))
    }

    /// Sets attributes, flushes the file if `flush` is set, and closes it, without waiting in between. The inner result
    /// tells whether the attributes were set. It is separate, because a file without the attributes may be usable.
    ///
    /// # Errors
    /// When the file can't be flushed or closed.
    pub async fn finish(self, attrs: Attrs, flush: bool) -> Result<Result<(), RemoteError>, RemoteError> {
        self.0.closed.store(true, Ordering::Release);
        let finished = self.0.opened.finish(attrs, flush).await;
        let (set, finished) = finished.map_err(|e| self.error(&e, "finishing"))?;
        finished.map_err(|e| self.error(&e, "flushing or closing"))?;
        Ok(set.map_err(|e| self.error(&e, "setting mode or time of")))
    }

    /// Flushes the file to the vessel's disk (`fsync@openssh.com`).
    pub async fn flush(&self) -> Result<(), RemoteError> {
        self.0.opened.fsync().await.map_err(|e| self.error(&e, "flushing"))
    }

    /// Closes the file.
    pub async fn close(self) -> Result<(), RemoteError> {
        self.0.closed.store(true, Ordering::Release);
        let closed = self.0.opened.close().await;
        closed.map_err(|e| self.error(&e, "closing"))
    }
}
