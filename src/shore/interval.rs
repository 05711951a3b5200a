//! Implements `Interval`: collected changes of a directory are released together, at most once per interval.

use std::time::{Duration, Instant};

/// Decides when collected changes may be released. After each release, the next one must wait for `interval`.
pub(super) struct Interval {
    interval: Duration,
    opens_at: Option<Instant>,
}

impl Interval {
    /// Creates the state before the first release, which may happen at once. With an interval of 0 s, no release has to
    /// wait.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, opens_at: None }
    }

    /// Returns when collected changes may be released next; `None` means at once.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        self.opens_at
    }

    /// Returns whether collected changes may be released now. If so, the next interval begins.
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
