//! Uses an earlier session's measurements of the network path as a first estimate for the next session.
//!
//! The rules are those of Careful Resume (draft-ietf-tsvwg-careful-resume): a path counts as the same only if it has a
//! similar round trip, and the rate counts as unchecked until data arrives at that rate. The initial congestion window
//! can't be set for a single socket, so several connections begin together instead of one with a larger window.

use std::time::Duration;

use crate::records::PathRate;

/// One connection is opened from the start for this many bytes in flight. A connection begins with about 20 KiB in
/// flight and doubles that with each round trip, so each doubling of the number of connections saves one round trip.
const EACH: f64 = (512 << 10) as f64;
/// Number of round trips that the windows of all channels cover.
const ROUND_TRIPS: f64 = 3.0;

fn in_flight(path: &PathRate) -> f64 {
    path.rate as f64 * path.round_trip.as_secs_f64()
}

/// Returns whether a path with this round trip may be the same as an earlier one.
pub(super) fn is_like(earlier: &PathRate, now: Duration) -> bool {
    now >= earlier.round_trip / 2 && now <= earlier.round_trip * 10
}

/// Returns the number of connections that are useful from the start, at most `most`.
pub(super) fn connections(path: &PathRate, most: usize) -> usize {
    ((in_flight(path) / EACH).ceil() as usize).clamp(1, most)
}

/// Returns the number of channels per connection, each with a window of `window` bytes.
pub(super) fn channels(path: &PathRate, window: f64, most: usize) -> usize {
    let each = in_flight(path) * ROUND_TRIPS / connections(path, most) as f64;
    ((each / window).ceil() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: PathRate = PathRate { rate: 6_000_000, round_trip: Duration::from_millis(600) };

    #[test]
    fn a_much_shorter_or_longer_round_trip_is_another_path() {
        for (now, same) in [(200, false), (300, true), (600, true), (6000, true), (6001, false)] {
            assert_eq!(is_like(&PATH, Duration::from_millis(now)), same, "{now}");
        }
    }

    #[test]
    fn more_in_flight_needs_more_connections_and_channels() {
        let slow = PathRate { rate: 16_000, ..PATH };
        let fast = PathRate { rate: 60_000_000, ..PATH };
        assert_eq!([slow, PATH, fast].map(|path| connections(&path, 8)), [1, 7, 8]);
        assert_eq!([slow, PATH, fast].map(|path| channels(&path, 2e6, 8)), [1, 1, 7]);
    }
}
