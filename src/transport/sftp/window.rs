//! Limits the payload bytes in flight (the window) to about the amount that keeps the path full.
//!
//! A window that is too small leaves the link idle while replies are on their way. A window that is too large makes
//! bytes queue before the link: a small file that is sent later waits behind these bytes, and they are lost when the
//! link breaks. So the size of the window follows from the measured acknowledgement rate and the round-trip time. This
//! module handles only bytes and time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The lower bound, the initial size and the upper bound of the window, in bytes. The upper bound is twice the 2 MiB
/// that OpenSSH grants a channel, so that the channel stays full while another 2 MiB are on their way.
const LEAST: usize = 64 << 10;
const FIRST: usize = 256 << 10;
const MOST: usize = 4 << 20;
/// The rate, in bytes per second, that is assumed before the first measurement.
const FIRST_RATE: f64 = 3e6;
/// How many round trips the window covers. `STEADY_ROUND_TRIPS` applies to steady congestion control, which keeps its
/// sending rate when packets are lost. A lost packet is sent again within one or two more round trips, and no later
/// packet is acknowledged before that. With a smaller window, steady congestion control would have to stop meanwhile,
/// and the missing acknowledgements would shrink the window after each loss.
const ROUND_TRIPS: u32 = 2;
const STEADY_ROUND_TRIPS: u32 = 4;
/// With steady congestion control, the window is doubled if the latest rate is more than this many times as high as the
/// highest earlier rate.
const GROWS: f64 = 1.25;
/// Time that the window covers in addition to the round trips, because vessels reply in bursts and disks pause.
const SLACK: Duration = Duration::from_millis(250);
/// The minimum duration of one count of acknowledged bytes, how many counts are kept, and over how many successive
/// counts a rate is averaged. The average is needed because after a loss no bytes are acknowledged for a round trip,
/// and then all of them at once.
const MEASURE: Duration = Duration::from_millis(50);
const REMEMBERED: usize = 16;
const IN_A_ROW: usize = 4;
const STEADY_IN_A_ROW: usize = 2;
/// How many writes should fit into the window, so that replies arrive steadily, and the minimum size of a write in
/// bytes.
const WRITES: u64 = 8;
const LEAST_WRITE: u64 = 32 << 10;

/// The send window of one session.
pub(super) struct Window {
    steady: bool,
    fill: Arc<Fill>,
    /// Locked by the write that enters the window next. The other writes wait for the lock in the order of their
    /// arrival.
    turn: tokio::sync::Mutex<()>,
    answered: AtomicU64,
    state: Mutex<State>,
}

/// The bytes in the window, and the signal for the write that waits for space in it.
struct Fill {
    bytes: Mutex<Bytes>,
    /// Wakes the write that waits for space in the window.
    changed: Notify,
}

struct Bytes {
    size: usize,
    in_flight: usize,
    closed: bool,
}

struct State {
    round_trip: Duration,
    since: Instant,
    bytes: u64,
    /// Counts of acknowledged bytes, each with the seconds that they took; the latest count is last.
    counts: VecDeque<(f64, f64)>,
    /// The upper bound of the window in bytes, as set by [`Window::limit`].
    most: usize,
}

impl State {
    /// Returns the highest recent rate in bytes per second. Used with steady congestion control, where a pause in the
    /// acknowledgements does not mean that the path has become slower.
    fn best_rate(&self) -> f64 {
        let counts: Vec<_> = self.counts.iter().copied().collect();
        counts.windows(STEADY_IN_A_ROW.min(counts.len())).map(rate).fold(0.0, f64::max)
    }

    /// Returns whether the latest rate is much higher than all rates before it. A connection that doubles its rate with
    /// each round trip needs a window for the doubled rate.
    fn grows(&self) -> bool {
        let mut latest = self.counts.iter().rev().map(|count| rate(std::slice::from_ref(count)));
        let now = latest.next().unwrap_or_default();
        now > latest.fold(0.0, f64::max) * GROWS
    }

    /// Returns the latest rate in bytes per second. Used without steady congestion control: when a loss has slowed the
    /// path down, a window for a higher rate would only lengthen the queue.
    fn latest_rate(&self) -> f64 {
        let counts: Vec<_> = self.counts.iter().copied().collect();
        rate(&counts[counts.len().saturating_sub(IN_A_ROW)..])
    }
}

/// Returns the average rate of several counts, in bytes per second.
fn rate(counts: &[(f64, f64)]) -> f64 {
    let (bytes, seconds) = counts.iter().fold((0.0, 0.0), |(b, s), (bytes, seconds)| (b + bytes, s + seconds));
    bytes / seconds
}

/// A number of bytes in the window. They leave the window when this value is dropped.
pub(super) struct InFlight {
    fill: Arc<Fill>,
    bytes: usize,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.fill.change(|fill| fill.in_flight -= self.bytes);
    }
}

impl Fill {
    fn bytes(&self) -> MutexGuard<'_, Bytes> {
        self.bytes.lock().expect("no code panics while it holds this lock")
    }

    fn change(&self, change: impl FnOnce(&mut Bytes)) {
        change(&mut self.bytes());
        self.changed.notify_one();
    }
}

impl Window {
    /// Creates the window of a path. `steady` says whether the congestion control keeps its sending rate when packets
    /// are lost.
    pub(super) fn new(steady: bool) -> Self {
        Self {
            steady,
            fill: Arc::new(Fill {
                bytes: Mutex::new(Bytes { size: FIRST, in_flight: 0, closed: false }),
                changed: Notify::new(),
            }),
            turn: tokio::sync::Mutex::default(),
            answered: AtomicU64::new(0),
            state: Mutex::new(State {
                round_trip: Duration::ZERO,
                since: Instant::now(),
                bytes: 0,
                counts: VecDeque::with_capacity(REMEMBERED),
                most: MOST,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    fn size(&self) -> usize {
        self.fill.bytes().size
    }

    /// Waits until `bytes` more fit into the window. A write that is larger than the window is sent while no other
    /// bytes are in flight. Returns `None` when the session has ended.
    pub(super) async fn enter(&self, bytes: usize) -> Option<InFlight> {
        let _turn = self.turn.lock().await;
        loop {
            {
                let mut fill = self.fill.bytes();
                if fill.closed {
                    return None;
                }
                if fill.in_flight == 0 || fill.in_flight + bytes <= fill.size {
                    fill.in_flight += bytes;
                    return Some(InFlight { fill: self.fill.clone(), bytes });
                }
            }
            self.fill.changed.notified().await;
        }
    }

    /// Closes the window: all waiting and later writes are refused.
    pub(super) fn close(&self) {
        self.fill.change(|fill| fill.closed = true);
    }

    /// Sets an upper bound of the window in bytes, from the next acknowledgements on.
    pub(super) fn limit(&self, bytes: usize) {
        self.state().most = bytes.clamp(LEAST, MOST);
    }

    /// Sets an upper bound like [`Window::limit`]. If nothing was measured yet, the window gets this size at once.
    pub(super) fn begin_with(&self, bytes: usize) {
        let mut state = self.state();
        state.most = bytes.clamp(LEAST, MOST);
        let (most, is_new) = (state.most, state.counts.is_empty());
        drop(state);
        if is_new {
            self.resize(most);
        }
    }

    /// Records a measured round-trip time. Only the shortest one is kept, because longer ones include losses and
    /// queues.
    pub(super) fn note_round_trip(&self, round_trip: Duration) {
        let mut state = self.state();
        if !state.round_trip.is_zero() && state.round_trip <= round_trip {
            return;
        }
        state.round_trip = round_trip;
        if state.counts.is_empty() {
            // BBR starts slowly, so its window keeps the initial size: later requests on the channel wait until the
            // bytes before them are sent.
            let wanted = (round_trip.as_secs_f64() * FIRST_RATE) as usize;
            self.resize(if self.steady { FIRST } else { wanted.clamp(FIRST, MOST / 2) });
        }
    }

    pub(super) fn round_trip(&self) -> Duration {
        self.state().round_trip
    }

    pub(super) fn answered_bytes(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Returns the recommended size of one write in bytes: a fraction of the window.
    pub(super) fn worth_writing(&self) -> u64 {
        (self.size() as u64 / WRITES).max(LEAST_WRITE)
    }

    /// Returns half of the window in bytes. This is about the amount that is sent in one round trip (two with steady
    /// congestion control).
    pub(super) fn worth_a_file(&self) -> u64 {
        self.size() as u64 / 2
    }

    /// Records an acknowledgement, and adjusts the window to the rate of acknowledgements.
    pub(super) fn answered(&self, bytes: u64, now: Instant) {
        if bytes == 0 {
            return;
        }
        self.answered.fetch_add(bytes, Ordering::Relaxed);
        let mut state = self.state();
        state.bytes += bytes;
        let took = now.saturating_duration_since(state.since);
        if took < MEASURE.max(state.round_trip) {
            return;
        }
        let count = (state.bytes as f64, took.as_secs_f64());
        (state.bytes, state.since) = (0, now);
        if state.counts.len() == REMEMBERED {
            state.counts.pop_front();
        }
        state.counts.push_back(count);
        let rounds = if self.steady { STEADY_ROUND_TRIPS } else { ROUND_TRIPS };
        let rate = if self.steady { state.best_rate() } else { state.latest_rate() };
        let rounds = if self.steady && state.grows() { rounds * 2 } else { rounds };
        let wanted = (rate * (state.round_trip * rounds + SLACK).as_secs_f64()) as usize;
        self.resize(wanted.clamp(LEAST, state.most));
    }

    fn resize(&self, wanted: usize) {
        self.fill.change(|fill| fill.size = wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a new window, and returns the bytes in flight, which leave the window when they are dropped.
    async fn fill(window: &Window) -> Vec<InFlight> {
        let mut held = Vec::new();
        for _ in 0..FIRST / LEAST {
            held.push(window.enter(LEAST).await.unwrap());
        }
        held
    }

    /// Acknowledges `rate` bytes per second for this many seconds.
    fn answer(window: &Window, rate: u64, seconds: u32) {
        let start = window.state().since;
        for step in 1..=seconds * 10 {
            window.answered(rate / 10, start + Duration::from_millis(100) * step);
        }
    }

    #[test]
    fn a_slow_path_gets_a_small_window_and_a_fast_one_a_large() {
        for (rate, least, most) in [(50_000, LEAST, LEAST), (4_000_000, 2 << 20, 3 << 20), (500_000_000, MOST, MOST)] {
            let window = Window::new(true);
            window.note_round_trip(Duration::from_millis(100));
            answer(&window, rate, 10);
            assert!((least..=most).contains(&window.size()), "{rate}: {}", window.size());
        }
    }

    #[test]
    fn what_was_given_in_better_times_is_taken_back_where_losses_slow_a_path_down() {
        let (steady, yielding) = (Window::new(true), Window::new(false));
        for window in [&steady, &yielding] {
            window.note_round_trip(Duration::from_millis(100));
            answer(window, 4_000_000, 2);
            answer(window, 200_000, 1);
        }
        assert!(steady.size() >= 2 << 20 && yielding.size() < 256 << 10, "{} {}", steady.size(), yielding.size());
    }

    #[test]
    fn a_window_is_not_larger_than_its_bound() {
        let window = Window::new(true);
        window.note_round_trip(Duration::from_millis(100));
        window.limit(300_000);
        answer(&window, 4_000_000, 10);
        assert_eq!(window.size(), 300_000);
        window.limit(usize::MAX);
        answer(&window, 4_000_000, 10);
        assert!(window.size() > 2 << 20);
    }

    #[test]
    fn a_rate_that_doubles_gets_a_window_for_the_next_one() {
        let window = Window::new(true);
        window.note_round_trip(Duration::from_millis(500));
        let mut now = window.state().since;
        for bytes in [50_000, 100_000, 200_000, 400_000] {
            now += Duration::from_millis(500);
            window.answered(bytes, now);
        }
        // The window is sized for 800 kB/s, twice 4 round trips and the slack, because the rate may double again.
        assert!(window.size() > 2_000_000, "{}", window.size());
    }

    #[test]
    fn a_longer_path_gets_a_larger_window() {
        let (near, far) = (Window::new(true), Window::new(true));
        far.note_round_trip(Duration::from_millis(600));
        for window in [&near, &far] {
            answer(window, 2_500_000, 20);
        }
        assert!(far.size() > 2 * near.size(), "{} {}", far.size(), near.size());
    }

    #[tokio::test]
    async fn what_is_in_flight_is_waited_for_when_the_window_shrinks() {
        let window = Window::new(true);
        let held = fill(&window).await;
        answer(&window, 1000, 10);
        assert_eq!(window.size(), LEAST);
        let mut next = std::pin::pin!(window.enter(LEAST));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(held);
        assert!(next.await.is_some());
    }

    #[tokio::test]
    async fn all_bytes_of_a_write_count_and_one_larger_than_the_window_goes_alone() {
        let window = Window::new(true);
        answer(&window, 1000, 10);
        let alone = window.enter(4 * LEAST).await.unwrap();
        let mut next = std::pin::pin!(window.enter(1));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(alone);
        assert!(next.await.is_some());
    }

    #[tokio::test]
    async fn nobody_waits_when_it_is_over() {
        let window = Window::new(true);
        let _full = fill(&window).await;
        let (waiting, ()) = tokio::join!(window.enter(1), async { window.close() });
        assert!(waiting.is_none());
    }
}
