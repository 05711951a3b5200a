//! Opens and closes the channels of a session.
//!
//! A session starts with one channel. While there is much to send, it opens more: further channels on a connection if
//! the server's window is small for the round-trip time, and further connections on a long path, because each
//! connection adds a congestion window.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, ready};
use futures_util::stream::{self, StreamExt};
use tokio::time::timeout;

use super::channel_pool::{ChannelPool, LONG, MOST, WORTH_BYTES, most};
use super::path;
use crate::records::PathRate;
use crate::settings::{self, Connections};
use crate::transport::{ConnectError, RoundTrip, SftpChannel, SshEnvironment};

/// Without BBR, when few bytes are left, connections beyond four are opened only if sending these bytes at the current
/// rate takes at least this many round trips.
const WORTH_ROUND_TRIPS: u32 = 30;
/// Number of round trips that a new connection needs to reach its share of the bandwidth.
const UP_TO_SPEED: u32 = 8;
/// Number of connections that are used from the start on a long path without BBR, and maximum number of new connections
/// that log in concurrently.
const FIRST_STEP: usize = 4;
pub(crate) const LOGGING_IN: usize = 4;
/// Number of bytes in flight up to which one BBR connection is enough, about the size of a kernel's send buffer
/// (`tcp_wmem`). A single BBR connection fills most paths, because occasional losses do not slow it down. Several BBR
/// connections overload a shared queue: for 16 MiB at 4 Mbit/s, 8 connections retransmitted 4.5 MB needlessly, and the
/// last connection may become very slow.
const MOST_IN_FLIGHT: f64 = (2 << 20) as f64;
/// From this round-trip time on, a BBR connection needs seconds to reach its full rate. So `TOGETHER` connections are
/// used: the further ones are opened while the first one logs in, or as soon as the first one has `RISING` bytes in
/// flight.
const VERY_LONG: Duration = Duration::from_millis(250);
const TOGETHER: usize = 4;
/// Number of further connections where queues are kept short, instead of `TOGETHER` - 1. BBR almost stops every ten
/// seconds to measure the round trip; a second connection sends meanwhile. At a round trip of 600 ms, two connections
/// reach 92 % of 4 Mbit/s, and one reaches 80 %.
const SHORT_TOGETHER: usize = 1;
const RISING: f64 = (96 << 10) as f64;
/// Interval between measurements of the bytes in flight.
const GLANCE: Duration = Duration::from_millis(300);
/// Minimum duration of a rate measurement.
const MEASURE: Duration = Duration::from_millis(750);
/// Pause before further connections are tried again when no more were possible or needed; also how long idle
/// connections are kept.
const REST: Duration = Duration::from_secs(60);
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

/// Returns how many further connections are worth opening from the start if there is much to send.
pub(crate) fn of_use(path: RoundTrip, remembered: Option<PathRate>) -> usize {
    let remembered = remembered.filter(|earlier| path::is_like(earlier, path.round_trip));
    match (path, remembered) {
        (RoundTrip { round_trip, .. }, _) if round_trip < LONG => 0,
        (RoundTrip { bbr: false, .. }, _) => FIRST_STEP - 1,
        (_, Some(earlier)) => path::connections(&earlier, MOST) - 1,
        (RoundTrip { round_trip, .. }, None) if round_trip >= VERY_LONG => TOGETHER - 1,
        _ => 0,
    }
}

/// Opens and closes the channels of one session on one way.
pub(super) struct Tending<'a> {
    channels: &'a ChannelPool,
    vessel: &'a Arc<settings::Vessel>,
    environment: &'a Arc<SshEnvironment>,
    /// The first channel on the way.
    first: SftpChannel,
    /// The number of the way.
    route: usize,
}

impl<'a> Tending<'a> {
    pub(super) fn new(
        channels: &'a ChannelPool,
        vessel: &'a Arc<settings::Vessel>,
        environment: &'a Arc<SshEnvironment>,
        first: SftpChannel,
    ) -> Self {
        Self { channels, vessel, environment, route: first.route(), first }
    }

    /// Returns the rate that an earlier session measured; it is known only for way 0.
    fn remembered(&self) -> Option<PathRate> {
        self.channels.remembered().filter(|_| self.route == 0)
    }

    fn is_long(&self) -> bool {
        self.first.round_trip() >= LONG
    }

    pub(super) async fn run(&self) {
        loop {
            if self.channels.count_on(self.route) == 1
                && timeout(REST, self.channels.wait_for_work(WORTH_BYTES / 4)).await.is_err()
            {
                if self.route == 0 {
                    self.channels.coming().clear();
                }
                self.channels.wait_for_work(WORTH_BYTES / 4).await;
            }
            let widening = async {
                if self.channels.count_on(self.route) == 1
                    && (self.first.has_small_window() || self.remembered().is_some() || self.rises().await)
                {
                    self.channels.add(self.channels_beside(&self.first).await);
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
    /// and `false` after [`REST`] with too little to send.
    async fn grow(&self) -> bool {
        let (most, fixed) = (most(self.vessel.connections), self.vessel.connections != Connections::Auto);
        let mut first_pass = true;
        loop {
            // The connections are counted again in every pass, because some may have been lost, and some may be left
            // from an earlier call.
            let connections = self.channels.connections_on(self.route);
            if !(1..most).contains(&connections) {
                return true;
            }
            if timeout(REST, self.channels.wait_for_work(WORTH_BYTES)).await.is_err() {
                return false;
            }
            // On a short path the processor limits the rate, and many vessels share the processors, so more connections
            // do not help.
            if !fixed && !self.is_long() {
                return true;
            }
            // Where queues are kept short, large files get a connection of their own, so that no request waits behind
            // them.
            if self.route == 0 && connections == 1 && self.channels.keeps_short_queues() {
                self.connect(1).await;
                if self.channels.connections_on(self.route) == 1 {
                    return true;
                }
                continue;
            }
            let begun = self.begun_early(std::mem::take(&mut first_pass));
            // Too many connections at once would overflow a short queue. The first connection of way 0 doesn't count,
            // because it carries no large files.
            let begun = match self.channels.keeps_short_queues() {
                true => begun.min((2 + SHORT_TOGETHER).saturating_sub(connections)),
                false => begun,
            };
            let step = match (fixed, self.first.sends_with_bbr()) {
                (true, _) => most - connections,
                // On a long path, connections that were begun early are of use at once.
                (false, true) if begun > 0 => begun.min(most - connections),
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

    /// Returns the larger of two numbers: how many connections are already being opened, and how many are missing
    /// compared with an earlier session. Only the first pass makes this comparison: later passes would open connections
    /// again that were dropped because they were ready too late.
    fn begun_early(&self, first_pass: bool) -> usize {
        let remembered = self.remembered().filter(|_| first_pass);
        let remembered = remembered.map_or(0, |path| path::connections(&path, MOST));
        let coming = if self.route == 0 { self.channels.coming().len() } else { 0 };
        coming.max(remembered.saturating_sub(self.channels.connections_on(self.route)))
    }

    /// Measures for at least `glance` how many bytes are acknowledged per round trip.
    async fn look(&self, glance: Duration) -> f64 {
        let round_trip = self.first.round_trip().max(LONG);
        let (answered, since) = (self.channels.answered_on(self.route), Instant::now());
        tokio::time::sleep(glance.max(round_trip)).await;
        let answered = self.channels.answered_on(self.route).saturating_sub(answered) as f64;
        answered * round_trip.as_secs_f64() / since.elapsed().as_secs_f64()
    }

    /// Waits until two measurements in a row show that the bytes in flight approach a channel's window; one is not
    /// enough, because bytes delayed by a loss are acknowledged all at once. Returns `false` if all bytes were sent
    /// before that. The wait avoids further channels on a slow path, where they would only fill the path's queue.
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
            let short = self.channels.keeps_short_queues();
            let early =
                if in_flight >= RISING { of_use(RoundTrip { round_trip, bbr: true }, self.remembered()) } else { 0 };
            let early = if short { early.min(SHORT_TOGETHER) } else { early };
            // If the server's windows are small, all windows of a connection together hold only about twice `RISING`
            // bytes.
            let most_in_flight = if self.first.has_small_window() { RISING } else { MOST_IN_FLIGHT };
            // With short queues, the first connection carries no large files.
            let kept_free = usize::from(short && self.route == 0);
            let wanted = MOST.min(1 + kept_free + early.max((in_flight / most_in_flight) as usize));
            if wanted > connections {
                return wanted - connections;
            }
        }
        0
    }

    /// Returns how many connections to add without BBR, where losses reduce the rate of each connection. Measures the
    /// rate first if few bytes are left.
    async fn step_without_bbr(&self, connections: usize) -> usize {
        // Measuring takes seconds, and on a long path each of four connections is as limited as a single one. So if
        // many bytes are left, all connections start at once; if fewer are left, the connections beyond four start only
        // if sending the remaining bytes takes long.
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

    /// Waits for [`REST`] and removes lost channels meanwhile.
    async fn rest(&self) {
        let since = Instant::now();
        while since.elapsed() < REST {
            tokio::time::sleep(REST / 12).await;
            self.channels.channels.send_if_modified(|channels| {
                let before = channels.len();
                // The first channel stays in the pool until the session or the way ends.
                channels
                    .retain(|channel| *channel == self.first || channel.route() != self.route || !channel.is_lost());
                channels.len() != before
            });
        }
    }

    fn close_idle(&self) {
        if self.channels.left() == 0 {
            self.channels.channels.send_if_modified(|channels| {
                let before = channels.len();
                channels.retain(|channel| *channel == self.first || channel.route() != self.route);
                channels.len() != before
            });
        }
    }

    /// Measures the current total rate in bytes per second.
    async fn rate(&self) -> f64 {
        // New connections need some round trips to reach their full rate, so the measurement starts later.
        tokio::time::sleep(self.first.round_trip() * 4).await;
        let (answered, since) = (self.channels.answered_on(self.route), Instant::now());
        tokio::time::sleep((self.first.round_trip() * 6).max(MEASURE)).await;
        self.channels.answered_on(self.route).saturating_sub(answered) as f64 / since.elapsed().as_secs_f64()
    }

    /// Opens connections, a few at a time, and returns how many could be opened. A new connection is added to the pool
    /// only if enough bytes are left to send.
    async fn connect(&self, number: usize) -> usize {
        let (answered, since) = (self.channels.answered_on(self.route), Instant::now());
        let opening = (0..number).map(|_| async {
            // If the vessel allows no more connections, the existing ones continue.
            let Some(channel) = self.further_connection().await else { return false };
            if self.is_soon_of_use(answered, since) {
                self.channels.widened.store(true, Ordering::Relaxed);
                // Opening further channels takes some round trips. The first channel can already send meanwhile.
                self.channels.add(vec![channel.clone()]);
                self.channels.add(self.channels_beside(&channel).await);
            }
            true
        });
        stream::iter(opening).buffer_unordered(LOGGING_IN).filter(|opened| ready(*opened)).count().await
    }

    /// Returns a connection that is already being opened, or opens one; `None` if that fails.
    async fn further_connection(&self) -> Option<SftpChannel> {
        let coming = if self.route == 0 { self.channels.coming().pop() } else { None };
        if let Some(coming) = coming {
            return coming.await.ok().flatten();
        }
        let channel = SftpChannel::connect(self.vessel, self.environment, None).await;
        let channel = channel.inspect(|channel| channel.set_route(self.route));
        channel.inspect_err(|e| tracing::debug!(vessel = %self.vessel.name, "Cannot open another connection: {e}")).ok()
    }

    /// Returns whether a new connection reaches its full rate before all bytes are sent at the current rate. Otherwise
    /// the other connections would wait for the new one at the end. The current rate is computed from `answered`, the
    /// number of bytes acknowledged at `since`. Always returns `true` if the number of connections is fixed.
    fn is_soon_of_use(&self, answered: u64, since: Instant) -> bool {
        let fixed = matches!(self.vessel.connections, Connections::Fixed(_));
        let rate =
            self.channels.answered_on(self.route).saturating_sub(answered) as f64 / since.elapsed().as_secs_f64();
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
        if let Some(path) = self.remembered() {
            return path::channels(&path, USUAL_WINDOW, MOST).min(CHANNELS_OF_OPENSSH);
        }
        let round_trips = if channel.sends_with_bbr() { REPAIR } else { 1.0 };
        let needed = (self.first.round_trip().as_secs_f64() * round_trips * FULL_RATE / USUAL_WINDOW).ceil();
        (needed as usize).clamp(1, CHANNELS_OF_OPENSSH)
    }
}
