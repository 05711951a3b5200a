//! A gate limits how many callers hold a place at once, and adapts the limit to how quickly the holders succeed.
//! Callers wait in an ordered queue. The gate is independent of SSH.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::Rank;

/// The interval at which waiting callers check whether a place has expired.
const LOOK: Duration = Duration::from_secs(1);

/// A limit on the number of places that are held at once. The limit grows by 1 when a holder succeeds quickly while
/// others wait, falls by a quarter when a holder is slow, and falls by half when a holder times out or is turned away.
///
/// A place that is held for too long expires, so that a holder that hangs does not block other callers forever.
pub(super) struct Gate {
    least: f64,
    most: f64,
    /// The minimum time until a place expires; a place expires later if holders usually take longer. `None`: a place
    /// expires after its holder's patience.
    shortest_lease: Option<Duration>,
    state: Mutex<State>,
}

struct State {
    limit: f64,
    /// For each place in use, by its id: when it was taken and when it expires.
    taken: HashMap<u64, (Instant, Instant)>,
    next: u64,
    waiting: BTreeMap<(Instant, u64), (Duration, oneshot::Sender<Place>)>,
    /// The shortest time that a holder needed to succeed.
    shortest: Option<Duration>,
    /// The moving average of the times that holders needed to succeed; 0 if none has succeeded yet.
    usual: Duration,
    /// When the limit was last lowered. A holder admitted before this time does not lower the limit again.
    lowered: Option<Instant>,
}

/// A place in a gate, released when it is dropped.
pub(super) struct Place {
    gate: Arc<Gate>,
    id: u64,
    since: Instant,
    patience: Duration,
    /// Whether the limit is lowered if the holder times out.
    judged: bool,
    cancelled: bool,
}

impl Gate {
    /// Creates a gate with the initial limit `first`, which later stays between `least` and `most`.
    pub(super) fn new(least: usize, first: usize, most: usize, shortest_lease: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            least: least as f64,
            most: most as f64,
            shortest_lease,
            state: Mutex::new(State {
                limit: first as f64,
                taken: HashMap::new(),
                next: 0,
                waiting: BTreeMap::new(),
                shortest: None,
                usual: Duration::ZERO,
                lowered: None,
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. Callers get places in the order of their arrival times, shifted by their ranks. `patience` is
    /// how long a holder may take before it counts as timed out.
    pub(super) async fn enter(self: &Arc<Self>, rank: Rank, patience: Duration) -> Place {
        let mut turn = {
            let mut state = self.state();
            if state.waiting.is_empty() && state.has_room() {
                return self.place(&mut state, patience);
            }
            let (sender, turn) = oneshot::channel();
            state.next += 1;
            let key = (rank.counts_from(Instant::now()), state.next);
            state.waiting.insert(key, (patience, sender));
            turn
        };
        loop {
            self.admit();
            match timeout(LOOK, &mut turn).await {
                Ok(Ok(place)) => return place,
                // Cannot happen while the gate exists, because the gate holds the sender.
                Ok(Err(_)) => return self.place(&mut self.state(), patience),
                Err(_) => {}
            }
        }
    }

    fn place(self: &Arc<Self>, state: &mut State, patience: Duration) -> Place {
        let since = Instant::now();
        let lease = match self.shortest_lease {
            Some(shortest) => (state.usual * 4).max(shortest).min(patience),
            None => patience,
        };
        state.next += 1;
        state.taken.insert(state.next, (since, since + lease));
        Place { gate: self.clone(), id: state.next, since, patience, judged: true, cancelled: false }
    }

    /// Gives free places to waiting callers.
    fn admit(self: &Arc<Self>) {
        loop {
            let (place, sender) = {
                let mut state = self.state();
                if state.waiting.is_empty() || !state.has_room() {
                    return;
                }
                let Some((_, (patience, sender))) = state.waiting.pop_first() else { return };
                if sender.is_closed() {
                    continue;
                }
                (self.place(&mut state, patience), sender)
            };
            // The caller may have stopped waiting in between.
            if let Err(place) = sender.send(place) {
                place.cancel();
            }
        }
    }

    fn lower(&self, state: &mut State, since: Instant, factor: f64) {
        if state.lowered.is_none_or(|lowered| lowered <= since) {
            state.limit = (state.limit * factor).max(self.least);
            state.lowered = Some(Instant::now());
        }
    }
}

impl State {
    fn has_room(&mut self) -> bool {
        let now = Instant::now();
        if (self.taken.len() + 1) as f64 > self.limit {
            self.taken.retain(|_, (_, expires)| *expires > now);
        }
        (self.taken.len() + 1) as f64 <= self.limit
    }
}

impl Place {
    /// Returns the place, marked so that a timeout of its holder does not lower the limit.
    pub(super) fn unjudged(mut self) -> Self {
        self.judged = false;
        self
    }

    /// Records that the holder succeeded.
    pub(super) fn succeeded(mut self) {
        self.judged = false;
        let (gate, took) = (self.gate.clone(), self.since.elapsed());
        let mut state = gate.state();
        let shortest = state.shortest.map_or(took, |shortest| shortest.min(took));
        state.shortest = Some(shortest);
        state.usual = if state.usual.is_zero() { took } else { (state.usual * 7 + took) / 8 };
        // If the round-trip time is long, every login is slow, so the time is also compared with the shortest one.
        if took <= (self.patience / 4).max(shortest * 2) {
            if !state.waiting.is_empty() {
                state.limit = (state.limit + 1.0).min(gate.most);
            }
        } else if took > (self.patience / 2).max(shortest * 4) {
            gate.lower(&mut state, self.since, 0.75);
        }
        // The lock must be released first, because dropping the place locks the state again.
        drop(state);
    }

    /// Records that the host rejected the holder at the start, probably because too many logins were running. The limit
    /// falls by half, as after a timeout.
    pub(super) fn turned_away(mut self) {
        self.judged = false;
        self.gate.lower(&mut self.gate.state(), self.since, 0.5);
    }

    /// Releases the place without admitting a waiting caller, because the loop in [`Gate::admit`] does that.
    fn cancel(mut self) {
        self.cancelled = true;
        self.gate.state().taken.remove(&self.id);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.cancelled {
            return;
        }
        {
            let mut state = self.gate.state();
            state.taken.remove(&self.id);
            if self.judged && self.since.elapsed() >= self.patience.mul_f64(0.9) {
                self.gate.lower(&mut state, self.since, 0.5);
            }
        }
        self.gate.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn limit(gate: &Gate) -> f64 {
        gate.state().limit
    }

    /// Runs `count` logins that share one processor, each of which needs `burst` of processor time. Returns the total
    /// time and the time of the longest login.
    async fn stampede(gate: &Arc<Gate>, count: u32, burst: Duration) -> (Duration, Duration) {
        let (since, longest) = (Instant::now(), Arc::new(Mutex::new(Duration::ZERO)));
        let logins: Vec<_> = (0..count)
            .map(|_| {
                let (gate, longest) = (gate.clone(), longest.clone());
                tokio::spawn(async move {
                    let place = gate.enter(Rank::first(true, 0), PATIENCE).await;
                    let began = Instant::now();
                    let mut left = burst;
                    while !left.is_zero() {
                        let step = Duration::from_millis(50);
                        tokio::time::sleep(step).await;
                        left = left.saturating_sub(step / u32::try_from(gate.state().taken.len()).unwrap());
                    }
                    let mut longest = longest.lock().unwrap();
                    *longest = longest.max(began.elapsed());
                    place.succeeded();
                })
            })
            .collect();
        for login in logins {
            login.await.unwrap();
        }
        let longest = *longest.lock().unwrap();
        (since.elapsed(), longest)
    }

    #[tokio::test(start_paused = true)]
    async fn many_heavy_logins_take_their_turns_and_none_takes_long() {
        let gate = Gate::new(1, 4, 8, None);
        let (all, longest) = stampede(&gate, 200, Duration::from_millis(500)).await;
        assert!(longest < PATIENCE / 2, "{longest:?}");
        assert!(all < Duration::from_secs(130), "{all:?} for 100 s of work");
    }

    #[tokio::test(start_paused = true)]
    async fn light_logins_raise_the_limit_and_never_above_the_most() {
        let gate = Gate::new(1, 4, 8, None);
        stampede(&gate, 100, Duration::from_millis(50)).await;
        assert_eq!(limit(&gate), 8.0);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_time_out_together_lower_the_limit_once() {
        let gate = Gate::new(1, 8, 8, None);
        let mut places = Vec::new();
        for _ in 0..8 {
            places.push(gate.enter(Rank::first(true, 0), PATIENCE).await);
        }
        tokio::time::advance(PATIENCE).await;
        places.clear();
        assert_eq!(limit(&gate), 4.0);
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_hang_take_turns_from_nobody_for_long() {
        let gate = Gate::new(2, 4, 8, Some(Duration::from_secs(2)));
        let mut hung = Vec::new();
        for _ in 0..4 {
            hung.push(gate.enter(Rank::first(true, 0), PATIENCE).await);
        }
        let since = Instant::now();
        gate.enter(Rank::first(true, 0), PATIENCE).await.succeeded();
        assert!(since.elapsed() <= Duration::from_secs(3), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_replaces_a_connection_comes_first_and_nobody_waits_for_ever() {
        let gate = Gate::new(1, 1, 1, None);
        let taken = gate.enter(Rank::first(true, 0), PATIENCE * 100).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let wait = |name: &'static str, rank: Rank| {
            let (gate, order) = (gate.clone(), order.clone());
            tokio::spawn(async move {
                let _place = gate.enter(rank, PATIENCE).await;
                order.lock().unwrap().push(name);
            })
        };
        let mut waiting = vec![wait("further", Rank::further())];
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_secs(60)).await;
        waiting.push(wait("idle", Rank::first(false, 0)));
        waiting.push(wait("failed", Rank::first(true, 1)));
        waiting.push(wait("work", Rank::first(true, 0)));
        waiting.push(wait("replacement", Rank::replacement()));
        tokio::task::yield_now().await;
        // A caller that gives up while waiting must not block others.
        let gone = wait("gone", Rank::replacement());
        tokio::task::yield_now().await;
        gone.abort();
        drop(taken);
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["further", "replacement", "work", "failed", "idle"]);
    }
}
