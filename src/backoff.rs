//! Computes how long to wait before a retry.

use std::time::Duration;

/// The longest wait of a delivery before its next attempt.
pub const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);

/// Exponential back-off with full jitter: each wait is a random fraction of a limit that doubles from `first` to `cap`.
///
/// Full jitter (any wait from 0 to the limit) spreads many clients best after a shared outage; see "Exponential Backoff
/// And Jitter" in the AWS architecture blog. Here, the shortest wait is a tenth of the limit, so that no client retries
/// too fast.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
}

impl Backoff {
    /// Creates a back-off that waits up to `first` after the first failure, and never longer than `cap`.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap }
    }

    /// Returns the wait after `failures` failures in a row (at least 1). `share` is a random number from 0 to 1: the
    /// fraction of the limit to wait.
    pub fn wait(&self, failures: u32, share: f64) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        doubled.min(self.cap).mul_f64(share.clamp(0.1, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use std::time::Duration;

    #[test]
    fn doubles_up_to_the_cap_and_never_reaches_nought() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let full: Vec<u64> = (1..9).map(|n| backoff.wait(n, 1.0).as_secs()).collect();
        assert_eq!(full, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.wait(u32::MAX, 1.0).as_secs(), 60);
        assert_eq!(backoff.wait(1, 0.0), Duration::from_millis(100));
    }
}
