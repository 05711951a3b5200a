//! The system's log: a datagram for each line to `/dev/log`, where journald or a syslog daemon listens.
//!
//! Ours, because the crate for it writes times of another zone than a syslog daemon takes them for. Without a time, as
//! here, it notes when the line came (RFC 3164, section 4.3.2).

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

const SOCKET: &str = "/dev/log";
/// The facility of daemons (RFC 3164, section 4.1.1), times eight.
const DAEMON: u8 = 3 << 3;

/// Sends lines to the system's log.
pub(super) struct Syslog;

/// The severities of RFC 3164.
pub(super) fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line;

    fn make_writer(&'a self) -> Self::Writer {
        Line::new(Level::INFO)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        Line::new(*meta.level())
    }
}

/// One log line, sent when it is dropped.
pub(super) struct Line(Vec<u8>);

impl Line {
    fn new(level: Level) -> Self {
        let head = format!("<{}>contentmonster[{}]: ", DAEMON | severity(level), std::process::id());
        Self(head.into_bytes())
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Connected anew for each line: whoever listens may be started again at any time. Where nobody does, there is
        // nowhere left to say so.
        let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(self.0.trim_ascii_end(), SOCKET));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_grave_it_is() {
        let mut line = Line::new(Level::WARN);
        line.write_all(b"leaking").unwrap();
        assert_eq!(line.0, format!("<28>contentmonster[{}]: leaking", std::process::id()).into_bytes());
        line.0.clear();
    }
}
