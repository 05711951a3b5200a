//! The channels of a session: how many ways lead to the vessel at once, and which one a file takes.
//!
//! One is there from the start. More are opened while there is much to send: channels where the server's window is small
//! for the length of the path, and on a long path connections, each of which adds a congestion window. Knows nothing of what
//! is sent.

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

/// Connections that `auto` makes at the most.
const MOST: usize = 8;
/// Further channels are worth their set-up for so many bytes that still have to go, and for so many round trips that these
/// will take at the present rate.
pub(crate) const WORTH_BYTES: u64 = 4 << 20;
const WORTH_ROUND_TRIPS: u32 = 30;
/// Round trips that a new connection takes until it carries its share.
const UP_TO_SPEED: u32 = 8;
/// From this round trip on a path counts as long: there, losses and windows limit a connection, and not a processor.
pub(crate) const LONG: Duration = Duration::from_millis(20);
/// Connections that a long path gets at once, and new ones that may be logging in at the same time.
const FIRST_STEP: usize = 4;
pub(crate) const LOGGING_IN: usize = 4;
/// With BBR, whose rate a loss here and there does not slow down, one connection fills most paths, and those that share a
/// queue drown it: 16 MiB at 4 Mbit/s cost eight of them 4.5 MB that were sent in vain, and the last of eight may crawl. So
/// there is another for each so many bytes in flight, which is about what a kernel keeps for one (`tcp_wmem`).
const MOST_IN_FLIGHT: f64 = (2 << 20) as f64;
/// On a path as long as this each needs seconds to come up to speed, so three do it together, once the first has so many bytes
/// in flight: a slow path never has.
const VERY_LONG: Duration = Duration::from_millis(250);
const TOGETHER: usize = 3;
const RISING: f64 = (96 << 10) as f64;
/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(300);
/// The shortest time for which a rate is measured.
const MEASURE: Duration = Duration::from_millis(750);
/// How long nothing is tried after all connections were made that are of use or to be had; and how long they are kept when
/// there is nothing to send.
const REST: Duration = Duration::from_secs(60);
/// What is left has to take so long for a connection to be kept ready beside.
const WORTH_A_SPARE: Duration = Duration::from_secs(5);
/// Channels on one connection at the most; OpenSSH allows ten sessions, and the shells need some.
const CHANNELS: usize = 8;
const CHANNELS_OF_OPENSSH: usize = 4;
/// A channel's window on OpenSSH, and the rate that a path of any length should be able to have, in bytes (per second).
const USUAL_WINDOW: f64 = (2 << 20) as f64;
const FULL_RATE: f64 = 12.5e6;
/// Round trips that may go by between a byte and its answer with BBR, which keeps its rate when packets are lost: TCP hands on
/// nothing that came after one before it was sent again. Others send less then, and their windows are large enough.
const REPAIR: f64 = 4.0;

/// A channel that is on its way; `None`: it is not to be had.
pub(crate) type Coming = AbortOnDropHandle<Option<SftpChannel>>;

/// The channels of a session.
pub(crate) struct ChannelPool {
    channels: watch::Sender<Vec<SftpChannel>>,
    /// What was begun before the first was there.
    coming: Mutex<Vec<Coming>>,
    /// Whether there ever was a further connection.
    widened: AtomicBool,
    jobs: Mutex<Vec<Weak<AtomicU64>>>,
    begun: Notify,
}

/// Bytes that are to be sent, for as long as it lives.
pub(crate) struct Job(Arc<AtomicU64>);

impl Job {
    /// Notes that some of them were sent.
    pub(crate) fn sent(&self, bytes: u64) {
        // What is sent twice was counted once.
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

    /// Whether further connections were of use.
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

    /// Tells when channels come and go.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<SftpChannel>> {
        self.channels.subscribe()
    }

    pub(crate) fn count(&self) -> usize {
        self.channels.borrow().len()
    }

    /// How many connections the channels are on.
    fn connections(&self) -> usize {
        let channels = self.channels.borrow();
        let living: Vec<&SftpChannel> = channels.iter().filter(|channel| !channel.is_lost()).collect();
        let is_first = |at: &usize| !living[..*at].iter().any(|other| other.is_beside(living[*at]));
        (0..living.len()).filter(is_first).count()
    }

    /// Whether a channel is still to be used.
    pub(crate) fn has(&self, channel: &SftpChannel) -> bool {
        self.channels.borrow().contains(channel) && !channel.is_lost()
    }

    /// The channel with the least to do.
    pub(crate) fn idlest(&self) -> SftpChannel {
        let channels = self.channels.borrow();
        let living = channels.iter().filter(|channel| !channel.is_lost());
        living.min_by_key(|channel| channel.unanswered_bytes()).unwrap_or(&channels[0]).clone()
    }

    /// Bytes that are still to be sent, as far as they were announced.
    pub(crate) fn left(&self) -> u64 {
        let mut left = 0;
        self.jobs().retain(|job| job.upgrade().map(|job| left += job.load(Ordering::Relaxed)).is_some());
        left
    }

    /// Bytes that are on their way to the vessel.
    pub(crate) fn unanswered(&self) -> u64 {
        self.channels.borrow().iter().filter(|channel| !channel.is_lost()).map(SftpChannel::unanswered_bytes).sum()
    }

    /// Bytes that the vessel has answered for, on the channels that there are.
    pub(crate) fn answered(&self) -> u64 {
        self.channels.borrow().iter().map(SftpChannel::answered_bytes).sum()
    }

    /// Whether what is left takes so long at a rate, in bytes per second, that a connection should be ready for the case
    /// that this one falls silent. On a short path one is made at once.
    pub(crate) fn is_spare_worth_it(&self, vessel: &settings::Vessel, rate: f64) -> bool {
        let round_trip = self.channels.borrow()[0].round_trip();
        round_trip >= LONG
            && self.connections() < most(vessel.connections)
            && rate > 0.0
            && self.left() as f64 > rate * WORTH_A_SPARE.as_secs_f64()
    }

    /// Cuts all connections off.
    pub(crate) fn abandon(&self) {
        self.channels.borrow().iter().for_each(SftpChannel::abandon);
    }

    /// Opens and closes channels as they are needed, for ever.
    pub(crate) async fn tend(&self, vessel: &Arc<settings::Vessel>, environment: &Arc<SshEnvironment>) {
        let first = self.channels.borrow()[0].clone();
        Tending { channels: self, vessel, environment, first }.run().await;
    }
}

/// How many connections beside the first are worth having from the start, where there is much to send.
pub(crate) fn of_use(path: RoundTrip) -> usize {
    match path {
        RoundTrip { round_trip, .. } if round_trip < LONG => 0,
        RoundTrip { bbr: false, .. } => FIRST_STEP - 1,
        RoundTrip { round_trip, .. } if round_trip >= VERY_LONG => TOGETHER - 1,
        _ => 0,
    }
}

/// How many connections the settings allow.
fn most(connections: Connections) -> usize {
    match connections {
        Connections::Auto => MOST,
        Connections::Fixed(number) => usize::from(number),
    }
}

/// Opening and closing channels for one session.
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

    /// Adds connections while there is enough to send for them to pay. Whether there was anything to do it for.
    async fn grow(&self) -> bool {
        let (most, fixed) = (most(self.vessel.connections), self.vessel.connections != Connections::Auto);
        loop {
            // Counted anew each time: some may have been lost meanwhile, others kept from an earlier time.
            let connections = self.channels.connections();
            if !(1..most).contains(&connections) {
                return true;
            }
            if timeout(REST, self.wait_for_work(WORTH_BYTES)).await.is_err() {
                return false;
            }
            // On a short path one connection is as fast as a processor, and many vessels share the processors.
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

    /// Waits for the next look at how many bytes go out in a round trip.
    async fn look(&self, glance: Duration) -> f64 {
        let round_trip = self.first.round_trip().max(LONG);
        let (answered, since) = (self.channels.answered(), Instant::now());
        tokio::time::sleep(glance.max(round_trip)).await;
        let answered = self.channels.answered().saturating_sub(answered) as f64;
        answered * round_trip.as_secs_f64() / since.elapsed().as_secs_f64()
    }

    /// Waits until so much is in flight that a channel's window may soon be too small for it; whether it ever is. It takes
    /// two looks: what a loss had held up comes all at once. Channels that a slow path doesn't need would only fill what
    /// stands before it.
    async fn rises(&self) -> bool {
        let mut rising = 0;
        while self.channels.left() > 0 && rising < 2 {
            rising = if self.look(GLANCE / 2).await >= RISING { rising + 1 } else { 0 };
        }
        rising == 2
    }

    /// Waits until further connections help those that send with BBR, or none do any more; how many.
    async fn step_with_bbr(&self, connections: usize) -> usize {
        let round_trip = self.first.round_trip().max(LONG);
        while self.channels.left() >= WORTH_BYTES {
            let in_flight = self.look(GLANCE).await;
            let early = if in_flight >= RISING { of_use(RoundTrip { round_trip, bbr: true }) } else { 0 };
            // All windows of a connection together hold about twice as much where they are small.
            let most_in_flight = if self.first.has_small_window() { RISING } else { MOST_IN_FLIGHT };
            let wanted = MOST.min(1 + early.max((in_flight / most_in_flight) as usize));
            if wanted > connections {
                return wanted - connections;
            }
        }
        0
    }

    /// How many further connections help those that each loss slows down; looks for a while where that is not clear.
    async fn step_without_bbr(&self, connections: usize) -> usize {
        // What one connection lacks on a long path, four of them lack too, and to measure it takes seconds: all come at
        // once where there is much to send; where there is less, the second half where what is left will take long.
        let much = connections < FIRST_STEP || self.channels.left() > 2 * WORTH_BYTES;
        if !much && !self.is_worth_it(self.rate().await) {
            return 0;
        }
        match connections {
            1 if self.channels.left() <= 2 * WORTH_BYTES => FIRST_STEP - 1,
            _ => MOST - connections,
        }
    }

    /// Whether what is left takes long enough at a rate for further connections to pay.
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

    /// Tries nothing for a while.
    async fn rest(&self) {
        let since = Instant::now();
        while since.elapsed() < REST {
            tokio::time::sleep(REST / 12).await;
            self.channels.channels.send_if_modified(|channels| {
                let before = channels.len();
                // The first is the session's own, which ends with it.
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

    /// The rate at which everything goes now, in bytes per second.
    async fn rate(&self) -> f64 {
        // What is new needs some round trips to come up to speed.
        tokio::time::sleep(self.first.round_trip() * 4).await;
        let (answered, since) = (self.channels.answered(), Instant::now());
        tokio::time::sleep((self.first.round_trip() * 6).max(MEASURE)).await;
        self.channels.answered().saturating_sub(answered) as f64 / since.elapsed().as_secs_f64()
    }

    /// Opens connections, some at a time; how many there were to be had. They are added if what is left by then is worth it.
    async fn connect(&self, number: usize) -> usize {
        let (answered, since) = (self.channels.answered(), Instant::now());
        let opening = (0..number).map(|_| async {
            // The vessel may allow no more; what there is goes on.
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

    /// One that is on its way already, or a new one; `None` when it is not to be had.
    async fn further_connection(&self) -> Option<SftpChannel> {
        let coming = self.channels.coming().pop();
        if let Some(coming) = coming {
            return coming.await.ok().flatten();
        }
        let channel = SftpChannel::connect(self.vessel, self.environment, None).await;
        channel.inspect_err(|e| tracing::debug!(vessel = %self.vessel.name, "Cannot open another connection: {e}")).ok()
    }

    /// Whether a connection comes up to speed before all is sent at the rate since then, when so much was answered. One that
    /// doesn't would be what the others wait for in the end.
    fn is_soon_of_use(&self, answered: u64, since: Instant) -> bool {
        let fixed = matches!(self.vessel.connections, Connections::Fixed(_));
        let rate = self.channels.answered().saturating_sub(answered) as f64 / since.elapsed().as_secs_f64();
        fixed || self.channels.left() as f64 > rate * (self.first.round_trip() * UP_TO_SPEED).as_secs_f64()
    }

    /// Opens the further channels that a connection needs on this path, as far as the vessel allows.
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
