//! An SFTP version 3 client. Names and handles are bytes, status codes are kept, and many requests can be in flight at
//! once.
//!
//! [`Sftp`] has one method for each request that this program makes. This module does not depend on deliveries.

mod check_file;
mod error;
mod greeting;
mod handles;
mod listing;
mod missing;
mod session;
mod space;
mod window;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use russh::client::Msg;

use handles::{Counted, Handles};
use missing::Missing;
use session::{Early, Pending, Session};
use wire::{Reader, Reply, kind, put_string};

pub(crate) use check_file::may_know as may_know_check_file;
pub use error::SftpError;
pub use greeting::{EarlyReply, Greeting};
pub use space::{Limits, Space};
pub use wire::{Attrs, Kind, OpenFlags};

/// An open file or directory on the vessel.
#[derive(Clone, Debug)]
pub struct Handle(Bytes, #[expect(dead_code, reason = "counted until it is dropped")] Arc<Counted>);

/// An SFTP session; cheap to clone.
#[derive(Clone)]
pub struct Sftp {
    session: Session,
    handles: Arc<Handles>,
    /// Extensions that the vessel announced but then rejected.
    refuses: Arc<Refuses>,
    missing: Arc<Missing>,
}

/// The extensions that a vessel announced but then rejected as unsupported.
#[derive(Debug, Default)]
struct Refuses {
    fsync: AtomicBool,
    posix_rename: AtomicBool,
}

fn note_refusal<T>(outcome: &Result<T, SftpError>, refuses: &AtomicBool) -> bool {
    let refused = matches!(outcome, Err(SftpError::Status { code: SftpError::UNSUPPORTED, .. }));
    if refused {
        refuses.store(true, Ordering::Relaxed);
    }
    refused
}

/// How many times the opening of a file is retried with a lower limit on open files.
const FEWER: u32 = 4;

/// A write or copy request whose reply is pending.
pub struct SentWrite(Pending);

impl SentWrite {
    /// Waits until the vessel has confirmed the write or copy.
    pub async fn wait(self) -> Result<(), SftpError> {
        status(self.0.wait().await?)
    }
}

fn status(reply: Reply) -> Result<(), SftpError> {
    match reply {
        Reply::Status { code: 0, .. } => Ok(()),
        other => Err(unexpected(other)),
    }
}

fn unexpected(reply: Reply) -> SftpError {
    match reply {
        Reply::Status { code, message } if code != 0 => SftpError::Status { code, message },
        _ => SftpError::Garbled,
    }
}

impl Sftp {
    /// Starts SFTP on a channel after its subsystem was requested, without waiting for the reply to that request. Also
    /// returns the vessel's greeting.
    ///
    /// `timeouts` holds the deadline for the start, and the time after which a vessel without any reply counts as
    /// silent. The second time does not include the time that the transfer of the bytes in flight needs. `steady` says
    /// whether the congestion control keeps its sending rate when packets are lost. `long` is the round-trip time of a
    /// long path to a server that takes requests with the greeting: the first ones are sent with it.
    ///
    /// # Errors
    /// [`SftpError`] when the vessel has no SFTP, sends no SFTP greeting, or sends it too late.
    pub async fn start(
        channel: russh::Channel<Msg>,
        timeouts: (Duration, Duration),
        steady: bool,
        long: Option<Duration>,
    ) -> Result<(Self, Greeting), SftpError> {
        let early = long.map_or_else(Early::default, greeting::early);
        let (session, extensions, replies) = Session::start(channel, timeouts, steady, early).await?;
        let sftp = Self { session, handles: Arc::default(), refuses: Arc::default(), missing: Arc::default() };
        Ok((sftp, Greeting::new(extensions, replies)))
    }

    /// Returns whether the vessel announced `fsync@openssh.com` but rejected it.
    pub fn refuses_fsync(&self) -> bool {
        self.refuses.fsync.load(Ordering::Relaxed)
    }

    /// Returns whether the vessel announced `posix-rename@openssh.com` but rejected it.
    pub fn refuses_posix_rename(&self) -> bool {
        self.refuses.posix_rename.load(Ordering::Relaxed)
    }

    /// Returns whether the session has ended.
    pub fn is_ended(&self) -> bool {
        self.session.is_ended()
    }

    /// Returns why the session has ended.
    pub fn why_ended(&self) -> SftpError {
        self.session.why_ended()
    }

    /// Waits until a reply is pending.
    pub async fn asked(&self) {
        self.session.asked().await;
    }

    /// Returns whether replies are pending and the vessel has been silent for so long that the link may be down.
    pub fn is_silent(&self) -> bool {
        self.session.is_silent()
    }

    /// Returns the shortest round-trip time measured so far.
    pub fn round_trip(&self) -> Duration {
        self.session.round_trip()
    }

    /// Returns the recommended size of one write in bytes, which depends on the send window: large writes have less
    /// overhead, and small writes keep a slow link busy.
    pub fn worth_writing(&self) -> u64 {
        self.session.worth_writing()
    }

    /// Returns the minimum size of a part in bytes: about the number of bytes that are sent in one round trip.
    pub fn worth_a_file(&self) -> u64 {
        self.session.worth_a_file()
    }

    /// Returns how many bytes the channel accepted at once when the session started.
    pub fn takes_at_once(&self) -> usize {
        self.session.takes_at_once()
    }

    /// Returns how many written bytes are not confirmed yet.
    pub fn unanswered_bytes(&self) -> u64 {
        self.session.unanswered_bytes()
    }

    /// Returns how many written bytes were confirmed since the session started.
    pub fn answered_bytes(&self) -> u64 {
        self.session.answered_bytes()
    }

    /// Waits until the session has ended.
    pub async fn over(&self) {
        self.session.over().await;
    }

    async fn on_path(&self, kind: u8, path: &[u8], attrs: Option<Attrs>) -> Result<Reply, SftpError> {
        self.session
            .request(kind, Bytes::new(), |out| {
                put_string(out, path);
                if let Some(attrs) = attrs {
                    attrs.put(out);
                }
            })
            .await
    }

    async fn extended(&self, name: &str, fill: impl FnOnce(&mut BytesMut)) -> Result<Reply, SftpError> {
        self.session
            .request(kind::EXTENDED, Bytes::new(), |out| {
                put_string(out, name.as_bytes());
                fill(out);
            })
            .await
    }

    /// Opens a file. If the file is created, it gets the permission bits `mode`.
    pub async fn open(&self, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Handle, SftpError> {
        let attrs = Attrs { mode: Some(mode), ..Attrs::default() };
        self.opened(kind::OPEN, |out| {
            put_string(out, path);
            out.put_u32(flags.0);
            attrs.put(out);
        })
        .await
    }

    /// Sends a request that opens a file or a directory, and returns the handle. If the vessel may have too many open
    /// files, retries with a lower limit on open files.
    async fn opened(&self, kind: u8, fill: impl Fn(&mut BytesMut)) -> Result<Handle, SftpError> {
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
    async fn opened_once(&self, kind: u8, fill: impl Fn(&mut BytesMut)) -> Result<Handle, SftpError> {
        let counted = self.handles.enter().await;
        match self.session.request(kind, Bytes::new(), fill).await? {
            Reply::Handle(handle) => Ok(Handle(handle, Arc::new(counted))),
            other => Err(unexpected(other)),
        }
    }

    /// Limits the number of open files to `number`; 0 means that the vessel names no limit.
    pub fn keep_to_handles(&self, number: u64) {
        self.handles.allow(number);
    }

    /// Closes a file.
    pub async fn close(&self, handle: Handle) -> Result<(), SftpError> {
        status(self.on_path(kind::CLOSE, &handle.0, None).await?)
    }

    /// Sets attributes of an open file, flushes it (`fsync@openssh.com`) if `flush` is set, and closes it, without
    /// waiting between the requests. Returns two results: the result of setting the attributes, and the result of flush
    /// and close.
    ///
    /// The requests are sent one after the other, because joined futures may be polled in any order, and a request sent
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

    /// Returns the attributes of a path without following a link.
    pub async fn lstat(&self, path: &[u8]) -> Result<Attrs, SftpError> {
        self.or_missing(path, self.lstat_once(path).await).await
    }

    async fn lstat_once(&self, path: &[u8]) -> Result<Attrs, SftpError> {
        attrs(self.on_path(kind::LSTAT, path, None).await?)
    }

    /// Returns the attributes of a path, following links.
    pub async fn stat(&self, path: &[u8]) -> Result<Attrs, SftpError> {
        self.or_missing(path, self.stat_once(path).await).await
    }

    async fn stat_once(&self, path: &[u8]) -> Result<Attrs, SftpError> {
        attrs(self.on_path(kind::STAT, path, None).await?)
    }

    /// Returns the attributes of an open file.
    pub async fn fstat(&self, handle: &Handle) -> Result<Attrs, SftpError> {
        attrs(self.on_path(kind::FSTAT, &handle.0, None).await?)
    }

    /// Sets an upper bound of the payload bytes in flight.
    pub fn limit_window(&self, bytes: usize) {
        self.session.limit_window(bytes);
    }

    /// Sets an upper bound of the payload bytes in flight, at once if nothing was measured yet.
    pub fn begin_with(&self, bytes: usize) {
        self.session.begin_with(bytes);
    }

    /// Sets attributes of a path.
    pub async fn setstat(&self, path: &[u8], set: Attrs) -> Result<(), SftpError> {
        status(self.on_path(kind::SETSTAT, path, Some(set)).await?)
    }

    /// Sets attributes of an open file.
    pub async fn fsetstat(&self, handle: &Handle, set: Attrs) -> Result<(), SftpError> {
        status(self.on_path(kind::FSETSTAT, &handle.0, Some(set)).await?)
    }

    /// Removes a file.
    pub async fn remove(&self, path: &[u8]) -> Result<(), SftpError> {
        status(self.on_path(kind::REMOVE, path, None).await?)
    }

    /// Creates a directory.
    pub async fn mkdir(&self, path: &[u8], mode: u32) -> Result<(), SftpError> {
        status(self.on_path(kind::MKDIR, path, Some(Attrs { mode: Some(mode), ..Attrs::default() })).await?)
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, path: &[u8]) -> Result<(), SftpError> {
        status(self.on_path(kind::RMDIR, path, None).await?)
    }

    /// Creates a symbolic link. OpenSSH expects the arguments in another order than the draft (section 4.1 of OpenSSH's
    /// PROTOCOL file).
    pub async fn symlink(&self, target: &[u8], link: &[u8]) -> Result<(), SftpError> {
        status(self.session.request(kind::SYMLINK, Bytes::new(), |out| put_two(out, target, link)).await?)
    }

    /// Returns the target of a symbolic link.
    pub async fn readlink(&self, path: &[u8]) -> Result<Bytes, SftpError> {
        match self.on_path(kind::READLINK, path, None).await? {
            Reply::Names(names) => names.into_iter().next().map(|(target, _)| target).ok_or(SftpError::Garbled),
            other => Err(unexpected(other)),
        }
    }

    /// Returns the canonical absolute path of a path.
    pub async fn realpath(&self, path: &[u8]) -> Result<Bytes, SftpError> {
        match self.on_path(kind::REALPATH, path, None).await? {
            Reply::Names(names) => names.into_iter().next().map(|(real, _)| real).ok_or(SftpError::Garbled),
            other => Err(unexpected(other)),
        }
    }

    /// Sets attributes of a path without following a link (`lsetstat@openssh.com`).
    pub async fn lsetstat(&self, path: &[u8], set: Attrs) -> Result<(), SftpError> {
        let fill = |out: &mut BytesMut| {
            put_string(out, path);
            set.put(out);
        };
        status(self.extended("lsetstat@openssh.com", fill).await?)
    }

    /// Renames a path. Fails when the new name exists.
    pub async fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), SftpError> {
        status(self.session.request(kind::RENAME, Bytes::new(), |out| put_two(out, from, to)).await?)
    }

    /// Renames a path and replaces an existing file of the new name (`posix-rename@openssh.com`).
    pub async fn posix_rename(&self, from: &[u8], to: &[u8]) -> Result<(), SftpError> {
        let renamed = status(self.extended("posix-rename@openssh.com", |out| put_two(out, from, to)).await?);
        note_refusal(&renamed, &self.refuses.posix_rename);
        renamed
    }

    /// Flushes an open file to the vessel's disk (`fsync@openssh.com`).
    pub async fn fsync(&self, handle: &Handle) -> Result<(), SftpError> {
        let flushed = status(self.extended("fsync@openssh.com", |out| put_string(out, &handle.0)).await?);
        if note_refusal(&flushed, &self.refuses.fsync) { Ok(()) } else { flushed }
    }

    /// Returns the free space of the file system that a path is on (`statvfs@openssh.com`).
    pub async fn statvfs(&self, path: &[u8]) -> Result<Space, SftpError> {
        let told = match self.extended("statvfs@openssh.com", |out| put_string(out, path)).await? {
            Reply::Extended(body) => Ok(Space::read(Reader(body))?),
            other => Err(unexpected(other)),
        };
        self.or_missing(path, told).await
    }

    /// Returns the vessel's limits (`limits@openssh.com`).
    pub async fn limits(&self) -> Result<Limits, SftpError> {
        greeting::limits(self.extended(greeting::LIMITS, |_| {}).await?)
    }
}

fn put_two(out: &mut BytesMut, first: &[u8], second: &[u8]) {
    put_string(out, first);
    put_string(out, second);
}

fn attrs(reply: Reply) -> Result<Attrs, SftpError> {
    match reply {
        Reply::Attrs(attrs) => Ok(attrs),
        other => Err(unexpected(other)),
    }
}

/// Parses a server's byte stream, first the extensions and then the replies, up to the first invalid packet.
#[cfg(any(test, fuzzing))]
pub(super) fn read_stream(bytes: &[u8]) {
    let mut arrived = BytesMut::from(bytes);
    let mut first = true;
    while let Ok(Some(packet)) = wire::split_packet(&mut arrived) {
        let mut reader = Reader(packet);
        if std::mem::take(&mut first) {
            let _ = session::extensions(reader).map(|extensions| check_file::may_know(&extensions));
            continue;
        }
        let (Ok(which), Ok(_)) = (reader.u8(), reader.u32()) else { return };
        if which == kind::EXTENDED_REPLY {
            let _ = Space::read(Reader(reader.0.clone()));
            let _ = check_file::digest(reader.0.clone());
        }
        let _ = reader.reply(which);
    }
}
