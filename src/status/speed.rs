//! Finds out what limits the rate to a vessel: its connections, its rate limit, or this host's processor.

use serde::{Deserialize, Serialize};

use crate::text::duration;
use crate::transport::PathState;

/// A limit counts as reached if at least this share of it is used.
const REACHED: f64 = 0.9;
/// At this load or above, in percent of one processor, a single thread may be the bottleneck.
const BUSY: f64 = 90.0;
/// A path counts as lossy if at least this percentage of the bytes was sent again.
const LOSSY: f64 = 2.0;

/// The rate to a vessel, and what limits it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// What limits the rate now: `idle`, `rate-limit`, `processor`, `path`, `loss`, `vessel-or-disk` or
    /// `not-connected`.
    pub limit: String,
    /// A sentence for people that says the same as `limit`.
    pub verdict: String,
    /// The name of the way (link or address) in use; `null` if the vessel has only one way or is not connected.
    pub way: Option<String>,
    /// The connections; `null` without TCP connections, as with `Transport = local`.
    pub path: Option<PathStatus>,
    /// The rate limit that applies now, in bytes per second.
    pub rate_limit: Option<u64>,
    /// Whether the rate limit is reached.
    pub rate_limit_reached: bool,
    /// Processor time of this program, in percent of one processor.
    pub cpu_percent: f64,
}

/// The state of the open connections to a vessel, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// The number of connections.
    pub connections: u32,
    /// The congestion control of the connections.
    pub congestion_control: String,
    /// The smoothed round-trip time in milliseconds, averaged over the connections.
    pub round_trip_ms: f64,
    /// The shortest round-trip time of the last minutes in milliseconds.
    pub shortest_round_trip_ms: f64,
    /// Bytes that TCP sent again since the connections began.
    pub resent_bytes: u64,
    /// `resent_bytes` in percent of all sent bytes.
    pub resent_percent: f64,
    /// Maximum number of bytes in flight: the sum of the congestion windows.
    pub window_bytes: u64,
    /// Number of bytes in flight: sent, but not acknowledged yet.
    pub unanswered_bytes: u64,
    /// Bytes that wait in this host to be sent.
    pub unsent_bytes: u64,
}

/// The state of a vessel's session.
pub(super) struct Known {
    pub(super) is_connected: bool,
    pub(super) is_sending: bool,
    pub(super) way: Option<String>,
    pub(super) path: Option<PathState>,
    /// The rate of sending, and the rate limit that applies, in bytes per second.
    pub(super) rate: u64,
    pub(super) rate_limit: Option<u64>,
    pub(super) cpu_percent: f64,
}

/// Determines what limits the rate.
pub(super) fn speed(known: Known) -> Speed {
    let path = known.path.as_ref().map(path_status);
    let reached = known.rate_limit.is_some_and(|limit| known.rate as f64 >= REACHED * limit as f64);
    let (limit, verdict) = judge(&known, path.as_ref(), reached);
    Speed {
        limit: limit.to_owned(),
        verdict,
        way: known.way,
        path,
        rate_limit: known.rate_limit,
        rate_limit_reached: reached,
        cpu_percent: (known.cpu_percent * 10.0).round() / 10.0,
    }
}

fn judge(known: &Known, path: Option<&PathStatus>, reached: bool) -> (&'static str, String) {
    if !known.is_connected {
        return ("not-connected", "The vessel is not connected".to_owned());
    }
    if !known.is_sending {
        return ("idle", "Nothing is being sent".to_owned());
    }
    if reached {
        return ("rate-limit", "RateLimit is reached; raise it in the settings to send faster".to_owned());
    }
    if known.cpu_percent >= BUSY && path.is_none_or(|path| path.unsent_bytes == 0) {
        return ("processor", "This host's processor is busy with encryption, hashing or compression".to_owned());
    }
    let Some(path) = path else {
        return ("vessel-or-disk", "The disk of this host or of the target is the bottleneck".to_owned());
    };
    // If bytes wait in this host, or fill the window, the path is the bottleneck.
    let is_full = path.unsent_bytes > 0 || path.unanswered_bytes as f64 >= REACHED * path.window_bytes as f64;
    let trip = duration(std::time::Duration::from_micros((path.round_trip_ms * 1000.0) as u64));
    match (is_full, path.resent_percent >= LOSSY) {
        (_, true) => (
            "loss",
            format!(
                "The network path loses data: {:.1} % were sent again, at a round-trip time of {trip}. BBR tolerates \
                 losses best: CongestionControl = auto uses it if the kernel allows it (now: {})",
                path.resent_percent, path.congestion_control
            ),
        ),
        (true, false) => ("path", format!("The network path is saturated; its round-trip time is {trip}")),
        (false, false) => (
            "vessel-or-disk",
            "The network path has free capacity; the vessel, or the disk of this host, is the bottleneck".to_owned(),
        ),
    }
}

fn path_status(path: &PathState) -> PathStatus {
    let milliseconds = |micros: u64| micros as f64 / 1000.0;
    let percent = path.resent_bytes as f64 * 100.0 / path.sent_bytes.max(1) as f64;
    PathStatus {
        connections: path.connections,
        congestion_control: path.congestion_control.clone(),
        round_trip_ms: milliseconds(path.round_trip_micros),
        shortest_round_trip_ms: milliseconds(path.least_round_trip_micros),
        resent_bytes: path.resent_bytes,
        resent_percent: (percent * 100.0).round() / 100.0,
        window_bytes: path.window_bytes,
        unanswered_bytes: path.unanswered_bytes,
        unsent_bytes: path.unsent_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(change: impl FnOnce(&mut Known)) -> String {
        let path = PathState {
            connections: 2,
            congestion_control: "bbr".into(),
            round_trip_micros: 600_000,
            sent_bytes: 1_000_000,
            window_bytes: 1_000_000,
            unanswered_bytes: 950_000,
            ..PathState::default()
        };
        let mut known = Known {
            is_connected: true,
            is_sending: true,
            way: None,
            path: Some(path),
            rate: 100,
            rate_limit: None,
            cpu_percent: 3.0,
        };
        change(&mut known);
        speed(known).limit
    }

    #[test]
    fn what_limits_the_rate_is_told_apart() {
        assert_eq!(known(|_| ()), "path");
        assert_eq!(known(|known| known.is_connected = false), "not-connected");
        assert_eq!(known(|known| known.is_sending = false), "idle");
        assert_eq!(known(|known| known.rate_limit = Some(105)), "rate-limit");
        assert_eq!(known(|known| known.rate_limit = Some(200)), "path");
        assert_eq!(known(|known| known.cpu_percent = 99.0), "processor");
        let path = |change: fn(&mut PathState)| known(move |known| known.path.iter_mut().for_each(change));
        assert_eq!(path(|path| path.resent_bytes = 30_000), "loss");
        assert_eq!(path(|path| path.unanswered_bytes = 1000), "vessel-or-disk");
        assert_eq!(path(|path| (path.unanswered_bytes, path.unsent_bytes) = (1000, 5)), "path");
        assert_eq!(known(|known| known.path = None), "vessel-or-disk");
    }
}
