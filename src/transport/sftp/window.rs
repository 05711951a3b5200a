//! How many payload bytes may be unanswered at once: as many as the path needs to stay full, and hardly more.
//!
//! Too few, and the link idles while answers are on their way; too many, and they queue before the link, where a small
//! file that comes later waits behind them, and are lost with it when it is cut. So the window follows the rate at which
//! the vessel answers, over the length of the path. Knows bytes and time, not what they are for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The window's bounds, in bytes, and where it starts. OpenSSH grants a channel 2 MiB, so the upper bound keeps a channel
/// full while as much again is on its way to it.
const LEAST: usize = 64 << 10;
const FIRST: usize = 256 << 10;
const MOST: usize = 4 << 20;
/// The rate that a path is taken to have before one was measured, in bytes per second.
const FIRST_RATE: f64 = 3e6;
/// The round trips that the window covers. Nothing that follows a lost packet is answered before that was sent again, in one more
/// or two; what keeps its rate meanwhile would find the window full, and for want of answers it would shrink after each loss.
const ROUND_TRIPS: u32 = 2;
const STEADY_ROUND_TRIPS: u32 = 4;
/// What it covers beyond: vessels answer in bursts, and disks pause.
const SLACK: Duration = Duration::from_millis(250);
/// The shortest time over which bytes are counted, how many counts are remembered, and how many in a row make a rate: after a
/// loss nothing is answered for a round trip, and then all of it at once.
const MEASURE: Duration = Duration::from_millis(50);
const REMEMBERED: usize = 16;
const IN_A_ROW: usize = 4;
const STEADY_IN_A_ROW: usize = 2;
/// Writes that should fit into the window, so that answers come steadily; and the least worth sending alone, in bytes.
const WRITES: u64 = 8;
const LEAST_WRITE: u64 = 32 << 10;

/// The window of one session.
pub(super) struct Window {
    steady: bool,
    room: Arc<Room>,
    /// Held by the write that is next: the others wait for it in the order in which they came.
    turn: tokio::sync::Mutex<()>,
    answered: AtomicU64,
    state: Mutex<State>,
}

/// How much room the window has, and who waits for it.
struct Room {
    bytes: Mutex<Bytes>,
    /// Wakes the write that is next.
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
    /// Bytes that were answered and the seconds that it took, the latest last.
    counts: VecDeque<(f64, f64)>,
}

impl State {
    /// What a path gives that is steady: the best of what is remembered, for pauses say little.
    fn best_rate(&self) -> f64 {
        let counts: Vec<_> = self.counts.iter().copied().collect();
        counts.windows(STEADY_IN_A_ROW.min(counts.len())).map(rate).fold(0.0, f64::max)
    }

    /// What a path gives now. Where a loss has slowed it down, what is given to it in the hope of better times keeps it long.
    fn latest_rate(&self) -> f64 {
        let counts: Vec<_> = self.counts.iter().copied().collect();
        rate(&counts[counts.len().saturating_sub(IN_A_ROW)..])
    }
}

/// The rate that counts come to, in bytes per second.
fn rate(counts: &[(f64, f64)]) -> f64 {
    let (bytes, seconds) = counts.iter().fold((0.0, 0.0), |(b, s), (bytes, seconds)| (b + bytes, s + seconds));
    bytes / seconds
}

/// Bytes in flight; dropped when they are answered.
pub(super) struct InFlight {
    room: Arc<Room>,
    bytes: usize,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.room.change(|room| room.in_flight -= self.bytes);
    }
}

impl Room {
    fn bytes(&self) -> MutexGuard<'_, Bytes> {
        self.bytes.lock().expect("no code panics while it holds this lock")
    }

    fn change(&self, change: impl FnOnce(&mut Bytes)) {
        change(&mut self.bytes());
        self.changed.notify_one();
    }
}

impl Window {
    /// One for a path; `steady`: whether what is sent keeps its rate when packets are lost.
    pub(super) fn new(steady: bool) -> Self {
        Self {
            steady,
            room: Arc::new(Room {
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
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    fn size(&self) -> usize {
        self.room.bytes().size
    }

    /// Waits until `bytes` more fit into the window. A write that is larger than the window goes alone. Returns `None` when
    /// the session has ended.
    pub(super) async fn enter(&self, bytes: usize) -> Option<InFlight> {
        let _turn = self.turn.lock().await;
        loop {
            {
                let mut room = self.room.bytes();
                if room.closed {
                    return None;
                }
                if room.in_flight == 0 || room.in_flight + bytes <= room.size {
                    room.in_flight += bytes;
                    return Some(InFlight { room: self.room.clone(), bytes });
                }
            }
            self.room.changed.notified().await;
        }
    }

    /// Ends the window: all writes that wait are refused.
    pub(super) fn close(&self) {
        self.room.change(|room| room.closed = true);
    }

    /// Takes note of how long a question and its answer took: the shortest says how long the way is, the others what was
    /// lost or waited for on it.
    pub(super) fn note_round_trip(&self, round_trip: Duration) {
        let mut state = self.state();
        if !state.round_trip.is_zero() && state.round_trip <= round_trip {
            return;
        }
        state.round_trip = round_trip;
        if state.counts.is_empty() {
            let wanted = (round_trip.as_secs_f64() * FIRST_RATE) as usize;
            self.resize(wanted.clamp(FIRST, MOST / 2));
        }
    }

    pub(super) fn round_trip(&self) -> Duration {
        self.state().round_trip
    }

    pub(super) fn answered_bytes(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many bytes are worth sending in one write.
    pub(super) fn worth_writing(&self) -> u64 {
        (self.size() as u64 / WRITES).max(LEAST_WRITE)
    }

    /// How many bytes go out during a round trip: about half of what the window covers.
    pub(super) fn worth_a_file(&self) -> u64 {
        self.size() as u64 / 2
    }

    /// Takes note of an answer, and fits the window to the rate at which they come.
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
        // What was counted across a pause says little, and lowers nothing where the path is steady.
        if state.counts.len() == REMEMBERED {
            state.counts.pop_front();
        }
        state.counts.push_back(count);
        let rounds = if self.steady { STEADY_ROUND_TRIPS } else { ROUND_TRIPS };
        let rate = if self.steady { state.best_rate() } else { state.latest_rate() };
        let wanted = (rate * (state.round_trip * rounds + SLACK).as_secs_f64()) as usize;
        self.resize(wanted.clamp(LEAST, MOST));
    }

    fn resize(&self, wanted: usize) {
        self.room.change(|room| room.size = wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all that a new one has.
    async fn fill(window: &Window) -> Vec<InFlight> {
        let mut held = Vec::new();
        for _ in 0..FIRST / LEAST {
            held.push(window.enter(LEAST).await.unwrap());
        }
        held
    }

    /// Answers at a rate in bytes per second for some seconds.
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
