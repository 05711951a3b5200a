//! The clock, passed as a value so that tests can set the time.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of the current time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// Returns the system clock.
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// Creates a clock that returns the result of `now`.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Returns the current time.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// Returns milliseconds since 1970-01-01 UTC, the ledger's unit; 0 if the clock shows an earlier time.
    pub fn now_ms(&self) -> i64 {
        to_ms(self.now())
    }
}

/// A clock for deletions by age. A jump of the system clock forward may be an error, so the jump is applied gradually:
/// at most 25 h per hour of run time.
pub struct WaryClock {
    clock: Clock,
    started: Instant,
    started_ms: i64,
}

impl WaryClock {
    /// Creates a wary clock that starts at the current time of `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { started: Instant::now(), started_ms: clock.now_ms(), clock }
    }

    /// Returns milliseconds since 1970-01-01 UTC, but no more than the start time plus 25 times the run time.
    pub fn now_ms(&self) -> i64 {
        let most = self.started.elapsed().saturating_mul(25);
        let most = i64::try_from(most.as_millis()).unwrap_or(i64::MAX);
        self.clock.now_ms().min(self.started_ms.saturating_add(most))
    }
}

/// Converts to milliseconds since 1970-01-01 UTC; 0 for an earlier time.
pub fn to_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_millis()).ok()).unwrap_or(0)
}

/// Returns the duration from `now_ms` to `then_ms`, both in milliseconds since 1970-01-01 UTC; zero unless `then_ms` is
/// later.
pub fn wait_between(now_ms: i64, then_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(then_ms.saturating_sub(now_ms)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn nothing_becomes_old_at_once_by_a_clock_that_is_put_forward() {
        let hands = Arc::new(AtomicU64::new(1_700_000_000));
        let shown = hands.clone();
        let clock = Clock::from_fn(move || UNIX_EPOCH + Duration::from_secs(shown.load(Ordering::Relaxed)));
        let wary = WaryClock::new(clock);
        let start = wary.now_ms();
        assert_eq!(start, 1_700_000_000_000);
        hands.fetch_add(30 * 86_400, Ordering::Relaxed);
        assert!(wary.now_ms() < start + 60_000);
        hands.fetch_sub(31 * 86_400, Ordering::Relaxed);
        assert_eq!(wary.now_ms(), start - 86_400_000, "a step back is believed at once");
    }
}
