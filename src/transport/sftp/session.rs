//! One SFTP session: many requests in flight over one channel, and a deadline that knows a slow link from a dead one.
//!
//! One task writes, one reads. The writer is never cancelled: a half-written packet would garble all that follow.
//! Knows packets and time, not what they are for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use russh::ChannelMsg;
use russh::client::Msg;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::SftpError;
use super::window::{InFlight, Window};
use super::wire::{self, Reader, Reply, kind};
use crate::transport::excerpt::excerpt;

/// Requests queued for the writer; each holds its payload, which the [`Window`] bounds.
const QUEUE: usize = 64;
/// Small packets are sent together up to this size, so that a burst of requests is not a burst of SSH packets.
const GATHER: usize = 32 * 1024;
/// The largest payload of one write, in bytes.
const LARGEST_WRITE: u64 = 256 * 1024;
/// No link is taken to be slower than this, in bytes per second, when it is judged whether an answer is overdue.
const SLOWEST: u64 = 4 * 1024;

/// How many times `Timeout` an answer may take for which a vessel has to write all of a file elsewhere first (a gateway to an
/// object store), or to flush a slow disk. Keepalives tell meanwhile that the host is there.
const SLOW: u32 = 6;

/// Most of what the vessel complains of that is kept, in bytes.
const MOST_COMPLAINT: usize = 4096;

/// After so long without anything moving, and so many round trips, a link may be down.
const SILENCE: Duration = Duration::from_secs(2);
const SILENT_ROUND_TRIPS: u32 = 8;

/// A request on its way to the writer: its head, and the bytes to be written where it carries any.
struct Outgoing {
    head: Bytes,
    payload: Bytes,
}

struct Waiting {
    reply: oneshot::Sender<Reply>,
    payload: u64,
    asked: Instant,
    /// Whether the answer may take as long as the vessel's disk, or the store behind it.
    slow: bool,
    /// Given back when the answer arrives, not when whoever asked loses interest: the bytes are in flight until then.
    _in_flight: Option<InFlight>,
}

struct State {
    waiting: HashMap<u32, Waiting>,
    unanswered_bytes: u64,
    /// How many of those that wait may take long.
    slow: usize,
    /// When something last moved: a reply came, or the channel took bytes from us.
    moved: Instant,
    /// Since when the unanswered payload has been waiting for its next answer.
    waiting_since: Instant,
    rate: Rate,
}

/// The rate at which the vessel acknowledges payload, forgetting the distant past.
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

    /// A quarter of the average rate in bytes per second, and never less than [`SLOWEST`].
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
    /// Set once `ended` is, while the state is locked: no request can slip in after the last was given up.
    over: CancellationToken,
}

/// A cheap-to-clone handle to a session. The session ends when the last handle is dropped or the channel closes.
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

    /// Notes that a request is about to go out.
    fn expect(&self, id: u32, waiting: Waiting) -> Result<(), SftpError> {
        let mut state = self.state();
        if self.over.is_cancelled() {
            return Err(self.why_ended());
        }
        let now = Instant::now();
        if state.waiting.is_empty() {
            state.moved = now;
        }
        if state.unanswered_bytes == 0 {
            state.waiting_since = now;
        }
        state.unanswered_bytes += waiting.payload;
        state.slow += usize::from(waiting.slow);
        state.waiting.insert(id, waiting);
        Ok(())
    }

    fn moved(&self) {
        self.state().moved = Instant::now();
    }

    /// How long the vessel has been silent beyond what its link explains; `None` while all is well.
    fn overdue(&self) -> Option<Duration> {
        let state = self.state();
        if state.waiting.is_empty() {
            return None;
        }
        let silent = state.moved.elapsed();
        // Answers come one by one, so no more than one write lies between us and the next.
        let next = state.unanswered_bytes.min(LARGEST_WRITE);
        let on_the_way = Duration::from_secs_f64(next as f64 / state.rate.pessimistic());
        // Servers answer in order: what comes after a slow request waits with it.
        let timeout = if state.slow > 0 { self.timeout * SLOW } else { self.timeout };
        (silent > timeout + on_the_way).then_some(silent)
    }

    /// Whether nothing has moved for longer than the path and the rate on it explain: perhaps the link is down.
    fn is_silent(&self) -> bool {
        let patience = SILENCE.max(self.window.round_trip() * SILENT_ROUND_TRIPS);
        let state = self.state();
        let next = state.unanswered_bytes.min(self.window.worth_writing());
        let on_the_way = Duration::from_secs_f64(next as f64 / state.rate.pessimistic());
        !state.waiting.is_empty() && state.moved.elapsed() > patience + on_the_way
    }

    fn answer_all(&self, arrived: &mut BytesMut) -> Result<(), wire::Garbled> {
        while let Some(packet) = wire::split_packet(arrived)? {
            self.answer(Reader(packet))?;
        }
        Ok(())
    }

    fn answer(&self, mut packet: Reader) -> Result<(), wire::Garbled> {
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
        if waiting.payload == 0 {
            self.window.note_round_trip(now - waiting.asked);
        }
        // Whoever asked may have gone; the answer has served its purpose all the same.
        let _ = waiting.reply.send(reply);
        Ok(())
    }
}

/// A request whose reply is still to come.
pub(crate) struct Pending {
    answer: oneshot::Receiver<Reply>,
    shared: Arc<Shared>,
}

impl Pending {
    pub(crate) async fn wait(self) -> Result<Reply, SftpError> {
        self.answer.await.map_err(|_| self.shared.why_ended())
    }
}

impl Session {
    /// Starts SFTP on a channel whose subsystem has been asked for; returns the extensions that the vessel announced.
    pub(crate) async fn start(
        channel: russh::Channel<Msg>,
        (start, timeout): (Duration, Duration),
        steady: bool,
    ) -> Result<(Self, HashMap<String, String>), SftpError> {
        let (mut reader, writer) = channel.split();
        let mut init = BytesMut::from(&[0, 0, 0, 5, kind::INIT][..]);
        init.extend_from_slice(&3u32.to_be_bytes());
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
                    Some(ChannelMsg::Failure) => return Err(SftpError::Lost("the subsystem was refused".into())),
                    Some(ChannelMsg::ExtendedData { data, .. }) if complaint.len() < MOST_COMPLAINT => {
                        complaint.extend_from_slice(&data);
                    }
                    // What went wrong may come after the end of its output.
                    Some(ChannelMsg::Eof) => {}
                    Some(ChannelMsg::Close) | None => return Err(ended_early(&arrived, &complaint)),
                    Some(_) => {}
                }
            }
        };
        let extensions = tokio::time::timeout(start, greeting).await.map_err(|_| SftpError::Silent(start))??;
        // Not before: OpenSSH opens a session's window only when its program runs.
        let takes_at_once = writer.writable_packet_size().await;

        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                waiting: HashMap::new(),
                unanswered_bytes: 0,
                slow: 0,
                moved: Instant::now(),
                waiting_since: Instant::now(),
                rate: Rate::default(),
            }),
            window: Window::new(steady),
            next_id: AtomicU32::new(1),
            timeout,
            takes_at_once,
            ended: OnceLock::new(),
            over: CancellationToken::new(),
        });
        let (outgoing, queue) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(queue, writer, shared.clone()));
        tokio::spawn(read_all(reader, arrived, shared.clone()));
        Ok((Self { shared, outgoing }, extensions))
    }

    /// Whether the session has ended, for whatever reason.
    pub(crate) fn is_ended(&self) -> bool {
        self.shared.over.is_cancelled()
    }

    /// Why it has ended.
    pub(crate) fn why_ended(&self) -> SftpError {
        self.shared.why_ended()
    }

    /// Waits until the session has ended.
    pub(crate) async fn over(&self) {
        self.shared.over.cancelled().await;
    }

    /// Sends a request and waits for its reply; `fill` writes what stands between the request number and the payload.
    pub(crate) async fn request(
        &self,
        kind: u8,
        payload: Bytes,
        fill: impl FnOnce(&mut BytesMut),
    ) -> Result<Reply, SftpError> {
        self.send(kind, payload, fill).await?.wait().await
    }

    /// Sends a request. Requests go out in the order in which this returns.
    pub(crate) async fn send(
        &self,
        kind: u8,
        payload: Bytes,
        fill: impl FnOnce(&mut BytesMut),
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
        // From here to the end nothing waits: a request that is noted as expected is certain to go out.
        let place = self.outgoing.reserve().await.map_err(|_| self.shared.why_ended())?;
        self.shared.expect(
            id,
            Waiting { reply, payload: payload.len() as u64, asked: Instant::now(), slow, _in_flight: in_flight },
        )?;
        place.send(Outgoing { head, payload });
        Ok(Pending { answer, shared: self.shared.clone() })
    }

    /// Whether the vessel has been silent for so long, with answers due, that the link may be down.
    pub(crate) fn is_silent(&self) -> bool {
        self.shared.is_silent()
    }

    /// How many bytes are worth sending in one write for now.
    pub(crate) fn worth_writing(&self) -> u64 {
        self.shared.window.worth_writing()
    }

    /// How many bytes go out during a round trip for now.
    pub(crate) fn worth_a_file(&self) -> u64 {
        self.shared.window.worth_a_file()
    }

    /// The shortest time that a question and its answer took so far.
    pub(crate) fn round_trip(&self) -> Duration {
        self.shared.window.round_trip()
    }

    /// How many bytes the channel took at once when the session began: a packet, or what its window allowed.
    pub(crate) fn takes_at_once(&self) -> usize {
        self.shared.takes_at_once
    }

    /// Payload bytes that wait for an answer.
    pub(crate) fn unanswered_bytes(&self) -> u64 {
        self.shared.state().unanswered_bytes
    }

    /// Payload bytes that were answered since the session began.
    pub(crate) fn answered_bytes(&self) -> u64 {
        self.shared.window.answered_bytes()
    }
}

/// Why SFTP did not begin, in the vessel's own words where it has any.
fn ended_early(output: &[u8], complaint: &[u8]) -> SftpError {
    let words = if complaint.is_empty() { output } else { complaint };
    let words = excerpt(&String::from_utf8_lossy(words));
    let ended = "the vessel closed the SFTP channel before SFTP began";
    SftpError::Lost(if words.is_empty() { ended.into() } else { format!("{ended}; it says: {words}") })
}

/// What came in place of a greeting. It often says by itself why there is none: an account whose shell is `nologin`, or a
/// profile that greets.
fn said_instead(arrived: &[u8]) -> SftpError {
    const MOST: usize = 200;
    match std::str::from_utf8(&arrived[..arrived.len().min(MOST)]) {
        Ok(text) if text.chars().all(|c| !c.is_control() || c.is_whitespace()) => {
            SftpError::Lost(format!("instead of SFTP it sent the text \"{}\"", excerpt(text)))
        }
        _ => SftpError::Garbled,
    }
}

/// Reads the greeting: the version, then names and values of extensions.
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
        // What is small goes along with its neighbours; what is large is handed on without a copy.
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
            // The library waits for ever for room in the channel of a connection that has died. A write that is given
            // up garbles the stream, which nobody reads any more.
            match shared.over.run_until_cancelled(writer.data_bytes(bytes)).await {
                Some(Ok(())) => shared.moved(),
                Some(Err(_)) => return shared.end(SftpError::Lost("the connection was closed".into())),
                None => return,
            }
        }
    }
    // The last handle is gone: the vessel's SFTP server ends when its input does.
    let _ = writer.eof().await;
    let _ = writer.close().await;
}

async fn read_all(mut reader: russh::ChannelReadHalf, mut arrived: BytesMut, shared: Arc<Shared>) {
    let mut look = tokio::time::interval(Duration::from_millis(500));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
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
            _ = look.tick() => if let Some(silent) = shared.overdue() {
                return shared.end(SftpError::Silent(silent));
            },
        }
    }
}
