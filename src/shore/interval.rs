//! The gate that changes leave by: with an `Interval` they collect before it and go out together.

use std::time::{Duration, Instant};

/// Opens for whoever waits, and then stays shut for the interval.
pub(super) struct Interval {
    interval: Duration,
    opens_at: Option<Instant>,
}

impl Interval {
    /// A gate that is open, and always is where the interval is zero.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, opens_at: None }
    }

    /// When what waits may go; `None`: at once.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        self.opens_at
    }

    /// Lets what waits go, if it may: then the gate is shut again.
    pub(super) fn pass(&mut self, now: Instant) -> bool {
        if self.opens_at.is_some_and(|at| at > now) {
            return false;
        }
        self.opens_at = (!self.interval.is_zero()).then(|| now + self.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_first_goes_at_once_and_the_rest_together() {
        let mut gate = Interval::new(Duration::from_secs(15));
        let now = Instant::now();
        assert!(gate.pass(now));
        assert!(!gate.pass(now + Duration::from_secs(14)));
        assert_eq!(gate.opens_at(), Some(now + Duration::from_secs(15)));
        assert!(gate.pass(now + Duration::from_secs(15)));
        assert!(!gate.pass(now + Duration::from_secs(29)));
    }

    #[test]
    fn without_an_interval_it_is_always_open() {
        let mut gate = Interval::new(Duration::ZERO);
        let now = Instant::now();
        assert!(gate.pass(now) && gate.pass(now) && gate.opens_at().is_none());
    }
}
