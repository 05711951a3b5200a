//! The lanes of a visit: how many ways lead to the vessel at once, and which one a file takes.
//!
//! One is there from the start. More are opened while there is much to send: channels where the server's window is small
//! for the length of the path, and on a long path connections, each of which adds a congestion window. Knows nothing of what
//! is sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use futures_util::future::{FutureExt, join_all, ready};
use futures_util::stream::{self, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::settings::{self, Connections};
use crate::transport::{ConnectError, Lane, SshEnvironment};

/// Connections that `auto` makes at the most.
const MOST: usize = 8;
/// Further lanes are worth their set-up for so many bytes that still have to go, and for so many round trips that these
/// will take at the present rate.
const WORTH_BYTES: u64 = 4 << 20;
const WORTH_ROUND_TRIPS: u32 = 30;
/// Round trips that a new connection takes until it carries its share.
const UP_TO_SPEED: u32 = 8;
/// From this round trip on a path counts as long: there, losses and windows limit a connection, and not a processor.
const LONG: Duration = Duration::from_millis(20);
/// Connections that a long path gets at once, and new ones that may be logging in at the same time.
const FIRST_STEP: usize = 4;
const LOGGING_IN: usize = 4;
/// The rate from which on further connections help one that sends with BBR, in bytes per second; and how often it is looked
/// at. BBR alone fills a slow link, whatever that loses, and eight of them drown its queue (16 MiB at 4 Mbit/s: 4.5 MB were
/// sent in vain); on a fast one the kernel's buffers and the time that lost packets take limit each.
const FAST: f64 = 1e6;
const GLANCE: Duration = Duration::from_millis(300);
/// The shortest time for which a rate is measured.
const MEASURE: Duration = Duration::from_millis(750);
/// How long nothing is tried after all connections were made that are of use or to be had; and how long they are kept when
/// there is nothing to send.
const REST: Duration = Duration::from_secs(60);
/// Channels on one connection at the most; OpenSSH allows ten sessions, and the shells need some.
const CHANNELS: usize = 8;
const CHANNELS_OF_OPENSSH: usize = 4;
/// A channel's window on OpenSSH, and the rate that a path of any length should be able to have, in bytes (per second).
const USUAL_WINDOW: f64 = (2 << 20) as f64;
const FULL_RATE: f64 = 12.5e6;

/// The lanes of a visit.
pub(super) struct Lanes {
    lanes: watch::Sender<Vec<Lane>>,
    jobs: Mutex<Vec<Weak<AtomicU64>>>,
    begun: Notify,
}

/// Bytes that are to be sent, for as long as it lives.
pub(super) struct Job(Arc<AtomicU64>);

impl Job {
    /// Notes that some of them were sent.
    pub(super) fn sent(&self, bytes: u64) {
        // What is sent twice was counted once.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(bytes)));
    }
}

impl Lanes {
    pub(super) fn new(first: Lane) -> Self {
        Self { lanes: watch::Sender::new(vec![first]), jobs: Mutex::default(), begun: Notify::new() }
    }

    fn jobs(&self) -> MutexGuard<'_, Vec<Weak<AtomicU64>>> {
        self.jobs.lock().expect("no code panics while it holds this lock")
    }

    /// Announces bytes that are to be sent.
    pub(super) fn job(&self, bytes: u64) -> Job {
        let job = Arc::new(AtomicU64::new(bytes));
        self.jobs().push(Arc::downgrade(&job));
        self.begun.notify_waiters();
        Job(job)
    }

    /// Tells when lanes come and go.
    pub(super) fn subscribe(&self) -> watch::Receiver<Vec<Lane>> {
        self.lanes.subscribe()
    }

    pub(super) fn count(&self) -> usize {
        self.lanes.borrow().len()
    }

    /// How many connections the lanes are on.
    fn connections(&self) -> usize {
        let lanes = self.lanes.borrow();
        let living: Vec<&Lane> = lanes.iter().filter(|lane| !lane.is_lost()).collect();
        let is_first = |at: &usize| !living[..*at].iter().any(|other| other.is_beside(living[*at]));
        (0..living.len()).filter(is_first).count()
    }

    /// Whether a lane is still to be used.
    pub(super) fn has(&self, lane: &Lane) -> bool {
        self.lanes.borrow().contains(lane) && !lane.is_lost()
    }

    /// The lane with the least to do.
    pub(super) fn idlest(&self) -> Lane {
        let lanes = self.lanes.borrow();
        let living = lanes.iter().filter(|lane| !lane.is_lost());
        living.min_by_key(|lane| lane.unanswered_bytes()).unwrap_or(&lanes[0]).clone()
    }

    fn left(&self) -> u64 {
        let mut left = 0;
        self.jobs().retain(|job| job.upgrade().map(|job| left += job.load(Ordering::Relaxed)).is_some());
        left
    }

    /// Bytes that are on their way to the vessel.
    pub(super) fn unanswered(&self) -> u64 {
        self.lanes.borrow().iter().filter(|lane| !lane.is_lost()).map(Lane::unanswered_bytes).sum()
    }

    fn answered(&self) -> u64 {
        self.lanes.borrow().iter().map(Lane::answered_bytes).sum()
    }

    /// Cuts all connections off.
    pub(super) fn abandon(&self) {
        self.lanes.borrow().iter().for_each(Lane::abandon);
    }

    /// Opens and closes lanes as they are needed, for ever.
    pub(super) async fn tend(&self, vessel: &Arc<settings::Vessel>, environment: &Arc<SshEnvironment>) {
        let first = self.lanes.borrow()[0].clone();
        Tending { lanes: self, vessel, environment, first }.run().await;
    }
}

/// Opening and closing lanes for one visit.
struct Tending<'a> {
    lanes: &'a Lanes,
    vessel: &'a Arc<settings::Vessel>,
    environment: &'a Arc<SshEnvironment>,
    first: Lane,
}

impl Tending<'_> {
    fn is_long(&self) -> bool {
        self.first.round_trip() >= LONG
    }

    async fn run(&self) {
        loop {
            if self.lanes.count() == 1 {
                self.wait_for_work(WORTH_BYTES / 4).await;
            }
            let widening = async {
                if self.lanes.count() == 1 {
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
        let (most, fixed) = match self.vessel.connections {
            Connections::Auto => (MOST, false),
            Connections::Fixed(number) => (usize::from(number), true),
        };
        loop {
            // Counted anew each time: some may have been lost meanwhile, others kept from an earlier time.
            let connections = self.lanes.connections();
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
            if !fixed && connections == 1 && self.first.sends_with_bbr() {
                // They log in meanwhile.
                if self.connect(FIRST_STEP - 1, self.is_fast()).await < FIRST_STEP - 1 {
                    return true;
                }
                continue;
            }
            // What one connection lacks on a long path, four of them lack too, and to measure it takes seconds: all come at
            // once where there is much to send; where there is less, the second half where what is left will take long.
            let much = connections < FIRST_STEP || self.lanes.left() > 2 * WORTH_BYTES;
            if !fixed && !much && !self.is_worth_it(self.rate().await) {
                continue;
            }
            let step = match connections {
                1 if self.lanes.left() <= 2 * WORTH_BYTES => FIRST_STEP - 1,
                _ => most - connections,
            };
            let step = step.min(most - connections);
            if self.connect(step, ready(true)).await < step {
                return true;
            }
            tracing::debug!(vessel = %self.vessel.name, connections = connections + step, "more connections");
        }
    }

    /// Waits until the only connection is fast; whether there is enough left then for others to pay.
    async fn is_fast(&self) -> bool {
        let (mut answered, mut since) = (self.lanes.answered(), Instant::now());
        while self.lanes.left() >= WORTH_BYTES {
            tokio::time::sleep(GLANCE).await;
            let now = self.lanes.answered();
            if now.saturating_sub(answered) as f64 > FAST * since.elapsed().as_secs_f64() {
                return true;
            }
            (answered, since) = (now, Instant::now());
        }
        false
    }

    /// Whether what is left takes long enough at a rate for further connections to pay.
    fn is_worth_it(&self, rate: f64) -> bool {
        let (left, least) = (self.lanes.left(), (self.first.round_trip() * WORTH_ROUND_TRIPS).max(MEASURE));
        left as f64 > rate * least.as_secs_f64()
    }

    async fn wait_for_work(&self, bytes: u64) {
        loop {
            let mut begun = std::pin::pin!(self.lanes.begun.notified());
            begun.as_mut().enable();
            if self.lanes.left() >= bytes {
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
            self.lanes.lanes.send_if_modified(|lanes| {
                let before = lanes.len();
                // The first is the visit's own, which ends with it.
                let mut index = 0;
                lanes.retain(|lane| {
                    index += 1;
                    index == 1 || !lane.is_lost()
                });
                lanes.len() != before
            });
        }
    }

    fn close_idle(&self) {
        if self.lanes.left() == 0 {
            self.lanes.lanes.send_if_modified(|lanes| {
                let extra = lanes.len() > 1;
                lanes.truncate(1);
                extra
            });
        }
    }

    /// The rate at which everything goes now, in bytes per second.
    async fn rate(&self) -> f64 {
        // What is new needs some round trips to come up to speed.
        tokio::time::sleep(self.first.round_trip() * 4).await;
        let (answered, since) = (self.lanes.answered(), Instant::now());
        tokio::time::sleep((self.first.round_trip() * 6).max(MEASURE)).await;
        self.lanes.answered().saturating_sub(answered) as f64 / since.elapsed().as_secs_f64()
    }

    /// Opens connections, some at a time; how many there were to be had. They are added once `wanted` says so, if what is
    /// left by then is worth it.
    async fn connect(&self, number: usize, wanted: impl Future<Output = bool>) -> usize {
        let wanted = wanted.shared();
        let (answered, since) = (self.lanes.answered(), Instant::now());
        let opening = (0..number).map(|_| async {
            match Lane::connect(self.vessel, self.environment).await {
                Ok(lane) => {
                    let beside = self.channels_beside(&lane).await;
                    if wanted.clone().await && self.is_soon_of_use(answered, since) {
                        self.add([vec![lane], beside].concat());
                    }
                    true
                }
                // The vessel may allow no more; what there is goes on.
                Err(e) => {
                    tracing::debug!(vessel = %self.vessel.name, "no further connection: {e}");
                    false
                }
            }
        });
        stream::iter(opening).buffer_unordered(LOGGING_IN).filter(|opened| ready(*opened)).count().await
    }

    /// Whether a connection comes up to speed before all is sent at the rate since then, when so much was answered. One that
    /// doesn't would be what the others wait for in the end.
    fn is_soon_of_use(&self, answered: u64, since: Instant) -> bool {
        let fixed = matches!(self.vessel.connections, Connections::Fixed(_));
        let rate = self.lanes.answered().saturating_sub(answered) as f64 / since.elapsed().as_secs_f64();
        fixed || self.lanes.left() as f64 > rate * (self.first.round_trip() * UP_TO_SPEED).as_secs_f64()
    }

    /// Opens the further channels that a connection needs on this path, as far as the vessel allows.
    async fn channels_beside(&self, lane: &Lane) -> Vec<Lane> {
        let opened = join_all((1..self.channels(lane)).map(|_| lane.beside(self.vessel))).await;
        let note = |e: &ConnectError| tracing::debug!(vessel = %self.vessel.name, "no further channel: {e}");
        opened.into_iter().filter_map(|opened| opened.inspect_err(note).ok()).collect()
    }

    fn channels(&self, lane: &Lane) -> usize {
        if lane.has_small_window() {
            return if self.first.round_trip() < Duration::from_millis(2) { 1 } else { CHANNELS };
        }
        let needed = (self.first.round_trip().as_secs_f64() * FULL_RATE / USUAL_WINDOW).ceil();
        (needed as usize).clamp(1, CHANNELS_OF_OPENSSH)
    }

    fn add(&self, new: Vec<Lane>) {
        if !new.is_empty() {
            self.lanes.lanes.send_modify(|lanes| lanes.extend(new));
        }
    }
}
