//! An SFTP session with many requests in flight over one channel. It handles packets and does not interpret the
//! requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use russh::client::Msg;
use tokio::sync::{mpsc, oneshot};

use super::SftpError;
use super::handshake::{self, Early};
use super::requests::{FIRST_ID, Outgoing, Pending, Shared};
use super::streams::{read_all, write_all};
use super::window::Window;
use super::wire::{self, Reply};

/// The maximum number of requests queued for the writer. The [`Window`] limits the total size of their payloads.
const QUEUE: usize = 64;

/// A handle to an SFTP session; cheap to clone. The session ends when the last handle is dropped or the channel closes.
#[derive(Clone)]
pub(crate) struct Session {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Outgoing>,
    takes_at_once: usize,
}

/// A started session, the extensions that the vessel announced, and the replies to the early requests in their order.
type Started = (Session, HashMap<String, String>, Vec<Pending>);

impl Session {
    /// Starts SFTP on a channel after its subsystem was requested.
    pub(crate) async fn start(
        channel: russh::Channel<Msg>,
        (start, timeout): (Duration, Duration),
        steady: bool,
        early: Early,
    ) -> Result<Started, SftpError> {
        let (mut reader, writer) = channel.split();
        let mut arrived = BytesMut::new();
        let greeting = handshake::greet(&mut reader, &writer, early.packets(FIRST_ID), &mut arrived);
        let extensions = tokio::time::timeout(start, greeting).await.map_err(|_| SftpError::Silent(start))??;
        // Must come after the greeting, because OpenSSH opens a session's window only when its program runs.
        let takes_at_once = writer.writable_packet_size().await;

        let (outgoing, queue) = mpsc::channel(QUEUE);
        let (senders, answers): (Vec<_>, Vec<_>) = early.requests.iter().map(|_| oneshot::channel()).unzip();
        let shared = Shared::new(&outgoing, Window::new(steady), timeout, senders);
        if early.round_trip > Duration::ZERO {
            shared.window.note_round_trip(early.round_trip);
        }
        // Replies may have arrived with the greeting.
        shared.answer_all(&mut arrived).map_err(|wire::Garbled| SftpError::Garbled)?;
        tokio::spawn(write_all(queue, writer, shared.clone()));
        tokio::spawn(read_all(reader, arrived, shared.clone()));
        let early = answers.into_iter().map(|answer| Pending::new(answer, shared.clone())).collect();
        Ok((Self { shared, outgoing, takes_at_once }, extensions, early))
    }

    /// Returns whether the session has ended, for any reason.
    pub(crate) fn is_ended(&self) -> bool {
        self.shared.over.is_cancelled()
    }

    /// Returns why the session has ended.
    pub(crate) fn why_ended(&self) -> SftpError {
        self.shared.why_ended()
    }

    /// Waits until the session has ended.
    pub(crate) async fn over(&self) {
        self.shared.over.cancelled().await;
    }

    /// Sends a request and waits for its reply. `fill` writes the fields between the request number and the payload.
    pub(crate) async fn request(
        &self,
        kind: u8,
        payload: Bytes,
        fill: impl FnOnce(&mut BytesMut),
    ) -> Result<Reply, SftpError> {
        self.send(kind, payload, fill).await?.wait().await
    }

    /// Sends a request. Requests are sent in the order in which the calls return.
    pub(crate) async fn send(
        &self,
        kind: u8,
        payload: Bytes,
        fill: impl FnOnce(&mut BytesMut),
    ) -> Result<Pending, SftpError> {
        self.send_patiently(kind, payload, fill, Duration::ZERO).await
    }

    /// Sends a request as [`send`](Self::send) does, but the reply may take longer than usual by `patience`.
    pub(crate) async fn send_patiently(
        &self,
        kind: u8,
        payload: Bytes,
        fill: impl FnOnce(&mut BytesMut),
        patience: Duration,
    ) -> Result<Pending, SftpError> {
        self.shared.send(&self.outgoing, (kind, payload, patience), fill).await
    }

    /// Waits until at least one request is waiting for its reply.
    pub(crate) async fn asked(&self) {
        self.shared.asked().await;
    }

    /// Returns whether replies are pending and the vessel has been silent for so long that the link may be down.
    pub(crate) fn is_silent(&self) -> bool {
        self.shared.is_silent()
    }

    /// Returns the recommended size of one write in bytes, which depends on the send window.
    pub(crate) fn worth_writing(&self) -> u64 {
        self.shared.window.worth_writing()
    }

    /// Returns about how many bytes are sent in one round trip.
    pub(crate) fn worth_a_file(&self) -> u64 {
        self.shared.window.worth_a_file()
    }

    /// Returns the shortest round-trip time measured so far.
    pub(crate) fn round_trip(&self) -> Duration {
        self.shared.window.round_trip()
    }

    /// Sets an upper bound of the payload bytes in flight.
    pub(crate) fn limit_window(&self, bytes: usize) {
        self.shared.window.limit(bytes);
    }

    /// Sets an upper bound of the payload bytes in flight. If nothing was measured yet, the window gets this size at
    /// once.
    pub(crate) fn begin_with(&self, bytes: usize) {
        self.shared.window.begin_with(bytes);
    }

    /// Returns how many bytes the channel accepted at once when the session started: the size of one packet, or the
    /// channel's window if that was smaller.
    pub(crate) fn takes_at_once(&self) -> usize {
        self.takes_at_once
    }

    /// Returns how many payload bytes are not confirmed yet.
    pub(crate) fn unanswered_bytes(&self) -> u64 {
        self.shared.unanswered_bytes()
    }

    /// Returns how many payload bytes were confirmed since the session started.
    pub(crate) fn answered_bytes(&self) -> u64 {
        self.shared.window.answered_bytes()
    }
}
