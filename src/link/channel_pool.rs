//! The SFTP channels of a session: how many there are, and which one a file uses.
//!
//! A session starts with one channel. While there is much to send, it opens more: further channels on a connection if
//! the server's window is small for the round-trip time, and further connections on a long path, because each
//! connection adds a congestion window. This module does not know which files are sent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, ready};
use futures_util::stream::{self, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::settings::{self, Connections};
use crate::transport::{ConnectError, RoundTrip, SftpChannel, SshEnvironment};

/// Maximum number of connections with `Connections = auto`.
const MOST: usize = 8;
/// Further connections are opened only if at least this many bytes are left to send, and if sending the remaining bytes
/// at the current rate takes at least this many round trips.
pub(crate) const WORTH_BYTES: u64 = 4 << 20;
const WORTH_ROUND_TRIPS: u32 = 30;
/// Number of round trips that a new connection needs to reach its share of the bandwidth.
const UP_TO_SPEED: u32 = 8;
/// Round-trip time from which a path counts as long. On a long path, losses and windows limit a connection; on a short
/// path, the processor does.
pub(crate) const LONG: Duration = Duration::from_millis(20);
/// Number of connections that are used from the start on a long path without BBR, and maximum number of new connections
/// that log in concurrently.
const FIRST_STEP: usize = 4;
pub(crate) const LOGGING_IN: usize = 4;
/// Bytes in flight for which one BBR connection is used, about the size of a kernel's send buffer (`tcp_wmem`). A
/// single BBR connection fills most paths, because occasional losses do not slow it down, and several BBR connections
/// overload a shared queue: for 16 MiB at 4 Mbit/s, 8 connections retransmitted 4.5 MB needlessly, and the last
/// connection may become very slow.
const MOST_IN_FLIGHT: f64 = (2 << 20) as f64;
/// From this round-trip time on, a BBR connection needs seconds to reach its full rate. So 3 connections are used as
/// soon as the first one has this many bytes in flight, which never happens on a slow path.
const VERY_LONG: Duration = Duration::from_millis(250);
const TOGETHER: usize = 3;
const RISING: f64 = (96 << 10) as f64;
/// Interval between measurements of the bytes in flight.
const GLANCE: Duration = Duration::from_millis(300);
/// Minimum duration of a rate measurement.
const MEASURE: Duration = Duration::from_millis(750);
/// Pause before connections are opened again after no more were possible or needed, and time for which idle connections
/// are kept.
const REST: Duration = Duration::from_secs(60);
/// Minimum remaining transfer time for which a spare connection is kept ready.
const WORTH_A_SPARE: Duration = Duration::from_secs(5);
/// Maximum number of channels per connection, for servers with small windows and for servers with the window of
/// OpenSSH. OpenSSH allows 10 sessions per connection, and the shells need some of them.
const CHANNELS: usize = 8;
const CHANNELS_OF_OPENSSH: usize = 4;
/// A channel's window on OpenSSH in bytes, and the rate in bytes per second that a connection should reach on any path.
const USUAL_WINDOW: f64 = (2 << 20) as f64;
const FULL_RATE: f64 = 12.5e6;
/// Number of round trips that a window must cover with BBR. BBR keeps its rate during losses, but TCP delivers nothing
/// behind a lost packet until the packet is retransmitted. Other algorithms slow down, so a window for 1 round trip is
/// enough for them.
const REPAIR: f64 = 4.0;

/// A channel that is being opened; `None` if it could not be opened.
pub(crate) type Coming = AbortOnDropHandle<Option<SftpChannel>>;

/// The channels of a session.
pub(crate) struct ChannelPool {
    channels: watch::Sender<Vec<SftpChannel>>,
    /// Channels of connections that were started before the first connection was ready.
    coming: Mutex<Vec<Coming>>,
    /// Whether a further connection was ever added.
    widened: AtomicBool,
    jobs: Mutex<Vec<Weak<AtomicU64>>>,
    begun: Notify,
}

/// A number of announced bytes that are still to be sent. They count until the job is dropped.
pub(crate) struct Job(Arc<AtomicU64>);

impl Job {
    /// Subtracts bytes that were sent.
    pub(crate) fn sent(&self, bytes: u64) {
        // Saturates at 0, because bytes may be sent twice but are announced only once.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(bytes)));
    }
}

impl ChannelPool {
    pub(crate) fn new(first: SftpChannel, coming: Vec<Coming>) -> Self {
        Self {
            channels: watch::Sender::new(vec![first]),
            coming: Mutex::new(coming),
            widened: AtomicBool::new(false),
            jobs: Mutex::default(),
            begun: Notify::new(),
        }
    }

    fn coming(&self) -> MutexGuard<'_, Vec<Coming>> {
        self.coming.lock().expect("no code panics while it holds this lock")
    }

    /// Returns whether a further connection was ever added.
    pub(crate) fn was_widened(&self) -> bool {
        self.widened.load(Ordering::Relaxed)
    }

    fn jobs(&self) -> MutexGuard<'_, Vec<Weak<AtomicU64>>> {
        self.jobs.lock().expect("no code panics while it holds this lock")
    }

    /// Announces bytes that are to be sent.
    pub(crate) fn job(&self, bytes: u64) -> Job {
        let job = Arc::new(AtomicU64::new(bytes));
        self.jobs().push(Arc::downgrade(&job));
        self.begun.notify_waiters();
        Job(job)
    }

    /// Returns a receiver that is notified when channels are added or removed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<SftpChannel>> {
        self.channels.subscribe()
    }

    pub(crate) fn count(&self) -> usize {
        self.channels.borrow().len()
    }

    /// Returns the number of live connections that the channels use.
    fn connections(&self) -> usize {
        let channels = self.channels.borrow();
        let living: Vec<&SftpChannel> = channels.iter().filter(|channel| !channel.is_lost()).collect();
        let is_first = |at: &usize| !living[..*at].iter().any(|other| other.is_beside(living[*at]));
        (0..living.len()).filter(is_first).count()
    }

    /// Returns whether a channel is in the pool and its connection is alive.
    pub(crate) fn has(&self, channel: &SftpChannel) -> bool {
        self.channels.borrow().contains(channel) && !channel.is_lost()
    }

    /// Returns the channel with the fewest unanswered bytes.
    pub(crate) fn idlest(&self) -> SftpChannel {
        let channels = self.channels.borrow();
        let living = channels.iter().filter(|channel| !channel.is_lost());
        living.min_by_key(|channel| channel.unanswered_bytes()).unwrap_or(&channels[0]).clone()
    }

    /// Returns how many of the announced bytes are still to be sent.
    pub(crate) fn left(&self) -> u64 {
        let mut left = 0;
        self.jobs().retain(|job| job.upgrade().map(|job| left += job.load(Ordering::Relaxed)).is_some());
        left
    }

    /// Returns how many bytes were sent and not yet answered.
    pub(crate) fn unanswered(&self) -> u64 {
        self.channels.borrow().iter().filter(|channel| !channel.is_lost()).map(SftpChannel::unanswered_bytes).sum()
    }

    /// Returns how many bytes the vessel has acknowledged on the current channels.
    pub(crate) fn answered(&self) -> u64 {
        self.channels.borrow().iter().map(SftpChannel::answered_bytes).sum()
    }

    /// Returns whether sending the remaining bytes at `rate` (bytes per second) takes so long that a spare connection
    /// should be ready in case the current one stalls. On a short path no spare is kept, because a new connection is
    /// opened quickly.
    pub(crate) fn is_spare_worth_it(&self, vessel: &settings::Vessel, rate: f64) -> bool {
        let round_trip = self.channels.borrow()[0].round_trip();
        round_trip >= LONG
            && self.connections() < most(vessel.connections)
            && rate > 0.0
            && self.left() as f64 > rate * WORTH_A_SPARE.as_secs_f64()
    }

    /// Returns whether enough is left to send on a long path that small files should have a connection of their own.
    pub(crate) fn is_connection_beside_worth_it(&self, vessel: &settings::Vessel) -> bool {
        self.channels.borrow()[0].round_trip() >= LONG
            && self.connections() < most(vessel.connections)
            && self.left() >= WORTH_BYTES / 4
    }

    /// Aborts all connections.
    pub(crate) fn abandon(&self) {
        self.channels.borrow().iter().for_each(SftpChannel::abandon);
    }

    /// Opens and closes channels as needed; never returns.
    pub(crate) async fn tend(&self, vessel: &Arc<settings::Vessel>, environment: &Arc<SshEnvironment>) {
        let first = self.channels.borrow()[0].clone();
        Tending { channels: self, vessel, environment, first }.run().await;
    }
}

/// Returns how many further connections are worth opening from the start if there is much to send.
pub(crate) fn of_use(path: RoundTrip) -> usize {
    match path {
        RoundTrip { round_trip, .. } if round_trip < LONG => 0,
        RoundTrip { bbr: false, .. } => FIRST_STEP - 1,
        RoundTrip { round_trip, .. } if round_trip >= VERY_LONG => TOGETHER - 1,
        _ => 0,
    }
}

/// Returns the maximum number of connections that the settings allow.
fn most(connections: Connections) -> usize {
    match connections {
        Connections::Auto => MOST,
        Connections::Fixed(number) => usize::from(number),
    }
}

/// Opens and closes the channels of one session.
struct Tending<'a> {
    channels: &'a ChannelPool,
    vessel: &'a Arc<settings::Vessel>,
    environment: &'a Arc<SshEnvironment>,
    first: SftpChannel,
}

impl Tending<'_> {
    fn is_long(&self) -> bool {
        self.first.round_trip() >= LONG
    }

    async fn run(&self) {
        loop {
            if self.channels.count() == 1 && timeout(REST, self.wait_for_work(WORTH_BYTES / 4)).await.is_err() {
                self.channels.coming().clear();
                self.wait_for_work(WORTH_BYTES / 4).await;
            }
            let widening = async {
                if self.channels.count() == 1 && (self.first.has_small_window() || self.rises().await) {
                    self.add(self.channels_beside(&self.first).await);
                }
            };
            let ((), tried) = tokio::join!(widening, self.grow());
            if tried {
                self.rest().await;
            }
            self.close_idle();
        }
    }

    /// Adds connections while there is enough to send. Returns `true` when no more connections are possible or needed,
    /// and `false` if there was too little to send for [`REST`].
    async fn grow(&self) -> bool {
        let (most, fixed) = (most(self.vessel.connections), self.vessel.connections != Connections::Auto);
        loop {
            // The connections are counted again in every pass, because some may have been lost, or kept from an earlier
            // pass.
            let connections = self.channels.connections();
            if !(1..most).contains(&connections) {
                return true;
            }
            if timeout(REST, self.wait_for_work(WORTH_BYTES)).await.is_err() {
                return false;
            }
            // On a short path the processor limits the rate, and many vessels share the processors, so more connections
            // do not help.
            if !fixed && !self.is_long() {
                return true;
            }
            let step = match (fixed, self.first.sends_with_bbr()) {
                (true, _) => most - connections,
                (false, true) => self.step_with_bbr(connections).await,
                (false, false) => self.step_without_bbr(connections).await,
            };
            if self.connect(step).await < step {
                return true;
            }
            if step > 0 {
                tracing::debug!(
                    vessel = %self.vessel.name, connections = connections + step,
                    "Opened more connections"
                );
            }
        }
    }

    /// Measures for at least `glance` how many bytes are acknowledged per round trip.
    async fn look(&self, glance: Duration) -> f64 {
        let round_trip = self.first.round_trip().max(LONG);
        let (answered, since) = (self.channels.answered(), Instant::now());
        tokio::time::sleep(glance.max(round_trip)).await;
        let answered = self.channels.answered().saturating_sub(answered) as f64;
        answered * round_trip.as_secs_f64() / since.elapsed().as_secs_f64()
    }

    /// Waits until the bytes in flight approach a channel's window. Returns `false` if all bytes were sent before that.
    /// Two measurements in a row must agree, because bytes held up by a loss are acknowledged all at once. On a slow
    /// path, further channels would only fill the path's queue.
    async fn rises(&self) -> bool {
        let mut rising = 0;
        while self.channels.left() > 0 && rising < 2 {
            rising = if self.look(GLANCE / 2).await >= RISING { rising + 1 } else { 0 };
        }
        rising == 2
    }

    /// Waits until further BBR connections would help, and returns their number; 0 if too few bytes are left.
    async fn step_with_bbr(&self, connections: usize) -> usize {
        let round_trip = self.first.round_trip().max(LONG);
        while self.channels.left() >= WORTH_BYTES {
            let in_flight = self.look(GLANCE).await;
            let early = if in_flight >= RISING { of_use(RoundTrip { round_trip, bbr: true }) } else { 0 };
            // If the server's windows are small, all windows of a connection together hold only about twice `RISING`
            // bytes.
            let most_in_flight = if self.first.has_small_window() { RISING } else { MOST_IN_FLIGHT };
            let wanted = MOST.min(1 + early.max((in_flight / most_in_flight) as usize));
            if wanted > connections {
                return wanted - connections;
            }
        }
        0
    }

    /// Returns how many connections to add without BBR, where losses reduce the rate of each connection. Measures the
    /// rate first if few bytes are left.
    async fn step_without_bbr(&self, connections: usize) -> usize {
        // Measuring takes seconds, and on a long path the limits of one connection also apply to four. So if many bytes
        // are left, all connections start at once; if fewer are left, the connections beyond four start only if sending
        // the remaining bytes takes long.
        let much = connections < FIRST_STEP || self.channels.left() > 2 * WORTH_BYTES;
        if !much && !self.is_worth_it(self.rate().await) {
            return 0;
        }
        match connections {
            1 if self.channels.left() <= 2 * WORTH_BYTES => FIRST_STEP - 1,
            _ => MOST - connections,
        }
    }

    /// Returns whether sending the remaining bytes at `rate` takes long enough to justify further connections.
    fn is_worth_it(&self, rate: f64) -> bool {
        let (left, least) = (self.channels.left(), (self.first.round_trip() * WORTH_ROUND_TRIPS).max(MEASURE));
        left as f64 > rate * least.as_secs_f64()
    }

    async fn wait_for_work(&self, bytes: u64) {
        loop {
            let mut begun = std::pin::pin!(self.channels.begun.notified());
            begun.as_mut().enable();
            if self.channels.left() >= bytes {
                return;
            }
            begun.await;
        }
    }

    /// Waits for [`REST`] and removes lost channels meanwhile.
    async fn rest(&self) {
        let since = Instant::now();
        while since.elapsed() < REST {
            tokio::time::sleep(REST / 12).await;
            self.channels.channels.send_if_modified(|channels| {
                let before = channels.len();
                // The first channel belongs to the session and ends with it.
                let mut index = 0;
                channels.retain(|channel| {
                    index += 1;
                    index == 1 || !channel.is_lost()
                });
                channels.len() != before
            });
        }
    }

    fn close_idle(&self) {
        if self.channels.left() == 0 {
            self.channels.channels.send_if_modified(|channels| {
                let extra = channels.len() > 1;
                channels.truncate(1);
                extra
            });
        }
    }

    /// Measures the current total rate in bytes per second.
    async fn rate(&self) -> f64 {
        // New connections need some round trips to reach their full rate, so the measurement starts later.
        tokio::time::sleep(self.first.round_trip() * 4).await;
        let (answered, since) = (self.channels.answered(), Instant::now());
        tokio::time::sleep((self.first.round_trip() * 6).max(MEASURE)).await;
        self.channels.answered().saturating_sub(answered) as f64 / since.elapsed().as_secs_f64()
    }

    /// Opens connections, a few at a time, and returns how many could be opened. A new connection is added to the pool
    /// only if enough bytes are left to send.
    async fn connect(&self, number: usize) -> usize {
        let (answered, since) = (self.channels.answered(), Instant::now());
        let opening = (0..number).map(|_| async {
            // If the vessel allows no more connections, the existing ones continue.
            let Some(channel) = self.further_connection().await else { return false };
            let beside = self.channels_beside(&channel).await;
            if self.is_soon_of_use(answered, since) {
                self.channels.widened.store(true, Ordering::Relaxed);
                self.add([vec![channel], beside].concat());
            }
            true
        });
        stream::iter(opening).buffer_unordered(LOGGING_IN).filter(|opened| ready(*opened)).count().await
    }

    /// Returns a connection that is already being opened, or opens one; `None` if that fails.
    async fn further_connection(&self) -> Option<SftpChannel> {
        let coming = self.channels.coming().pop();
        if let Some(coming) = coming {
            return coming.await.ok().flatten();
        }
        let channel = SftpChannel::connect(self.vessel, self.environment, None).await;
        channel.inspect_err(|e| tracing::debug!(vessel = %self.vessel.name, "Cannot open another connection: {e}")).ok()
    }

    /// Returns whether a new connection reaches its full rate before all bytes are sent at the current rate. Otherwise
    /// the other connections would wait for the new one at the end. The current rate is computed from `answered`, the
    /// number of bytes acknowledged at `since`.
    fn is_soon_of_use(&self, answered: u64, since: Instant) -> bool {
        let fixed = matches!(self.vessel.connections, Connections::Fixed(_));
        let rate = self.channels.answered().saturating_sub(answered) as f64 / since.elapsed().as_secs_f64();
        fixed || self.channels.left() as f64 > rate * (self.first.round_trip() * UP_TO_SPEED).as_secs_f64()
    }

    /// Opens the additional channels that a connection needs on this path, as far as the vessel allows.
    async fn channels_beside(&self, channel: &SftpChannel) -> Vec<SftpChannel> {
        let opened = join_all((1..self.channels(channel)).map(|_| channel.beside(self.vessel))).await;
        let note = |e: &ConnectError| tracing::debug!(vessel = %self.vessel.name, "Cannot open another channel: {e}");
        opened.into_iter().filter_map(|opened| opened.inspect_err(note).ok()).collect()
    }

    fn channels(&self, channel: &SftpChannel) -> usize {
        if channel.has_small_window() {
            return if self.first.round_trip() < Duration::from_millis(2) { 1 } else { CHANNELS };
        }
        let round_trips = if channel.sends_with_bbr() { REPAIR } else { 1.0 };
        let needed = (self.first.round_trip().as_secs_f64() * round_trips * FULL_RATE / USUAL_WINDOW).ceil();
        (needed as usize).clamp(1, CHANNELS_OF_OPENSSH)
    }

    fn add(&self, new: Vec<SftpChannel>) {
        if !new.is_empty() {
            self.channels.channels.send_modify(|channels| channels.extend(new));
        }
    }
}
