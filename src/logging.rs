//! Where log lines go: to journald when it started us, to standard error otherwise.

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The environment variable that sets what is logged, as `info` or `contentmonster::vessel=debug`.
pub const VARIABLE: &str = "CONTENTMONSTER_LOG";

/// Sets up logging for the process. `bars` are the progress bars that log lines must not tear; with them, only warnings
/// and errors are shown unless the environment says otherwise.
pub fn start(bars: Option<MultiProgress>) {
    let default = if bars.is_some() { "warn" } else { "info,sqlx=warn,russh=warn" };
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(default));
    let from_systemd = std::env::var_os("JOURNAL_STREAM").is_some() && !io::stderr().is_terminal();
    let journald = if from_systemd { tracing_journald::layer().ok() } else { None };
    let layer = match journald {
        Some(journald) => journald.boxed(),
        None => tracing_subscriber::fmt::layer()
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .with_writer(AroundBars(bars.unwrap_or_default()))
            .boxed(),
    };
    // A test in the same process may have set up its own.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}

/// Writes to standard error while the bars are out of the way.
struct AroundBars(MultiProgress);

impl<'a> MakeWriter<'a> for AroundBars {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { bars: &self.0, text: Vec::new() }
    }
}

/// One log line, written whole when it is dropped.
struct Line<'a> {
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
        // There is nowhere left to report that standard error is gone.
        let _ = self.bars.suspend(|| io::stderr().write_all(&self.text));
    }
}
