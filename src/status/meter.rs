//! Meters that count the transferred bytes by the second.

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

/// The rate of a way, averaged over recent seconds in which there was always more data to send.
#[derive(Clone, Debug, Default)]
pub(super) struct RecentRate {
    /// The rate in bytes per second; 0 if it was not measured yet.
    pub(super) rate: f64,
    /// When the rate was measured, in milliseconds since 1970.
    pub(super) at: i64,
    /// The number of the current second, its bytes so far, and whether there was always more data to send in it.
    second: u64,
    bytes: u64,
    is_full: bool,
}

impl RecentRate {
    /// Approximate number of seconds that the average covers.
    const SECONDS: f64 = 8.0;

    /// Adds bytes that were transferred at the time `now` (in milliseconds since 1970), in the second with this number.
    pub(super) fn add(&mut self, (now, second): (i64, u64), bytes: u64, is_more_to_send: bool) {
        if second != self.second {
            let follows = second == self.second + 1;
            if self.is_full && follows && self.bytes > 0 {
                let change = self.bytes as f64 - self.rate;
                self.rate = if self.rate == 0.0 { self.bytes as f64 } else { self.rate + change / Self::SECONDS };
                self.at = now;
            }
            // The first second of a burst is incomplete, so its bytes show no rate.
            (self.second, self.bytes, self.is_full) = (second, 0, follows && is_more_to_send);
        }
        self.bytes += bytes;
        self.is_full &= is_more_to_send;
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
    fn a_recent_rate_counts_whole_seconds_in_which_there_was_more_to_send() {
        let mut recent = RecentRate::default();
        let add = |recent: &mut RecentRate, second: u64, bytes, more| {
            recent.add((second as i64 * 1000, second), bytes, more);
        };
        for second in [5, 9, 20] {
            add(&mut recent, second, 10, false);
        }
        assert_eq!(recent.rate, 0.0, "single small files say nothing");
        for second in 30..40 {
            add(&mut recent, second, 600, true);
            add(&mut recent, second, 400, true);
        }
        assert_eq!((recent.rate, recent.at), (1000.0, 39_000));
        add(&mut recent, 40, 1, false);
        add(&mut recent, 41, 1, false);
        assert_eq!(recent.rate, 1000.0);
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
