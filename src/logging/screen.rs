//! Log lines on standard error, together with progress bars.

use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing_subscriber::fmt::MakeWriter;

/// A writer to standard error that hides the progress bars while it writes.
pub(super) struct AroundBars(MultiProgress);

impl AroundBars {
    pub(super) fn new(bars: MultiProgress) -> Self {
        Self(bars)
    }
}

impl<'a> MakeWriter<'a> for AroundBars {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { bars: &self.0, text: Vec::new() }
    }
}

/// One log line, which is written as a whole when the value is dropped.
pub(super) struct Line<'a> {
    bars: &'a MultiProgress,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        // An error means that standard error is closed, so there is nowhere to report it.
        let _ = self.bars.suspend(|| io::stderr().write_all(&self.text));
    }
}
