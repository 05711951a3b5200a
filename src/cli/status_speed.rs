//! The part of `status --vessel` that shows the rate of a vessel, and what limits it.

use std::fmt::Write;

use super::sizes;
use crate::status::{PathStatus, VesselStatus};

/// Describes the rate to a vessel, and what limits it; empty when the program does not run.
pub(super) fn speed(vessel: &VesselStatus) -> String {
    let Some(speed) = &vessel.speed else { return String::new() };
    let mut text = format!("\nhow fast, and why not faster: {}\n", speed.verdict);
    // The results are ignored, because writing to a `String` doesn't fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<22} {value}");
    };
    if let Some(way) = &speed.way {
        line("way", way.clone());
    }
    if let Some(path) = &speed.path {
        lines_of_path(path, &mut line);
    }
    let limit = match (speed.rate_limit, speed.rate_limit_reached) {
        (None, _) => "none".to_owned(),
        (Some(limit), reached) => {
            format!("{}/s, {}", sizes::bytes(limit), if reached { "reached" } else { "not reached" })
        }
    };
    line("rate limit", limit);
    line("this program", format!("{:.0} % of one processor", speed.cpu_percent));
    text
}

fn lines_of_path(path: &PathStatus, line: &mut impl FnMut(&str, String)) {
    line("connections", path.connections.to_string());
    line("congestion control", path.congestion_control.clone());
    let (trip, shortest) = (path.round_trip_ms, path.shortest_round_trip_ms);
    line("round trip", format!("{trip:.1} ms (shortest {shortest:.1} ms)"));
    line("lost and sent again", format!("{:.2} % ({})", path.resent_percent, sizes::bytes(path.resent_bytes)));
    let (window, unanswered) = (sizes::bytes(path.window_bytes), sizes::bytes(path.unanswered_bytes));
    line("window", format!("{window}, {unanswered} not acknowledged"));
}
