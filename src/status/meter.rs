//! A meter for the bytes transferred in each of the last seconds.

use std::collections::VecDeque;

/// Length of the history in seconds.
pub(super) const REACH: usize = 300;
/// Number of whole seconds that a rate is averaged over: few enough to follow changes, many enough to smooth them.
const WINDOW: u64 = 5;

/// The bytes of each of the last [`REACH`] seconds. Seconds are counted from a start that the caller defines.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    /// The number of each second with bytes, and its bytes, oldest first.
    seconds: VecDeque<(u64, u64)>,
}

impl Meter {
    /// Adds `bytes` that were transferred in the second numbered `second`.
    pub(super) fn add(&mut self, second: u64, bytes: u64) {
        match self.seconds.back_mut() {
            Some((last, sum)) if *last >= second => *sum += bytes,
            _ => self.seconds.push_back((second, bytes)),
        }
        while self.seconds.front().is_some_and(|(oldest, _)| oldest + (REACH as u64) < second) {
            self.seconds.pop_front();
        }
    }

    /// Returns the average bytes per second over the last [`WINDOW`] whole seconds before `now`, or over fewer just
    /// after the start.
    pub(super) fn rate(&self, now: u64) -> u64 {
        let from = now.saturating_sub(WINDOW);
        let sum: u64 = self.between(from, now).map(|(_, bytes)| bytes).sum();
        sum / (now - from).max(1)
    }

    /// Returns the bytes of each of the last [`REACH`] whole seconds before `now`, oldest first.
    pub(super) fn history(&self, now: u64) -> Vec<u64> {
        let from = now.saturating_sub(REACH as u64);
        let mut history = vec![0; usize::try_from(now - from).unwrap_or(REACH)];
        for (second, bytes) in self.between(from, now) {
            if let Some(place) = usize::try_from(second - from).ok().and_then(|at| history.get_mut(at)) {
                *place = bytes;
            }
        }
        history
    }

    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        self.seconds.iter().copied().filter(move |(second, _)| (from..to).contains(second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_taken_over_whole_seconds_and_fades_when_nothing_goes_by() {
        let mut meter = Meter::default();
        assert_eq!(meter.rate(0), 0);
        for second in 0..10 {
            meter.add(second, 60);
            meter.add(second, 40);
        }
        assert_eq!((meter.rate(2), meter.rate(10), meter.rate(12), meter.rate(20)), (100, 100, 60, 0));
    }

    #[test]
    fn history_holds_quiet_seconds_too_and_forgets_what_is_old() {
        let mut meter = Meter::default();
        for second in [0, 2, 1000] {
            meter.add(second, second + 1);
        }
        assert_eq!(meter.seconds.len(), 1);
        let history = meter.history(1002);
        assert_eq!((history.len(), history[REACH - 2], history[REACH - 1], history[0]), (REACH, 1001, 0, 0));
    }
}
