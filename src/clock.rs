//! The time of day, passed in so that tests can set it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where "now" comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The computer's own clock.
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock that shows what `now` returns.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time of day.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// Milliseconds since 1970-01-01 UTC, the ledger's unit; 0 for a clock that is set before that.
    pub fn now_ms(&self) -> i64 {
        to_ms(self.now())
    }
}

/// A clock for what is deleted when it is old: a step forward may be a mistake, so it is believed little by little, a day for
/// each hour that the program runs.
pub struct WaryClock {
    clock: Clock,
    started: Instant,
    started_ms: i64,
}

impl WaryClock {
    /// Believes the time that it is now.
    pub fn new(clock: Clock) -> Self {
        Self { started: Instant::now(), started_ms: clock.now_ms(), clock }
    }

    /// Milliseconds since 1970-01-01 UTC, as far as they are believed.
    pub fn now_ms(&self) -> i64 {
        let most = self.started.elapsed().saturating_mul(25);
        let most = i64::try_from(most.as_millis()).unwrap_or(i64::MAX);
        self.clock.now_ms().min(self.started_ms.saturating_add(most))
    }
}

/// Milliseconds since 1970-01-01 UTC; 0 for an earlier time.
pub fn to_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_millis()).ok()).unwrap_or(0)
}

/// A span of time as people read it.
pub fn to_the_millisecond(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// The wait from one moment of the ledger to another; zero when the second is not later.
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
