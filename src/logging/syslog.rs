//! The system's log: a datagram for each line to `/dev/log`, where journald or a syslog daemon listens.
//!
//! Ours, because the crate for it writes times of another zone than a syslog daemon takes them for. Without a time, as
//! here, it notes when the line came (RFC 3164, section 4.3.2).

use std::os::unix::net::UnixDatagram;

use super::line::{Lines, severity};

const SOCKET: &str = "/dev/log";
/// The facility of daemons (RFC 3164, section 4.1.1), times eight.
const DAEMON: u8 = 3 << 3;

/// Lines for the system's log.
pub(super) const SYSLOG: Lines = Lines {
    head: |level| format!("<{}>contentmonster[{}]: ", DAEMON | severity(level), std::process::id()),
    // Connected anew for each line: whoever listens may be started again at any time.
    send: |line| drop(UnixDatagram::unbound().and_then(|socket| socket.send_to(line.trim_ascii_end(), SOCKET))),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_grave_it_is() {
        let head = (SYSLOG.head)(tracing::Level::WARN);
        assert_eq!(head, format!("<28>contentmonster[{}]: ", std::process::id()));
    }
}
