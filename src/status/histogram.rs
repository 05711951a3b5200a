//! A histogram of durations, for deliveries that take from milliseconds to hours.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The upper bounds of the buckets in seconds. One more bucket without an upper bound follows.
const ENDS: [f64; 12] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 600.0, 3600.0, 6.0 * 3600.0];

/// A count of durations per bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Number of durations.
    pub count: u64,
    /// Sum of the durations in seconds.
    pub sum: f64,
    /// The upper bound of each bucket in seconds, and the number of durations up to this bound and above the bound of
    /// the previous bucket. The last bucket has no upper bound.
    pub buckets: Vec<(Option<f64>, u64)>,
}

impl Histogram {
    /// Creates an empty histogram, with all its buckets.
    pub fn new() -> Self {
        Self { buckets: ENDS.into_iter().map(Some).chain([None]).map(|end| (end, 0)).collect(), ..Self::default() }
    }

    /// Counts a duration.
    pub fn count(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.count += 1;
        self.sum += seconds;
        if let Some(bucket) = self.buckets.iter_mut().find(|(end, _)| end.is_none_or(|end| seconds <= end)) {
            bucket.1 += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_into_one_bucket() {
        let mut histogram = Histogram::new();
        for millis in [0, 10, 11, 2_000, 1_000_000_000] {
            histogram.count(Duration::from_millis(millis));
        }
        let counts: Vec<_> = histogram.buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((histogram.count, histogram.buckets.last().unwrap().0), (5, None));
    }
}
