//! The system's log: sends each line as a datagram to `/dev/log`, where journald or a syslog daemon listens.
//!
//! The syslog crate is not used, because it writes times in another time zone than syslog daemons expect. The lines
//! here contain no time, so the daemon adds the time of their arrival (RFC 3164, section 4.3.2).

use std::os::unix::net::UnixDatagram;

use super::line::{Lines, severity};

const SOCKET: &str = "/dev/log";
/// The facility number of daemons (RFC 3164, section 4.1.1), times 8.
const DAEMON: u8 = 3 << 3;

/// Prefix and destination of lines for the system's log.
pub(super) const SYSLOG: Lines = Lines {
    head: |level| format!("<{}>contentmonster[{}]: ", DAEMON | severity(level), std::process::id()),
    // A new socket for each line, because the log daemon may restart at any time.
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
