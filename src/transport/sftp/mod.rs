//! An SFTP version 3 client. It keeps names and handles as bytes, passes on the vessel's status codes, and has many
//! requests in flight at once.
//!
//! [`Sftp`] has one method for each request that this program makes. This module does not depend on deliveries.

mod check_file;
mod error;
mod greeting;
mod handles;
mod handshake;
mod listing;
mod missing;
mod open_files;
mod paths;
mod requests;
mod session;
mod space;
mod streams;
mod window;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use russh::client::Msg;

use handles::{Counted, Handles};
use handshake::Early;
use missing::Missing;
use requests::Pending;
use session::Session;
use wire::{Reply, kind, put_string};

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
    /// `timeouts` holds the deadline for the start, and the timeout after which a vessel that sends no reply counts as
    /// silent. The time that the bytes in flight need on the link is added to this timeout. `steady` says whether the
    /// congestion control keeps its sending rate when packets are lost. `long` is the round-trip time if it is long and
    /// the server accepts requests together with our greeting; the first requests are then sent with the greeting.
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

    /// Waits until at least one request is waiting for its reply.
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

    /// Limits the number of open files to `number`; 0 means that the vessel names no limit.
    pub fn keep_to_handles(&self, number: u64) {
        self.handles.allow(number);
    }

    /// Sets an upper bound of the payload bytes in flight.
    pub fn limit_window(&self, bytes: usize) {
        self.session.limit_window(bytes);
    }

    /// Sets an upper bound of the payload bytes in flight. If nothing was measured yet, the window gets this size at
    /// once.
    pub fn begin_with(&self, bytes: usize) {
        self.session.begin_with(bytes);
    }

    /// Returns the vessel's limits (`limits@openssh.com`).
    pub async fn limits(&self) -> Result<Limits, SftpError> {
        greeting::limits(self.extended(greeting::LIMITS, |_| {}).await?)
    }
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
        let mut reader = wire::Reader(packet);
        if std::mem::take(&mut first) {
            let _ = handshake::extensions(reader).map(|extensions| check_file::may_know(&extensions));
            continue;
        }
        let (Ok(which), Ok(_)) = (reader.u8(), reader.u32()) else { return };
        if which == kind::EXTENDED_REPLY {
            let _ = Space::read(wire::Reader(reader.0.clone()));
            let _ = check_file::digest(reader.0.clone());
        }
        let _ = reader.reply(which);
    }
}
