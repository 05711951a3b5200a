//! Sizes as people read them.

use indicatif::{BinaryBytes, HumanDuration};
use std::time::Duration;

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
