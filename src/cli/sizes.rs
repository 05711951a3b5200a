//! Sizes and times in readable form.

use std::time::Duration;

use indicatif::{BinaryBytes, HumanDuration};
use jiff::Timestamp;

/// Formats as `25.00 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// Formats as `340 ms`, `12.3 s` or `5 minutes`.
pub(super) fn duration(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", duration.as_secs_f64()),
        _ => HumanDuration(duration).to_string(),
    }
}

/// Formats as `12.3 s ago`.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(then, now))
}

/// Formats as `in 12.3 s`, or `now` for past times.
pub(super) fn until(then: Timestamp, now: Timestamp) -> String {
    if then <= now { "now".to_owned() } else { format!("in {}", span(now, then)) }
}

/// Formats the time between two moments, as [`duration`]; zero when the second is not later.
pub(super) fn span(from: Timestamp, to: Timestamp) -> String {
    duration(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}
