//! An SFTP session with many requests in flight over one channel, and with deadlines that distinguish a slow link from
//! a dead one.
//!
//! One task writes and one task reads. The writer is never cancelled while the session lives, because a half-written
//! packet would corrupt all later packets. This module handles packets and timeouts, not the meaning of requests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use russh::ChannelMsg;
use russh::client::Msg;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::SftpError;
use super::window::{InFlight, Window};
use super::wire::{self, Reader, Reply, kind};
use crate::transport::excerpt::excerpt;

/// The maximum number of requests queued for the writer. The [`Window`] limits the total size of their payloads.
const QUEUE: usize = 64;
/// Small packets are sent together up to this size in bytes, so that a burst of requests does not become a burst of SSH
/// packets.
const GATHER: usize = 32 * 1024;
/// The largest payload of one write, in bytes.
const LARGEST_WRITE: u64 = 256 * 1024;
/// The lowest link rate, in bytes per second, that is assumed when judging whether a reply is overdue.
const SLOWEST: u64 = 4 * 1024;

/// A slow reply may take this many times `Timeout`, because the vessel may have to write the whole file to an object
/// store first, or to flush a slow disk. SSH keepalives detect a dead host meanwhile.
const SLOW: u32 = 6;

/// How many bytes of the vessel's error output are kept for the error message.
const MOST_COMPLAINT: usize = 4096;

/// The link may be down if there was no progress for the longer of two times: `SILENCE`, or `SILENT_ROUND_TRIPS` round
/// trips.
const SILENCE: Duration = Duration::from_secs(2);
const SILENT_ROUND_TRIPS: u32 = 8;

/// A request queued for the writer: its head and, for a write, the bytes to write.
struct Outgoing {
    head: Bytes,
    payload: Bytes,
}

struct Waiting {
    reply: oneshot::Sender<Reply>,
    payload: u64,
    /// When the request was sent; `None` if its reply also waits for the start of the vessel's SFTP server.
    asked: Option<Instant>,
    /// Whether the reply may take long, because the vessel waits for its disk or object store first.
    slow: bool,
    /// How much longer than other replies this one may take, because the vessel reads a whole file first.
    patience: Duration,
    /// Counts the payload as in flight until the reply arrives, even if the caller drops the request earlier.
    _in_flight: Option<InFlight>,
}

struct State {
    waiting: HashMap<u32, Waiting>,
    unanswered_bytes: u64,
    /// The number of pending requests whose replies may take long ([`Waiting::slow`]).
    slow: usize,
    /// When a reply last arrived, the channel last accepted bytes, or a request was last sent while none was pending.
    moved: Instant,
    /// When the current wait for the next confirmation of payload began.
    waiting_since: Instant,
    rate: Rate,
}

impl State {
    /// Returns how much longer than usual the next reply may take. A vessel may reply in order, but at most one request
    /// has to be handled before the next reply.
    fn patience(&self) -> Duration {
        self.waiting.values().map(|waiting| waiting.patience).max().unwrap_or_default()
    }
}

/// The rate at which the vessel acknowledges payload, weighted towards recent replies.
#[derive(Default)]
struct Rate {
    bytes: f64,
    seconds: f64,
}

impl Rate {
    fn add(&mut self, bytes: u64, took: Duration) {
        if self.seconds > 10.0 {
            self.bytes /= 2.0;
            self.seconds /= 2.0;
        }
        self.bytes += bytes as f64;
        self.seconds += took.as_secs_f64();
    }

    /// Returns a quarter of the average rate in bytes per second, but at least [`SLOWEST`].
    fn pessimistic(&self) -> f64 {
        let average = if self.seconds > 0.1 { self.bytes / self.seconds } else { 0.0 };
        (average / 4.0).max(SLOWEST as f64)
    }
}

struct Shared {
    state: Mutex<State>,
    window: Window,
    next_id: AtomicU32,
    timeout: Duration,
    takes_at_once: usize,
    ended: OnceLock<SftpError>,
    /// Cancelled after `ended` is set, while the state is locked, so that no request can be added after the pending
    /// requests failed.
    over: CancellationToken,
    /// A weak sender, because the session must end when the last [`Session`] is dropped.
    outgoing: mpsc::WeakSender<Outgoing>,
    /// Notified when a request is sent while none was pending, so that nothing looks at an idle session.
    begun: Notify,
}

/// A handle to an SFTP session; cheap to clone. The session ends when the last handle is dropped or the channel closes.
#[derive(Clone)]
pub(crate) struct Session {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    fn end(&self, why: SftpError) {
        let _ = self.ended.set(why);
        let mut state = self.state();
        self.over.cancel();
        state.waiting.clear();
        state.slow = 0;
        drop(state);
        self.window.close();
    }

    fn why_ended(&self) -> SftpError {
        self.ended.get().cloned().unwrap_or_else(|| SftpError::Lost("the SFTP channel was closed".into()))
    }

    /// Registers a request that is about to be sent.
    fn expect(&self, id: u32, waiting: Waiting) -> Result<(), SftpError> {
        let mut state = self.state();
        if self.over.is_cancelled() {
            return Err(self.why_ended());
        }
        let now = Instant::now();
        let first = state.waiting.is_empty();
        if first {
            state.moved = now;
        }
        if state.unanswered_bytes == 0 {
            state.waiting_since = now;
        }
        state.unanswered_bytes += waiting.payload;
        state.slow += usize::from(waiting.slow);
        state.waiting.insert(id, waiting);
        drop(state);
        if first {
            self.begun.notify_waiters();
        }
        Ok(())
    }

    /// Waits until a reply is pending.
    async fn asked(&self) {
        loop {
            let mut begun = std::pin::pin!(self.begun.notified());
            begun.as_mut().enable();
            if !self.state().waiting.is_empty() {
                return;
            }
            begun.await;
        }
    }

    fn moved(&self) {
        self.state().moved = Instant::now();
    }

    /// Returns how long there was no progress if that is longer than the timeout plus the time that the next write
    /// needs on the link; otherwise `None`.
    fn overdue(&self) -> Option<Duration> {
        let state = self.state();
        if state.waiting.is_empty() {
            return None;
        }
        let silent = state.moved.elapsed();
        // Replies arrive one by one, so at most one write has to be transferred before the next reply.
        let next = state.unanswered_bytes.min(LARGEST_WRITE);
        let on_the_way = Duration::from_secs_f64(next as f64 / state.rate.pessimistic());
        // A server may reply in order, so one slow request also delays the replies to all later requests.
        let timeout = if state.slow > 0 { self.timeout * SLOW } else { self.timeout };
        (silent > timeout + state.patience() + on_the_way).then_some(silent)
    }

    /// Returns whether replies are pending and there was no progress for longer than round-trip time and rate explain,
    /// so that the link may be down.
    fn is_silent(&self) -> bool {
        let patience = SILENCE.max(self.window.round_trip() * SILENT_ROUND_TRIPS);
        let state = self.state();
        let next = state.unanswered_bytes.min(self.window.worth_writing());
        let on_the_way = Duration::from_secs_f64(next as f64 / state.rate.pessimistic());
        !state.waiting.is_empty() && state.moved.elapsed() > patience + state.patience() + on_the_way
    }

    fn answer_all(self: &Arc<Self>, arrived: &mut BytesMut) -> Result<(), wire::Garbled> {
        while let Some(packet) = wire::split_packet(arrived)? {
            self.answer(Reader(packet))?;
        }
        Ok(())
    }

    fn answer(self: &Arc<Self>, mut packet: Reader) -> Result<(), wire::Garbled> {
        let kind = packet.u8()?;
        let id = packet.u32()?;
        let reply = packet.reply(kind)?;
        let mut state = self.state();
        let now = Instant::now();
        state.moved = now;
        let waiting = state.waiting.remove(&id).ok_or(wire::Garbled)?;
        state.slow -= usize::from(waiting.slow);
        if waiting.payload > 0 {
            let took = now - state.waiting_since;
            state.waiting_since = now;
            state.unanswered_bytes -= waiting.payload;
            state.rate.add(waiting.payload, took);
        }
        drop(state);
        self.window.answered(waiting.payload, now);
        if let (0, Some(asked)) = (waiting.payload, waiting.asked) {
            self.window.note_round_trip(now - asked);
        }
        // The caller may have stopped waiting. The reply was still counted above, and a handle in the reply must be
        // closed.
        if let Err(Reply::Handle(handle)) = waiting.reply.send(reply) {
            self.close_unused(handle);
        }
        Ok(())
    }

    /// Closes a file that was opened after its caller had stopped waiting, because vessels limit the number of open
    /// files.
    fn close_unused(self: &Arc<Self>, handle: Bytes) {
        let Some(outgoing) = self.outgoing.upgrade() else { return };
        let session = Session { shared: self.clone(), outgoing };
        let close = async move {
            let closing = session.request(kind::CLOSE, Bytes::new(), |out| wire::put_string(out, &handle));
            if let Err(error) = closing.await {
                tracing::debug!("Cannot close a file that is no longer needed: {error}");
            }
        };
        tokio::spawn(close);
    }
}

/// A request whose reply is pending.
pub(crate) struct Pending {
    answer: oneshot::Receiver<Reply>,
    shared: Arc<Shared>,
}

impl Pending {
    pub(crate) async fn wait(self) -> Result<Reply, SftpError> {
        self.answer.await.map_err(|_| self.shared.why_ended())
    }
}

/// A started session, the extensions that the vessel announced, and the replies to the early requests in their order.
type Started = (Session, HashMap<String, String>, Vec<Pending>);

/// Requests that are sent together with the greeting, which saves a round trip. Each has a type and its fields.
#[derive(Default)]
pub(crate) struct Early {
    pub(crate) requests: Vec<(u8, BytesMut)>,
    /// The round-trip time of the path. The replies do not measure it, because they wait for the start of the server.
    pub(crate) round_trip: Duration,
}

impl Session {
    /// Starts SFTP on a channel after its subsystem was requested.
    pub(crate) async fn start(
        channel: russh::Channel<Msg>,
        (start, timeout): (Duration, Duration),
        steady: bool,
        early: Early,
    ) -> Result<Started, SftpError> {
        let (mut reader, writer) = channel.split();
        let mut init = BytesMut::from(&[0, 0, 0, 5, kind::INIT][..]);
        init.extend_from_slice(&3u32.to_be_bytes());
        let (mut waiting, mut answers, mut next_id) = (HashMap::new(), Vec::new(), 1);
        for (kind, fields) in early.requests {
            let mut head = wire::begin(kind, next_id);
            head.extend_from_slice(&fields);
            init.extend_from_slice(&wire::end(head, 0));
            let (reply, answer) = oneshot::channel();
            let (payload, patience) = (0, Duration::ZERO);
            waiting.insert(next_id, Waiting { reply, payload, asked: None, slow: false, patience, _in_flight: None });
            answers.push(answer);
            next_id += 1;
        }
        let mut arrived = BytesMut::new();
        let mut complaint = Vec::new();
        let greeting = async {
            writer
                .data_bytes(init.freeze())
                .await
                .map_err(|_| SftpError::Lost("the SFTP channel was closed".into()))?;
            loop {
                match wire::split_packet(&mut arrived) {
                    Ok(Some(packet)) => return extensions(Reader(packet)),
                    Ok(None) => {}
                    Err(wire::Garbled) => return Err(said_instead(&arrived)),
                }
                match reader.wait().await {
                    Some(ChannelMsg::Data { data }) => arrived.extend_from_slice(&data),
                    Some(ChannelMsg::Failure) => {
                        return Err(SftpError::Lost("the vessel refused the subsystem".into()));
                    }
                    Some(ChannelMsg::ExtendedData { data, .. }) if complaint.len() < MOST_COMPLAINT => {
                        complaint.extend_from_slice(&data);
                    }
                    // The error output may arrive after the end of the standard output.
                    Some(ChannelMsg::Eof) => {}
                    Some(ChannelMsg::Close) | None => return Err(ended_early(&arrived, &complaint)),
                    Some(_) => {}
                }
            }
        };
        let extensions = tokio::time::timeout(start, greeting).await.map_err(|_| SftpError::Silent(start))??;
        // Must come after the greeting, because OpenSSH opens a session's window only once its program runs.
        let takes_at_once = writer.writable_packet_size().await;

        let (outgoing, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            outgoing: outgoing.downgrade(),
            state: Mutex::new(State {
                waiting,
                unanswered_bytes: 0,
                slow: 0,
                moved: Instant::now(),
                waiting_since: Instant::now(),
                rate: Rate::default(),
            }),
            window: Window::new(steady),
            next_id: AtomicU32::new(next_id),
            timeout,
            takes_at_once,
            ended: OnceLock::new(),
            over: CancellationToken::new(),
            begun: Notify::new(),
        });
        if early.round_trip > Duration::ZERO {
            shared.window.note_round_trip(early.round_trip);
        }
        // Replies may have arrived with the greeting.
        shared.answer_all(&mut arrived).map_err(|wire::Garbled| SftpError::Garbled)?;
        tokio::spawn(write_all(queue, writer, shared.clone()));
        tokio::spawn(read_all(reader, arrived, shared.clone()));
        let early = answers.into_iter().map(|answer| Pending { answer, shared: shared.clone() }).collect();
        Ok((Self { shared, outgoing }, extensions, early))
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

    /// Sends a request like [`send`](Self::send), whose reply may take longer than other replies by `patience`.
    pub(crate) async fn send_patiently(
        &self,
        kind: u8,
        payload: Bytes,
        fill: impl FnOnce(&mut BytesMut),
        patience: Duration,
    ) -> Result<Pending, SftpError> {
        let in_flight = match payload.len() {
            0 => None,
            bytes => Some(self.shared.window.enter(bytes).await.ok_or_else(|| self.shared.why_ended())?),
        };
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let mut head = wire::begin(kind, id);
        fill(&mut head);
        let slow = wire::is_slow(&head);
        let head = wire::end(head, payload.len());
        let (reply, answer) = oneshot::channel();
        // There is no await between the reservation and the send, so every registered request is sent.
        let place = self.outgoing.reserve().await.map_err(|_| self.shared.why_ended())?;
        self.shared.expect(
            id,
            Waiting {
                reply,
                payload: payload.len() as u64,
                asked: Some(Instant::now()),
                slow,
                patience,
                _in_flight: in_flight,
            },
        )?;
        place.send(Outgoing { head, payload });
        Ok(Pending { answer, shared: self.shared.clone() })
    }

    /// Waits until a reply is pending.
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

    /// Sets an upper bound of the payload bytes in flight, at once if nothing was measured yet.
    pub(crate) fn begin_with(&self, bytes: usize) {
        self.shared.window.begin_with(bytes);
    }

    /// Returns how many bytes the channel accepted at once when the session started: the size of one packet, or the
    /// channel's window if that was smaller.
    pub(crate) fn takes_at_once(&self) -> usize {
        self.shared.takes_at_once
    }

    /// Returns how many payload bytes are not confirmed yet.
    pub(crate) fn unanswered_bytes(&self) -> u64 {
        self.shared.state().unanswered_bytes
    }

    /// Returns how many payload bytes were confirmed since the session started.
    pub(crate) fn answered_bytes(&self) -> u64 {
        self.shared.window.answered_bytes()
    }
}

/// Returns the error for a channel that was closed before SFTP started. It quotes the vessel's error output, or its
/// other output if there is no error output.
fn ended_early(output: &[u8], complaint: &[u8]) -> SftpError {
    let words = if complaint.is_empty() { output } else { complaint };
    let words = excerpt(&String::from_utf8_lossy(words));
    let ended = "the vessel closed the SFTP channel before SFTP began";
    SftpError::Lost(if words.is_empty() { ended.into() } else { format!("{ended}; the vessel says: {words}") })
}

/// Returns an error that quotes text received instead of the SFTP greeting. The text often names the reason, such as a
/// `nologin` shell or a profile that prints a message.
fn said_instead(arrived: &[u8]) -> SftpError {
    const MOST: usize = 200;
    match std::str::from_utf8(&arrived[..arrived.len().min(MOST)]) {
        Ok(text) if text.chars().all(|c| !c.is_control() || c.is_whitespace()) => {
            SftpError::Lost(format!("the vessel sent this text instead of SFTP: \"{}\"", excerpt(text)))
        }
        _ => SftpError::Garbled,
    }
}

/// Parses the SFTP greeting, which consists of the version and the extensions. Returns the extensions by name.
pub(super) fn extensions(mut packet: Reader) -> Result<HashMap<String, String>, SftpError> {
    let (kind, version) = (packet.u8()?, packet.u32()?);
    if kind != kind::VERSION || version < 3 {
        return Err(SftpError::Garbled);
    }
    let mut extensions = HashMap::new();
    while !packet.is_empty() {
        let (name, value) = (packet.string()?, packet.string()?);
        extensions.insert(String::from_utf8_lossy(&name).into_owned(), String::from_utf8_lossy(&value).into_owned());
    }
    Ok(extensions)
}

async fn write_all(mut queue: mpsc::Receiver<Outgoing>, writer: russh::ChannelWriteHalf<Msg>, shared: Arc<Shared>) {
    let mut gathered = BytesMut::new();
    while let Some(Some(next)) = shared.over.run_until_cancelled(queue.recv()).await {
        gathered.extend_from_slice(&next.head);
        let mut payload = next.payload;
        // Small payloads are copied into one buffer with the neighbouring requests; large payloads are sent without a
        // copy.
        while payload.len() < GATHER && gathered.len() < GATHER {
            gathered.extend_from_slice(&payload);
            payload = Bytes::new();
            let Ok(next) = queue.try_recv() else { break };
            gathered.extend_from_slice(&next.head);
            payload = next.payload;
        }
        for bytes in [gathered.split().freeze(), payload] {
            if bytes.is_empty() {
                continue;
            }
            // The SSH library waits forever for window space on a dead connection, so the write is cancelled when the
            // session ends. A half-written packet does no harm then, because the session reads no more replies.
            match shared.over.run_until_cancelled(writer.data_bytes(bytes)).await {
                Some(Ok(())) => shared.moved(),
                Some(Err(_)) => return shared.end(SftpError::Lost("the connection was closed".into())),
                None => return,
            }
        }
    }
    // The last handle was dropped, or the session has ended. The vessel's SFTP server exits when its input ends.
    let _ = writer.eof().await;
    let _ = writer.close().await;
}

async fn read_all(mut reader: russh::ChannelReadHalf, mut arrived: BytesMut, shared: Arc<Shared>) {
    let mut look = tokio::time::interval(Duration::from_millis(500));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next_look = async {
            shared.asked().await;
            look.tick().await
        };
        tokio::select! {
            message = reader.wait() => match message {
                Some(ChannelMsg::Data { data }) => {
                    arrived.extend_from_slice(&data);
                    if shared.answer_all(&mut arrived).is_err() {
                        return shared.end(SftpError::Garbled);
                    }
                }
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => {
                    return shared.end(SftpError::Lost("the connection was closed".into()));
                }
                Some(_) => {}
            },
            _ = next_look => if let Some(silent) = shared.overdue() {
                return shared.end(SftpError::Silent(silent));
            },
        }
    }
}
