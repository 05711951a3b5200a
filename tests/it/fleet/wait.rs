//! Waiting for a condition with a deadline. Nothing in these tests sleeps a guess.

use std::time::{Duration, Instant};

/// Generous, because a busy machine is not a fault; what is right takes a fraction of it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition is polled.
const GLANCE: Duration = Duration::from_millis(10);

/// Asks until there is an answer, and gives it; fails the test with `what` after [`DEADLINE`].
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        std::thread::sleep(GLANCE);
    }
}

/// Asks until it is so; fails the test with `what` after [`DEADLINE`].
#[track_caller]
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    wait_for(what, || so().then_some(()));
}

/// Fails the test when it ever becomes so within `time`: for what must *not* happen, which no condition can show.
#[track_caller]
pub(crate) fn never_within(time: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < time {
        assert!(!so(), "must not happen: {what}");
        std::thread::sleep(GLANCE);
    }
}
