//! Divides a file among several ways by their rates.

/// Approximate size in bytes of the piece of a file that a channel takes at a time.
const PIECE: f64 = (64 << 10) as f64;
/// Bytes that may be unanswered on a way until its rate is known: more would make the end of a file wait for a slow
/// way.
const UNKNOWN: f64 = (256 << 10) as f64;

/// The rate of a way, and the bytes in flight on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WayLoad {
    /// The rate at which the vessel acknowledges bytes, in bytes per second; 0 if nothing was acknowledged yet.
    pub(super) rate: f64,
    /// Bytes that were sent and not yet acknowledged, and those of the parts that are being opened.
    pub(super) unanswered: f64,
    /// The round-trip time in seconds.
    pub(super) round_trip: f64,
}

impl WayLoad {
    /// Returns the seconds until a piece that is sent now is acknowledged.
    fn brings(&self, piece: f64) -> f64 {
        (self.unanswered + piece) / self.rate + self.round_trip
    }

    /// Returns whether the way should take another piece of a file with `left` unsent bytes: it delivers the piece
    /// before the other ways could deliver all bytes, or no later than any other way would. At least one way is always
    /// in time.
    pub(super) fn is_in_time(&self, others: &[Self], left: u64) -> bool {
        if self.rate <= 0.0 {
            return self.unanswered < UNKNOWN;
        }
        let (left, known) = (left as f64, others.iter().filter(|other| other.rate > 0.0));
        let (mut bytes, mut rate, mut round_trip, mut is_first) = (left, 0.0, 0.0_f64, true);
        let piece = PIECE.min(left);
        for other in known {
            bytes += other.unanswered;
            rate += other.rate;
            round_trip = round_trip.max(other.round_trip);
            is_first &= self.brings(piece) <= other.brings(piece);
        }
        is_first || self.brings(piece) <= bytes / rate + round_trip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(rate: f64, unanswered: f64, round_trip: f64) -> WayLoad {
        WayLoad { rate, unanswered, round_trip }
    }

    #[test]
    fn a_slow_way_takes_no_piece_that_a_fast_one_would_bring_sooner() {
        let (slow, fast) = (way(500e3, 1e6, 0.05), way(1e6, 1e6, 0.05));
        assert!(slow.is_in_time(&[fast], 4_000_000), "two seconds, and five without it");
        assert!(!slow.is_in_time(&[fast], 900_000), "two seconds are longer than 1.9");
        assert!(fast.is_in_time(&[slow], 900_000));
    }

    #[test]
    fn a_way_whose_rate_is_unknown_takes_little() {
        let known = way(1e6, 1e6, 0.05);
        assert!(way(0.0, 0.0, 0.6).is_in_time(&[known], 1 << 30));
        assert!(!way(0.0, 256e3 * 1.1, 0.6).is_in_time(&[known], 1 << 30));
        assert!(known.is_in_time(&[way(0.0, 256e3 * 1.1, 0.6)], 1));
    }

    /// Otherwise the end of a file would never be sent.
    #[test]
    fn one_way_is_always_in_time() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let mut any = || way(random.f64() * 1e7 + 1.0, random.f64() * 4e6, random.f64());
            let ways = [any(), any(), any()];
            let left = random.u64(1..200_000);
            let others = |at: usize| [ways[(at + 1) % 3], ways[(at + 2) % 3]];
            assert!((0..3).any(|at| ways[at].is_in_time(&others(at), left)), "{ways:?} {left}");
        }
    }
}
