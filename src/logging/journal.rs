//! Log lines on standard error where journald reads it: each says how grave it is and leaves the time to journald
//! (sd-daemon(3)).

use std::io::{self, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::syslog::severity;

/// Whether journald reads standard error: the variable names it by device and inode (systemd.exec(5)), for a program that
/// is started by a service may write elsewhere.
pub(super) fn reads_standard_error() -> bool {
    let (Ok(stream), Ok(stderr)) = (std::env::var("JOURNAL_STREAM"), rustix::fs::fstat(io::stderr())) else {
        return false;
    };
    stream == format!("{}:{}", stderr.st_dev, stderr.st_ino)
}

/// Writes lines for journald.
pub(super) struct Journal;

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Line;

    fn make_writer(&'a self) -> Self::Writer {
        Line::new(Level::INFO)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        Line::new(*meta.level())
    }
}

/// One log line, written whole when it is dropped.
pub(super) struct Line(Vec<u8>);

impl Line {
    fn new(level: Level) -> Self {
        Self(format!("<{}>", severity(level)).into_bytes())
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
        // There is nowhere left to report that standard error is gone.
        let _ = io::stderr().write_all(&self.0);
    }
}
