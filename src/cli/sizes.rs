//! Formats sizes and times for people.

use std::time::Duration;

use indicatif::BinaryBytes;
use jiff::Timestamp;

use crate::text;

/// Formats a size such as `25.00 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// Formats a duration such as `340 ms`, `12.3 s` or `5 min 20 s`.
pub(super) fn duration(duration: Duration) -> String {
    text::duration(duration)
}

/// Formats the age of a past time such as `12.3 s ago`.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(then, now))
}

/// Formats a future time such as `in 12.3 s`; the last second gives `in less than 1 s`, and a past time gives `now`.
pub(super) fn until(then: Timestamp, now: Timestamp) -> String {
    match Duration::try_from(then.duration_since(now)) {
        Ok(left) if left >= Duration::from_secs(1) => format!("in {}", duration(left)),
        Ok(left) if !left.is_zero() => "in less than 1 s".to_owned(),
        _ => "now".to_owned(),
    }
}

/// Formats the time between two moments like [`duration`]; zero when `to` is not after `from`.
pub(super) fn span(from: Timestamp, to: Timestamp) -> String {
    duration(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}
