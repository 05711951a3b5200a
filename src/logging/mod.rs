//! Sets up logging: to standard error, a file, the system's log or journald.

mod file;
mod journal;
mod keep;
mod line;
mod screen;
mod syslog;
mod thin;
mod tidy;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use indicatif::MultiProgress;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::settings::{LogFormat, LogTarget, Logging};
use crate::status::LogLines;
use file::LogFile;
use journal::JOURNAL;
use keep::Keep;
use screen::AroundBars;
use syslog::SYSLOG;
use thin::{Thin, Thinned};
use tidy::{Form, Tidy};

/// The environment variable with the log filter, such as `info` or `contentmonster::vessel=debug`.
pub const VARIABLE: &str = "CONTENTMONSTER_LOG";

/// The log of this process.
#[derive(Clone, Default)]
pub struct Log {
    file: Option<Arc<LogFile>>,
    /// The last log lines about each vessel.
    pub lines: LogLines,
}

impl Log {
    /// Reopens the log file, because `logrotate` may have moved it away; does nothing without a log file.
    pub fn reopen(&self) {
        let Some(file) = &self.file else { return };
        match file.reopen() {
            Ok(()) => tracing::info!("Log file reopened"),
            Err(e) => {
                tracing::warn!("Cannot reopen {}, so the old file stays in use: {e}", file.path().display());
            }
        }
    }
}

/// Sets up logging for the process according to the settings, or to standard error without settings. Log lines on
/// standard error don't garble the progress bars `bars`. With bars, only warnings and errors are written to standard
/// error unless the settings or the environment select another level.
///
/// # Errors
/// If the log file can't be opened, a message for people.
pub fn start(settings: Option<&Logging>, bars: Option<MultiProgress>) -> Result<Log, String> {
    let target = settings.map_or(&LogTarget::StandardError, |settings| &settings.target);
    let on_screen = *target == LogTarget::StandardError;
    let level = settings.and_then(|settings| settings.level);
    let default = match level {
        Some(level) => format!("{level},sqlx=warn,russh=warn,notify=error"),
        None if bars.is_some() && on_screen => "warn".to_owned(),
        None => "info,sqlx=warn,russh=warn,notify=error".to_owned(),
    };
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(default));
    let format = settings.and_then(|settings| settings.format);
    let with_fields = on_screen && format == Some(LogFormat::Journald);
    let journald = if with_fields { tracing_journald::layer().ok() } else { None };
    let json = format == Some(LogFormat::Json);
    let mut log = Log::default();
    let layer = match (journald, target) {
        (Some(journald), _) => journald.boxed(),
        (None, LogTarget::File(path)) => {
            let file = LogFile::open(path.clone());
            let file = file.map_err(|e| {
                format!("cannot open LogFile {}: {e}; check that its directory exists and is writable", path.display())
            })?;
            let file = Arc::new(file);
            log.file = Some(file.clone());
            lines(file, json, false)
        }
        (None, LogTarget::Syslog) => bare_lines(SYSLOG, json),
        (None, LogTarget::StandardError) if journal::reads_standard_error() => bare_lines(JOURNAL, json),
        (None, LogTarget::StandardError) => {
            lines(AroundBars::new(bars.unwrap_or_default()), json, io::stderr().is_terminal())
        }
    };
    // `try_init` fails if a test in the same process has already set up logging.
    let layer = Thinned { inner: layer.and_then(Keep(log.lines.clone())), thin: Thin::start() };
    let _ = filtered(layer, filter).try_init();
    Ok(log)
}

/// Returns a subscriber that passes to `layer` the events that `filter` allows. The filter belongs to the whole
/// subscriber, because a filter of the layer alone (`with_filter`) loses events: after a library has asked whether a
/// disabled level is enabled, such a filter drops the next event of that thread.
fn filtered(layer: impl Layer<Registry> + Send + Sync, filter: EnvFilter) -> impl Subscriber + Send + Sync {
    tracing_subscriber::registry().with(layer).with(filter)
}

type Boxed<S> = Box<dyn Layer<S> + Send + Sync>;

/// Formats each event as a line with time and level.
fn lines<S, W>(writer: W, json: bool, colours: bool) -> Boxed<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let form = match (json, colours) {
        (true, _) => Form::Json,
        (false, true) => Form::Coloured,
        (false, false) => Form::Text,
    };
    let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(Tidy::new(writer, form));
    if json { layer.json().flatten_event(true).boxed() } else { layer.with_ansi(colours).boxed() }
}

/// Formats each event as a line without time and level, for journald and the system's log, which record both
/// separately. JSON lines keep both.
fn bare_lines<S, W>(writer: W, json: bool) -> Boxed<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let form = if json { Form::Json } else { Form::Text };
    let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(Tidy::new(writer, form));
    if json {
        layer.json().flatten_event(true).boxed()
    } else {
        layer.with_ansi(false).without_time().with_level(false).boxed()
    }
}

#[cfg(test)]
mod tests {
    use tracing::callsite::{Callsite, Identifier};
    use tracing::field::FieldSet;
    use tracing::metadata::Kind;
    use tracing::subscriber::Interest;
    use tracing::{Level, Metadata, dispatcher};

    use super::*;

    /// The callsite of a database notice, for which a library asks whether the level is enabled before it logs the
    /// notice.
    struct Question;

    static QUESTION: Question = Question;
    static NOTICE: Metadata<'static> = Metadata::new(
        "notice",
        "sqlx::postgres::notice",
        Level::INFO,
        None,
        None,
        None,
        FieldSet::new(&[], Identifier(&QUESTION)),
        Kind::EVENT,
    );

    impl Callsite for Question {
        fn set_interest(&self, _: Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            &NOTICE
        }
    }

    #[test]
    fn a_line_is_written_after_a_question_for_a_level_that_is_not_enabled() {
        let lines = LogLines::default();
        let subscriber = filtered(Keep(lines.clone()), EnvFilter::new("info,sqlx=warn"));
        tracing::subscriber::with_default(subscriber, || {
            dispatcher::get_default(|one| one.enabled(&NOTICE));
            tracing::error!(vessel = "tern", "written");
        });
        assert_eq!(lines.texts("tern"), ["written"]);
    }
}
