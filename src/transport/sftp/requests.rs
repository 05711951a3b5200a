//! The pending requests of an SFTP session, and the deadlines that distinguish a slow link from a dead one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::SftpError;
use super::window::{InFlight, Window};
use super::wire::{self, Reader, Reply, kind};

/// The number of the first request.
pub(super) const FIRST_ID: u32 = 1;
/// The largest payload of one write, in bytes.
const LARGEST_WRITE: u64 = 256 * 1024;
/// The lowest link rate, in bytes per second, that is assumed when judging whether a reply is overdue.
const SLOWEST: u64 = 4 * 1024;

/// The reply to a slow request may take this many times `Timeout`, because the vessel may first have to write the whole
/// file to an object store, or to flush a slow disk. SSH keepalives detect a dead host meanwhile.
const SLOW: u32 = 6;

/// The link may be down after a time without progress: `SILENCE` or `SILENT_ROUND_TRIPS` round trips, whichever is
/// longer.
const SILENCE: Duration = Duration::from_secs(2);
const SILENT_ROUND_TRIPS: u32 = 8;

/// A request queued for the writer: its head and, for a write, the bytes to write.
pub(super) struct Outgoing {
    pub(super) head: Bytes,
    pub(super) payload: Bytes,
}

/// A request whose reply is pending.
struct Waiting {
    reply: oneshot::Sender<Reply>,
    payload: u64,
    /// When the request was sent. `None` for a request that was sent together with the greeting: its reply also waits
    /// for the start of the vessel's SFTP server, so it does not measure the round-trip time.
    asked: Option<Instant>,
    /// Whether the reply may take long, because the vessel waits for its disk or object store first.
    slow: bool,
    /// How much longer than usual this reply may take, because the vessel has to read a whole file first.
    patience: Duration,
    /// Counts the payload as in flight until the reply arrives, even if the caller drops the request earlier.
    _in_flight: Option<InFlight>,
}

struct State {
    waiting: HashMap<u32, Waiting>,
    unanswered_bytes: u64,
    /// The number of pending requests whose replies may take long ([`Waiting::slow`]).
    slow: usize,
    /// The time of the last progress: a reply arrived, the channel accepted bytes, or a request was sent while none was
    /// pending.
    moved: Instant,
    /// When the wait for the next confirmation of payload began.
    waiting_since: Instant,
    rate: Rate,
}

impl State {
    /// Returns how much longer than usual the next reply may take: the longest patience of all pending requests. Even a
    /// vessel that replies in order handles at most one request before the next reply.
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

/// The state that a session and its two tasks share.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) window: Window,
    next_id: AtomicU32,
    timeout: Duration,
    ended: OnceLock<SftpError>,
    /// Cancelled after `ended` is set. The state is locked during the cancellation, so that no request can be added
    /// after the pending requests failed.
    pub(super) over: CancellationToken,
    /// A weak sender, because the session must end when its last handle is dropped.
    outgoing: mpsc::WeakSender<Outgoing>,
    /// Notified when a request is sent while none was pending. An idle session waits for this notification, so that it
    /// needs no timer.
    begun: Notify,
}

impl Shared {
    /// Creates the shared state. `early` holds the senders for the replies to the requests that were sent together with
    /// the greeting.
    pub(super) fn new(
        outgoing: &mpsc::Sender<Outgoing>,
        window: Window,
        timeout: Duration,
        early: Vec<oneshot::Sender<Reply>>,
    ) -> Arc<Self> {
        let next_id = FIRST_ID + u32::try_from(early.len()).expect("a handful of requests is sent early");
        let waiting = |reply| {
            let (payload, patience) = (0, Duration::ZERO);
            Waiting { reply, payload, asked: None, slow: false, patience, _in_flight: None }
        };
        Arc::new(Self {
            outgoing: outgoing.downgrade(),
            state: Mutex::new(State {
                waiting: (FIRST_ID..).zip(early.into_iter().map(waiting)).collect(),
                unanswered_bytes: 0,
                slow: 0,
                moved: Instant::now(),
                waiting_since: Instant::now(),
                rate: Rate::default(),
            }),
            window,
            next_id: AtomicU32::new(next_id),
            timeout,
            ended: OnceLock::new(),
            over: CancellationToken::new(),
            begun: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// Ends the session: all pending requests fail with the reason.
    pub(super) fn end(&self, why: SftpError) {
        let _ = self.ended.set(why);
        let mut state = self.state();
        self.over.cancel();
        state.waiting.clear();
        state.slow = 0;
        drop(state);
        self.window.close();
    }

    /// Returns why the session has ended.
    pub(super) fn why_ended(&self) -> SftpError {
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

    /// Passes a request to the writer. Requests are sent in the order in which the calls return. The reply may take
    /// longer than usual by `patience`.
    pub(super) async fn send(
        self: &Arc<Self>,
        outgoing: &mpsc::Sender<Outgoing>,
        (kind, payload, patience): (u8, Bytes, Duration),
        fill: impl FnOnce(&mut BytesMut),
    ) -> Result<Pending, SftpError> {
        let in_flight = match payload.len() {
            0 => None,
            bytes => Some(self.window.enter(bytes).await.ok_or_else(|| self.why_ended())?),
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut head = wire::begin(kind, id);
        fill(&mut head);
        let slow = wire::is_slow(&head);
        let head = wire::end(head, payload.len());
        let (reply, answer) = oneshot::channel();
        // There is no await between the reservation and the send, so every registered request is sent.
        let place = outgoing.reserve().await.map_err(|_| self.why_ended())?;
        self.expect(
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
        Ok(Pending { answer, shared: self.clone() })
    }

    /// Waits until at least one request is waiting for its reply.
    pub(super) async fn asked(&self) {
        loop {
            let mut begun = std::pin::pin!(self.begun.notified());
            begun.as_mut().enable();
            if !self.state().waiting.is_empty() {
                return;
            }
            begun.await;
        }
    }

    /// Notes that the channel accepted bytes.
    pub(super) fn moved(&self) {
        self.state().moved = Instant::now();
    }

    /// Returns how many payload bytes are not confirmed yet.
    pub(super) fn unanswered_bytes(&self) -> u64 {
        self.state().unanswered_bytes
    }

    /// Returns the time since the last progress if it is longer than the timeout plus the time that the next write
    /// needs on the link; otherwise `None`.
    pub(super) fn overdue(&self) -> Option<Duration> {
        let state = self.state();
        if state.waiting.is_empty() {
            return None;
        }
        let silent = state.moved.elapsed();
        // Replies arrive one at a time, so the link transfers at most one write before the next reply.
        let next = state.unanswered_bytes.min(LARGEST_WRITE);
        let on_the_way = Duration::from_secs_f64(next as f64 / state.rate.pessimistic());
        // A server may reply in order, so one slow request also delays the replies to all later requests.
        let timeout = if state.slow > 0 { self.timeout * SLOW } else { self.timeout };
        // TCP sends a lost packet again after three round trips or more, and waits twice as long if the new one is
        // lost, too.
        let timeout = timeout.max(self.window.round_trip() * SILENT_ROUND_TRIPS);
        (silent > timeout + state.patience() + on_the_way).then_some(silent)
    }

    /// Returns whether replies are pending and there was no progress for longer than the round-trip time and the rate
    /// can explain. The link may then be down.
    pub(super) fn is_silent(&self) -> bool {
        let patience = SILENCE.max(self.window.round_trip() * SILENT_ROUND_TRIPS);
        let state = self.state();
        let next = state.unanswered_bytes.min(self.window.worth_writing());
        let on_the_way = Duration::from_secs_f64(next as f64 / state.rate.pessimistic());
        !state.waiting.is_empty() && state.moved.elapsed() > patience + state.patience() + on_the_way
    }

    /// Passes the replies in `arrived` to the callers that wait for them. Leaves an incomplete packet in `arrived`.
    pub(super) fn answer_all(self: &Arc<Self>, arrived: &mut BytesMut) -> Result<(), wire::Garbled> {
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
        // If the caller has stopped waiting, a handle in the reply must be closed. The reply was already counted above.
        if let Err(Reply::Handle(handle)) = waiting.reply.send(reply) {
            self.close_unused(handle);
        }
        Ok(())
    }

    /// Closes a file that was opened after its caller had stopped waiting, because vessels limit the number of open
    /// files.
    fn close_unused(self: &Arc<Self>, handle: Bytes) {
        let Some(outgoing) = self.outgoing.upgrade() else { return };
        let shared = self.clone();
        let close = async move {
            let closing = shared.send(&outgoing, (kind::CLOSE, Bytes::new(), Duration::ZERO), |out| {
                wire::put_string(out, &handle);
            });
            let closed = async { closing.await?.wait().await };
            if let Err(error) = closed.await {
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
    pub(super) fn new(answer: oneshot::Receiver<Reply>, shared: Arc<Shared>) -> Self {
        Self { answer, shared }
    }

    /// Waits for the reply.
    pub(crate) async fn wait(self) -> Result<Reply, SftpError> {
        self.answer.await.map_err(|_| self.shared.why_ended())
    }
}
