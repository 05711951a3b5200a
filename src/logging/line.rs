//! Log lines for syslog and journald: each has its severity in a prefix and is sent as a whole.

use std::io::{self, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The prefix and the destination of log lines.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub(super) head: fn(Level) -> String,
    /// Sends a line. Errors are ignored, because there is nowhere to report them.
    pub(super) send: fn(&[u8]),
}

impl Lines {
    fn begin(self, level: Level) -> Line {
        Line { text: (self.head)(level).into_bytes(), send: self.send }
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Line;

    fn make_writer(&self) -> Self::Writer {
        self.begin(Level::INFO)
    }

    fn make_writer_for(&self, meta: &Metadata<'_>) -> Self::Writer {
        self.begin(*meta.level())
    }
}

/// One log line, which is sent when the value is dropped.
pub(super) struct Line {
    text: Vec<u8>,
    send: fn(&[u8]),
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        (self.send)(&self.text);
    }
}

/// Returns the severity number of RFC 3164.
pub(super) fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}
