//! Sizes as people read them.

use std::time::Duration;

use indicatif::{BinaryBytes, HumanDuration};
use jiff::Timestamp;

/// As `25.00 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// As `340 ms`, `12.3 s` or `5 minutes`.
pub(super) fn duration(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", duration.as_secs_f64()),
        _ => HumanDuration(duration).to_string(),
    }
}

/// As `12.3 s ago`.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(then, now))
}

/// As `in 12.3 s`, or `now` for what is past.
pub(super) fn until(then: Timestamp, now: Timestamp) -> String {
    if then <= now { "now".to_owned() } else { format!("in {}", span(now, then)) }
}

/// The time from one moment to another, as [`duration`]; none when the second is not later.
pub(super) fn span(from: Timestamp, to: Timestamp) -> String {
    duration(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}
