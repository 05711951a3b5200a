//! The highest rate at which all connections to a vessel together may send.
//!
//! BBR finds the rate of a path by sending more than the path carries, and several BBR connections each overestimate
//! their share. Where the queue in front of the path is short, everything above the path's rate is lost and sent again.
//! So once the path is saturated, the connections together are limited to the rate at which data arrived. The limit is
//! raised a little at intervals, because the path may have become faster. This module handles only numbers.

use std::collections::VecDeque;
use std::time::Duration;

/// A measurement of all connections over a short time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tick {
    pub(super) took: Duration,
    /// Payload bytes that arrived at the vessel.
    pub(super) delivered: f64,
    /// Payload bytes that were sent, including retransmissions, and the retransmitted bytes alone.
    pub(super) sent: f64,
    pub(super) resent: f64,
    /// Payload bytes that count as lost and were not retransmitted yet.
    pub(super) lost: f64,
    /// Whether the connections had too little to send.
    pub(super) limited: bool,
    /// The shortest round trip, and the current one.
    pub(super) least_round_trip: Duration,
    pub(super) round_trip: Duration,
}

/// The path is judged only if at least this many bytes are delivered per shortest round trip. With fewer, packets
/// travel in bursts whose rate is not meaningful, and the usual queue is long compared with the bytes in flight.
const LEAST: f64 = 400e3;
/// A path counts as full when more than `LOSSY` of the bytes of a round trip were lost, and the rate grew by less than
/// the factor `GROWS`. Losses for other reasons are rarer. A longer round trip alone is not evidence, because a busy
/// processor lengthens it too, and a connection that is limited by mistake takes long to become as fast again.
const LOSSY: f64 = 0.1;
const GROWS: f64 = 1.25;
/// A probe ends when the queue in front of the path fills: in `IN_A_ROW` successive measurements, the round trip
/// exceeds the shortest one by more than `QUEUE_SHARE` of it and by more than `QUEUE`.
const QUEUE_SHARE: f64 = 0.06;
const QUEUE: Duration = Duration::from_millis(15);
const IN_A_ROW: u32 = 2;
/// The limits on a full path, as shares of its highest rate: `DRAIN` while its queue drains, `CRUISE` most of the time,
/// and `PROBE` during a probe for a higher rate.
const DRAIN: f64 = 0.85;
const CRUISE: f64 = 0.98;
const PROBE: f64 = 1.25;
/// Numbers of round trips: how long the highest rate is remembered, how long a probe lasts (a BBR connection sends more
/// than its rate in 1 round trip of 8), and the first and the longest pause between probes.
const REMEMBERED: usize = 24;
const PROBING: u32 = 8;
const PAUSE: u32 = 8;
const LONGEST_PAUSE: u32 = 64;
/// A probe has found a faster path when the rate grew by this factor.
const FOUND: f64 = 1.08;
/// Shares of a remembered rate. Until the rate is checked, the limit is `UNCHECKED` of it. The rate counts as checked
/// when data arrives at `CHECKED` of it, and as confirmed at `CONFIRMED` of it.
const UNCHECKED: f64 = 0.5;
const CHECKED: f64 = 0.4;
const CONFIRMED: f64 = 0.9;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// The rate of the path is unknown.
    Free,
    /// The path carried this rate in an earlier session. `checked` is `true` once data has arrived at [`CHECKED`] of
    /// this rate in this session.
    Resumed { rate: f64, checked: bool },
    /// The path is full.
    Held,
}

/// The rate of a path.
pub(super) struct Pace {
    phase: Phase,
    ticks: VecDeque<Tick>,
    /// The sum of the measurements in the current round trip.
    round: Tick,
    /// Number of measurements in a row that showed a queue.
    queued: u32,
    /// The rates of the latest round trips with enough to send, in bytes per second; the latest is last.
    rounds: VecDeque<f64>,
    /// The rate of the last complete round trip with enough to send, to which the current rate is compared.
    before: f64,
    /// The current share of the highest rate, and the number of round trips for which this share still applies.
    share: f64,
    left: u32,
    pause: u32,
    probed_from: f64,
}

impl Pace {
    pub(super) fn new(remembered: Option<f64>) -> Self {
        let phase = remembered.map_or(Phase::Free, |rate| Phase::Resumed { rate, checked: false });
        Self {
            phase,
            ticks: VecDeque::new(),
            round: Tick::default(),
            queued: 0,
            rounds: VecDeque::new(),
            before: 0.0,
            share: 1.0,
            left: 0,
            pause: PAUSE,
            probed_from: 0.0,
        }
    }

    /// Returns the highest rate of the latest round trips; 0 if none is known.
    pub(super) fn best(&self) -> f64 {
        self.rounds.iter().copied().fold(0.0, f64::max)
    }

    /// Returns the rate of the path in bytes per second, once the path was found to be full.
    pub(super) fn found(&self) -> Option<f64> {
        (self.phase == Phase::Held).then(|| self.best())
    }

    /// Returns the highest rate at which the connections may send together, in bytes per second; `None` for no limit.
    pub(super) fn limit(&self) -> Option<f64> {
        match self.phase {
            Phase::Free => None,
            Phase::Resumed { rate, checked } => Some(rate * if checked { CRUISE } else { UNCHECKED }),
            Phase::Held => Some(self.best() * self.share),
        }
    }

    pub(super) fn note(&mut self, tick: Tick) {
        let round_trip = tick.round_trip.max(tick.least_round_trip);
        self.ticks.push_back(tick);
        while self.ticks.iter().skip(1).map(|tick| tick.took).sum::<Duration>() >= round_trip {
            self.ticks.pop_front();
        }
        self.each_tick(tick);
        let round = &mut self.round;
        round.took += tick.took;
        round.delivered += tick.delivered;
        round.sent += tick.sent;
        round.resent += tick.resent;
        round.limited |= tick.limited;
        if round.took >= round_trip {
            let round = std::mem::take(round);
            let in_flight = rate_of([&round].into_iter()) * tick.least_round_trip.as_secs_f64();
            if !round.limited && in_flight >= LEAST {
                self.each_round(round);
            }
        }
    }

    /// Returns the rate of the last round trip.
    fn latest(&self) -> f64 {
        rate_of(self.ticks.iter())
    }

    /// Returns the rate of the last round trip or of its second half, whichever is higher.
    fn latest_best(&self) -> f64 {
        self.latest().max(rate_of(self.ticks.iter().skip(self.ticks.len() / 2)))
    }

    fn each_tick(&mut self, tick: Tick) {
        let longer = tick.round_trip.saturating_sub(tick.least_round_trip);
        let is_longer = longer > QUEUE.max(tick.least_round_trip.mul_f64(QUEUE_SHARE));
        self.queued = if is_longer { self.queued + 1 } else { 0 };
        let much = self.latest() * tick.least_round_trip.as_secs_f64() >= LEAST;
        let queued = self.queued >= IN_A_ROW && much;
        let latest = self.latest();
        let is_full = much && self.loses() && latest < self.before * GROWS;
        match self.phase {
            Phase::Free | Phase::Resumed { .. } if is_full => self.hold(self.latest_best(), DRAIN, 1),
            Phase::Resumed { rate, .. } if latest >= rate * CONFIRMED => self.hold(rate, CRUISE, PAUSE),
            Phase::Resumed { rate, checked: false } if latest >= rate * CHECKED => {
                self.phase = Phase::Resumed { rate, checked: true };
            }
            Phase::Held if (queued || self.loses()) && self.share > 1.0 => self.end_probe(),
            _ => {}
        }
    }

    /// Returns whether more than [`LOSSY`] of the bytes of the last round trip were lost.
    fn loses(&self) -> bool {
        let (sent, resent) = self.ticks.iter().fold((0.0, 0.0), |(s, r), tick| (s + tick.sent, r + tick.resent));
        resent + self.ticks.back().map_or(0.0, |tick| tick.lost) > sent * LOSSY
    }

    fn hold(&mut self, rate: f64, share: f64, rounds: u32) {
        self.phase = Phase::Held;
        self.rounds.clear();
        self.rounds.push_back(rate);
        (self.share, self.left, self.pause) = (share, rounds, PAUSE);
    }

    fn each_round(&mut self, round: Tick) {
        let rate = rate_of([&round].into_iter());
        if self.rounds.len() == REMEMBERED {
            self.rounds.pop_front();
        }
        self.rounds.push_back(rate);
        self.before = rate;
        match self.phase {
            Phase::Held if self.share > 1.0 && rate > self.probed_from * FOUND => {
                // The path was not full, or has become faster.
                self.phase = Phase::Free;
            }
            Phase::Held => self.turn(),
            Phase::Free | Phase::Resumed { .. } => {}
        }
    }

    /// Advances the cycle of limiting and probing.
    fn turn(&mut self) {
        self.left = self.left.saturating_sub(1);
        // A probe begins only when the queue is gone, because a remaining queue would end it at once.
        if self.left == 0 && self.share < 1.0 && self.queued < IN_A_ROW {
            self.probed_from = self.best();
            (self.share, self.left) = (PROBE, PROBING);
        } else if self.left == 0 && self.share > 1.0 {
            self.end_probe();
        }
    }

    /// Ends a probe, because it found nothing or filled the queue, and doubles the pause after the next one.
    fn end_probe(&mut self) {
        (self.share, self.left) = (CRUISE, self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Returns the rate of some measurements, in bytes per second.
fn rate_of<'a>(ticks: impl Iterator<Item = &'a Tick>) -> f64 {
    let (bytes, seconds) = ticks.fold((0.0, 0.0), |(b, s), tick| (b + tick.delivered, s + tick.took.as_secs_f64()));
    bytes / f64::max(seconds, 0.001)
}

/// Divides a rate among connections equally. If a connection can use only less than its share, the others share the
/// difference.
pub(super) fn divide(rate: f64, wanted: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|one, other| wanted[*one].total_cmp(&wanted[*other]));
    let (mut left, mut shares) = (rate, vec![0.0; wanted.len()]);
    for (done, &at) in order.iter().enumerate() {
        let share = left / (wanted.len() - done) as f64;
        shares[at] = share.min(wanted[at]);
        left -= shares[at];
    }
    // A remainder that no connection can use yet is divided equally among all, so that each can grow.
    let spare = left.max(0.0) / wanted.len().max(1) as f64;
    shares.iter().map(|share| share + spare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(400);

    /// Sends at the highest allowed rate up to `wish`, for some round trips, over a path that carries `path` bytes per
    /// second and loses the rest.
    fn send(pace: &mut Pace, wish: f64, path: f64, round_trips: u32) {
        for _ in 0..round_trips * 8 {
            let took = ROUND_TRIP / 8;
            let sent = pace.limit().unwrap_or(f64::MAX).min(wish) * took.as_secs_f64();
            let delivered = sent.min(path * took.as_secs_f64());
            let (least_round_trip, round_trip) = (ROUND_TRIP, ROUND_TRIP);
            let (resent, lost, limited) = (sent - delivered, 0.0, false);
            pace.note(Tick { took, delivered, sent, resent, lost, limited, least_round_trip, round_trip });
        }
    }

    /// Doubles the rate with each round trip, like a new connection.
    fn begin(pace: &mut Pace, path: f64) {
        for doubled in 0..10 {
            send(pace, 50e3 * f64::from(1 << doubled), path, 1);
        }
    }

    #[test]
    fn a_slow_path_is_not_limited() {
        let mut pace = Pace::new(None);
        begin(&mut pace, 0.5e6);
        assert_eq!(pace.limit(), None);
    }

    #[test]
    fn a_path_that_loses_nothing_is_not_limited() {
        let mut pace = Pace::new(None);
        begin(&mut pace, f64::MAX);
        send(&mut pace, 1e6, f64::MAX, 20);
        assert_eq!((pace.limit(), pace.found()), (None, None));
    }

    #[test]
    fn random_losses_and_a_longer_round_trip_do_not_limit() {
        let mut pace = Pace::new(None);
        for _ in 0..80 {
            let took = ROUND_TRIP / 8;
            let (round_trip, least_round_trip) = (ROUND_TRIP * 2, ROUND_TRIP);
            let lossy = Tick { took, delivered: 95e3, sent: 100e3, resent: 5e3, ..Tick::default() };
            pace.note(Tick { round_trip, least_round_trip, ..lossy });
        }
        assert_eq!(pace.limit(), None);
    }

    #[test]
    fn a_full_path_is_held_to_a_little_less_than_it_carries() {
        let mut pace = Pace::new(None);
        begin(&mut pace, 5e6);
        let limit = pace.limit().unwrap();
        assert!((4e6..=5e6).contains(&limit), "{limit}");
        let found = pace.found().unwrap();
        assert!((4.9e6..=5.1e6).contains(&found), "{found}");
    }

    #[test]
    fn a_path_that_becomes_faster_is_found_out() {
        let mut pace = Pace::new(None);
        begin(&mut pace, 5e6);
        send(&mut pace, 20e6, 5e6, 30);
        assert!(pace.limit().unwrap() < 7e6);
        send(&mut pace, 20e6, 20e6, 80);
        assert!(pace.limit().is_none_or(|limit| limit > 18e6), "{:?}", pace.limit());
    }

    #[test]
    fn a_path_that_becomes_slower_is_followed() {
        let mut pace = Pace::new(None);
        begin(&mut pace, 5e6);
        send(&mut pace, 20e6, 2e6, 40);
        assert!(pace.limit().unwrap() < 3e6, "{:?}", pace.limit());
    }

    #[test]
    fn a_remembered_rate_is_used_by_half_until_it_is_checked() {
        let mut pace = Pace::new(Some(4e6));
        assert_eq!(pace.limit(), Some(2e6));
        send(&mut pace, 1e6, 5e6, 2);
        assert_eq!(pace.limit(), Some(2e6));
        send(&mut pace, 8e6, 5e6, 2);
        assert!(pace.limit().unwrap() > 3.8e6, "{:?}", pace.limit());
    }

    #[test]
    fn a_remembered_rate_that_the_path_no_longer_carries_is_given_up() {
        let mut pace = Pace::new(Some(4e6));
        send(&mut pace, 8e6, 1.2e6, 4);
        assert!(pace.limit().unwrap() < 1.5e6, "{:?}", pace.limit());
    }

    #[test]
    fn the_connections_share_the_rate_and_none_keeps_what_it_cannot_use() {
        assert_eq!(divide(90.0, &[1000.0, 1000.0, 1000.0]), [30.0, 30.0, 30.0]);
        assert_eq!(divide(90.0, &[10.0, 1000.0, 1000.0]), [10.0, 40.0, 40.0]);
        assert_eq!(divide(90.0, &[10.0, 20.0, 30.0]), [20.0, 30.0, 40.0]);
        assert!(divide(90.0, &[]).is_empty());
    }
}
