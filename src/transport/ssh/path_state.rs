//! The state of the connections to a vessel, as the kernel knows it: for the question why a vessel is slow.

use contentmonster_kernel::TcpInfo;

/// The state of the open connections to a vessel together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PathState {
    /// The number of open TCP connections.
    pub connections: u32,
    /// The congestion control of the connections.
    pub congestion_control: String,
    /// The smoothed round-trip time, averaged over the connections, in microseconds.
    pub round_trip_micros: u64,
    /// The shortest round-trip time of the last minutes, in microseconds.
    pub least_round_trip_micros: u64,
    /// Payload bytes that were sent, including repeated bytes, and the repeated bytes alone, since the connections began.
    pub sent_bytes: u64,
    /// See `sent_bytes`.
    pub resent_bytes: u64,
    /// Maximum number of bytes in flight: the sum of the congestion windows.
    pub window_bytes: u64,
    /// Bytes in flight.
    pub unanswered_bytes: u64,
    /// Bytes that were written and wait in this host.
    pub unsent_bytes: u64,
}

impl PathState {
    /// Adds one more connection.
    pub(super) fn add(&mut self, info: &TcpInfo, congestion_control: &str) {
        let packet = u64::from(info.packet_bytes);
        let (before, now) = (u64::from(self.connections), u64::from(info.round_trip_micros));
        self.round_trip_micros = (self.round_trip_micros * before + now) / (before + 1);
        let least = u64::from(info.least_round_trip_micros);
        self.least_round_trip_micros = if before == 0 { least } else { self.least_round_trip_micros.min(least) };
        if before == 0 {
            congestion_control.clone_into(&mut self.congestion_control);
        }
        self.connections += 1;
        self.sent_bytes += info.bytes_sent;
        self.resent_bytes += info.bytes_resent;
        self.window_bytes += u64::from(info.congestion_window) * packet;
        self.unanswered_bytes += u64::from(info.unacknowledged) * packet;
        self.unsent_bytes += u64::from(info.bytes_unsent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_added_and_their_round_trips_averaged() {
        let one = TcpInfo {
            round_trip_micros: 100,
            least_round_trip_micros: 90,
            congestion_window: 10,
            packet_bytes: 1000,
            unacknowledged: 4,
            bytes_sent: 50_000,
            bytes_resent: 1000,
            bytes_unsent: 7,
            ..TcpInfo::default()
        };
        let other = TcpInfo { round_trip_micros: 300, least_round_trip_micros: 80, ..one };
        let mut path = PathState::default();
        path.add(&one, "bbr");
        path.add(&other, "bbr");
        assert_eq!((path.connections, path.round_trip_micros, path.least_round_trip_micros), (2, 200, 80));
        assert_eq!((path.window_bytes, path.unanswered_bytes, path.unsent_bytes), (20_000, 8000, 14));
        assert_eq!((path.resent_bytes, path.congestion_control.as_str()), (2000, "bbr"));
    }
}
