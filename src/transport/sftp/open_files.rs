//! Requests on open files and directories: open, read, write, copy, flush, close.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::wire::{Attrs, OpenFlags, Reply, kind, put_string};
use super::{Handle, SentWrite, Sftp, SftpError, attrs, note_refusal, status, unexpected};

/// How many times the opening of a file is retried with a lower limit on open files.
const FEWER: u32 = 4;

impl Sftp {
    /// Opens a file. If the file is created, it gets the permission bits `mode`.
    pub async fn open(&self, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Handle, SftpError> {
        let attrs = Attrs { mode: Some(mode), ..Attrs::default() };
        let fill = |out: &mut BytesMut| {
            put_string(out, path);
            out.put_u32(flags.0);
            attrs.put(out);
        };
        self.opened(kind::OPEN, flags.is_exclusive().then_some(path), fill).await
    }

    /// Sends a request that opens a file or a directory, and returns the handle. If the vessel may have too many open
    /// files, retries with a lower limit on open files. `new` is the path if it must not exist yet: for an existing
    /// path, many servers report the same unspecific failure as for too many open files.
    pub(super) async fn opened(
        &self,
        kind: u8,
        new: Option<&[u8]>,
        fill: impl Fn(&mut BytesMut),
    ) -> Result<Handle, SftpError> {
        let mut tries = 0;
        loop {
            let counted = self.handles.enter().await;
            match self.session.request(kind, Bytes::new(), &fill).await? {
                Reply::Handle(handle) => {
                    self.handles.opened();
                    return Ok(Handle(handle, Arc::new(counted)));
                }
                other => {
                    let error = unexpected(other);
                    if let Some(path) = new.filter(|_| error.may_be_too_many())
                        && self.lstat(path).await.is_ok()
                    {
                        return Err(error);
                    }
                    tries += 1;
                    if tries > FEWER || !error.may_be_too_many() || !self.handles.refused() {
                        return Err(error);
                    }
                    tracing::debug!(
                        limit = self.handles.limit(),
                        "The vessel refused to open one more file, so fewer are kept open: {error}"
                    );
                }
            }
        }
    }

    /// Sends a request that opens a file or a directory, and returns the handle. Never retries.
    pub(super) async fn opened_once(&self, kind: u8, fill: impl Fn(&mut BytesMut)) -> Result<Handle, SftpError> {
        let counted = self.handles.enter().await;
        match self.session.request(kind, Bytes::new(), fill).await? {
            Reply::Handle(handle) => Ok(Handle(handle, Arc::new(counted))),
            other => Err(unexpected(other)),
        }
    }

    /// Closes a file.
    pub async fn close(&self, handle: Handle) -> Result<(), SftpError> {
        status(self.on_path(kind::CLOSE, &handle.0, None).await?)
    }

    /// Sets attributes of an open file, flushes it (`fsync@openssh.com`) if `flush` is set, and closes it, without
    /// waiting between the requests. Returns two results: the result of setting the attributes, and the result of flush
    /// and close.
    ///
    /// The requests are sent one after the other, because joined futures may be polled in any order. A request sent
    /// after the close could reach another file to which the vessel gave the same handle.
    pub async fn finish(
        &self,
        handle: &Handle,
        set: Attrs,
        flush: bool,
    ) -> Result<(Result<(), SftpError>, Result<(), SftpError>), SftpError> {
        let on_handle = |out: &mut BytesMut| put_string(out, &handle.0);
        let with_attrs = |out: &mut BytesMut| {
            on_handle(out);
            set.put(out);
        };
        let fsync = |out: &mut BytesMut| {
            put_string(out, b"fsync@openssh.com");
            on_handle(out);
        };
        let send = |kind, fill| self.session.send(kind, Bytes::new(), fill);
        let set = send(kind::FSETSTAT, &with_attrs as &(dyn Fn(&mut BytesMut) + Sync)).await?;
        let flushed = if flush { Some(send(kind::EXTENDED, &fsync).await?) } else { None };
        let closed = send(kind::CLOSE, &on_handle).await?;
        let set = status(set.wait().await?);
        let flushed = match flushed {
            Some(flushed) => {
                let flushed = status(flushed.wait().await?);
                // A vessel may announce fsync and then reject it. The delivery continues without a flush.
                if note_refusal(&flushed, &self.refuses.fsync) { Ok(()) } else { flushed }
            }
            None => Ok(()),
        };
        Ok((set, flushed.and(status(closed.wait().await?))))
    }

    /// Sends a write and returns its pending reply. Waits first while too many bytes are in flight. Writes reach the
    /// vessel in the order in which the calls return.
    pub async fn send_write(&self, handle: &Handle, offset: u64, bytes: Bytes) -> Result<SentWrite, SftpError> {
        let length = u32::try_from(bytes.len()).map_err(|_| SftpError::Garbled)?;
        let fill = |out: &mut BytesMut| {
            put_string(out, &handle.0);
            out.put_u64(offset);
            out.put_u32(length);
        };
        Ok(SentWrite(self.session.send(kind::WRITE, bytes, fill).await?))
    }

    /// Requests the vessel to copy bytes between two open files (`copy-data`, draft-ietf-secsh-filexfer-extensions-00
    /// section 7), and returns the pending reply. Copies and writes are sent in the order in which the calls return.
    pub async fn send_copy(
        &self,
        (from, from_offset): (&Handle, u64),
        length: u64,
        (to, to_offset): (&Handle, u64),
    ) -> Result<SentWrite, SftpError> {
        let fill = |out: &mut BytesMut| {
            put_string(out, b"copy-data");
            put_string(out, &from.0);
            out.put_u64(from_offset);
            out.put_u64(length);
            put_string(out, &to.0);
            out.put_u64(to_offset);
        };
        Ok(SentWrite(self.session.send(kind::EXTENDED, Bytes::new(), fill).await?))
    }

    /// Reads at most `length` bytes at an offset. Returns `None` at the end of the file.
    pub async fn read(&self, handle: &Handle, offset: u64, length: u32) -> Result<Option<Bytes>, SftpError> {
        let reply = self
            .session
            .request(kind::READ, Bytes::new(), |out| {
                put_string(out, &handle.0);
                out.put_u64(offset);
                out.put_u32(length);
            })
            .await?;
        match reply {
            Reply::Data(bytes) if bytes.is_empty() || bytes.len() > length as usize => Err(SftpError::Garbled),
            Reply::Data(bytes) => Ok(Some(bytes)),
            Reply::Status { code: 1, .. } => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    /// Returns the attributes of an open file.
    pub async fn fstat(&self, handle: &Handle) -> Result<Attrs, SftpError> {
        attrs(self.on_path(kind::FSTAT, &handle.0, None).await?)
    }

    /// Sets attributes of an open file.
    pub async fn fsetstat(&self, handle: &Handle, set: Attrs) -> Result<(), SftpError> {
        status(self.on_path(kind::FSETSTAT, &handle.0, Some(set)).await?)
    }

    /// Flushes an open file to the vessel's disk (`fsync@openssh.com`).
    pub async fn fsync(&self, handle: &Handle) -> Result<(), SftpError> {
        let flushed = status(self.extended("fsync@openssh.com", |out| put_string(out, &handle.0)).await?);
        if note_refusal(&flushed, &self.refuses.fsync) { Ok(()) } else { flushed }
    }
}
