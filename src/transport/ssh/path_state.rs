//! The state of the connections to a vessel, as reported by the kernel. It helps to explain why a vessel is slow.

use contentmonster_kernel::TcpInfo;

/// The combined state of all open connections to a vessel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PathState {
    /// The number of open TCP connections.
    pub connections: u32,
    /// The congestion control of the first of these connections.
    pub congestion_control: String,
    /// The smoothed round-trip time, averaged over the connections, in microseconds.
    pub round_trip_micros: u64,
    /// The shortest round-trip time of the last minutes, in microseconds.
    pub least_round_trip_micros: u64,
    /// Payload bytes sent since the connections began, including retransmitted bytes.
    pub sent_bytes: u64,
    /// The retransmitted bytes that `sent_bytes` includes.
    pub resent_bytes: u64,
    /// Maximum number of bytes in flight: the sum of the congestion windows.
    pub window_bytes: u64,
    /// Bytes in flight: sent, but not acknowledged yet.
    pub unanswered_bytes: u64,
    /// Bytes that were written to the sockets but not sent yet.
    pub unsent_bytes: u64,
}

impl PathState {
    /// Adds one more connection, with the kernel's name of its congestion control.
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
