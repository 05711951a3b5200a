//! An open file on a vessel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::error::RemoteError;
use super::files::{Opened, SentBytes};
use super::sftp::{Attrs, SftpError};
use super::stat;
use crate::names::RemotePath;

/// An open file on a vessel; cheap to clone. It is closed when the last clone is dropped, if not before.
#[derive(Clone)]
pub struct RemoteFile(Arc<OpenFile>);

struct OpenFile {
    opened: Opened,
    path: RemotePath,
    closed: AtomicBool,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // A server has some hundred handles for us; what failed half-way must not use them up.
        if !self.closed.load(Ordering::Acquire)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let opened = self.opened.clone();
            runtime.spawn(async move { opened.close().await });
        }
    }
}

/// Bytes on their way into a file.
pub struct Sent {
    write: SentBytes,
    path: RemotePath,
    length: u64,
}

impl Sent {
    /// How many bytes they are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Waits until the vessel has taken them; returns how many they are.
    pub async fn taken(self) -> Result<u64, RemoteError> {
        let taken = self.write.wait().await;
        taken.map(|()| self.length).map_err(|e| RemoteError::from_sftp(&e, format_args!("writing to {}", self.path)))
    }
}

impl RemoteFile {
    fn error(&self, error: &SftpError, doing: &str) -> RemoteError {
        RemoteError::from_sftp(error, format_args!("{doing} {}", self.0.path))
    }

    /// A file that was opened.
    pub(super) fn new(opened: Opened, path: RemotePath) -> Self {
        Self(Arc::new(OpenFile { opened, path, closed: AtomicBool::new(false) }))
    }

    /// How many bytes are worth sending in one write for now.
    pub fn worth_writing(&self) -> u64 {
        self.0.opened.worth_writing()
    }

    /// The file's path.
    pub fn path(&self) -> &RemotePath {
        &self.0.path
    }

    /// Sends a write; waits first while too much is in flight already. The vessel gets writes in the order in which this
    /// returns.
    pub async fn send(&self, offset: u64, bytes: Bytes) -> Result<Sent, RemoteError> {
        let length = bytes.len() as u64;
        let sent = self.0.opened.send_write(offset, bytes).await;
        Ok(Sent { write: sent.map_err(|e| self.error(&e, "writing to"))?, path: self.0.path.clone(), length })
    }

    /// Has the vessel copy bytes of another file that is open on the same lane (`copy-data`); they take their turn among
    /// the writes. A length of 0 would mean all there is.
    pub async fn copy(&self, offset: u64, from: &Self, from_offset: u64, length: u64) -> Result<Sent, RemoteError> {
        let copied = self.0.opened.send_copy(offset, &from.0.opened, from_offset, length).await;
        Ok(Sent { write: copied.map_err(|e| self.error(&e, "copying to"))?, path: self.0.path.clone(), length })
    }

    /// Makes `length` bytes zero that lie beyond what the file holds: only the last of them is sent, and the file has a hole
    /// before it.
    pub async fn send_zeros(&self, offset: u64, length: u64) -> Result<Sent, RemoteError> {
        let sent = self.send(offset + length - 1, Bytes::from_static(&[0])).await?;
        Ok(Sent { length, ..sent })
    }

    /// Reads at most `length` bytes at an offset; `None` at the end.
    pub async fn read_at(&self, offset: u64, length: u32) -> Result<Option<Bytes>, RemoteError> {
        self.0.opened.read(offset, length).await.map_err(|e| self.error(&e, "reading"))
    }

    /// What it is now. Some vessels look at nothing that is open, but at what its path leads to.
    pub async fn attrs(&self) -> Result<Attrs, RemoteError> {
        let attrs = match self.0.opened.fstat().await {
            Err(e) if e.is_refusal() => stat::at(&self.0.opened.files(), self.0.path.as_bytes()).await,
            attrs => attrs,
        };
        attrs.map_err(|e| self.error(&e, "reading the status of"))
    }

    /// Sets attributes; a size truncates.
    pub async fn set(&self, attrs: Attrs) -> Result<(), RemoteError> {
        self.0.opened.fsetstat(attrs).await.map_err(|e| self.error(&e, "setting mode, time or size of"))
    }

    /// Sets attributes, flushes it where `flush` is set, and closes it, in one burst: all that is left to do with a file that
    /// was written. What became of the attributes is said apart, for a file without them may still do.
    ///
    /// # Errors
    /// When it can't be flushed or closed.
    pub async fn finish(self, attrs: Attrs, flush: bool) -> Result<Result<(), RemoteError>, RemoteError> {
        self.0.closed.store(true, Ordering::Release);
        let finished = self.0.opened.finish(attrs, flush).await;
        let (set, finished) = finished.map_err(|e| self.error(&e, "finishing"))?;
        finished.map_err(|e| self.error(&e, "flushing or closing"))?;
        Ok(set.map_err(|e| self.error(&e, "setting mode or time of")))
    }

    /// Flushes it to the vessel's disk (`fsync@openssh.com`).
    pub async fn flush(&self) -> Result<(), RemoteError> {
        self.0.opened.fsync().await.map_err(|e| self.error(&e, "flushing"))
    }

    /// Closes it.
    pub async fn close(self) -> Result<(), RemoteError> {
        self.0.closed.store(true, Ordering::Release);
        let closed = self.0.opened.close().await;
        closed.map_err(|e| self.error(&e, "closing"))
    }
}
