//! What is logged, where to, and in what form.

use std::fmt;
use std::path::PathBuf;

use super::problems::Diagnostic;
use super::view::Written;

/// `LogLevel`, `LogFormat` and `LogFile`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// The least grave of what is logged; `None`: informations, and only warnings beside progress bars.
    pub level: Option<LogLevel>,
    /// `None`: text.
    pub format: Option<LogFormat>,
    /// Where to.
    pub target: LogTarget,
}

/// How grave something must be to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What ends the program.
    Error,
    /// What somebody should look at.
    Warn,
    /// A line for each file and vessel.
    Info,
    /// What is done on the way.
    Debug,
    /// Everything.
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// What a log line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// A JSON object for each line.
    Json,
    /// Fields for journald, beside a short message, whoever started us.
    Journald,
}

/// Where log lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error, or journald.
    #[default]
    StandardError,
    /// `/dev/log`.
    Syslog,
    /// A file, absolute.
    File(PathBuf),
}

pub(super) fn level(text: &str) -> Result<LogLevel, Diagnostic> {
    match text {
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        _ => Err(Diagnostic::new(format!("`{text}` is no level"), "give error, warn, info, debug or trace")),
    }
}

pub(super) fn format(text: &str) -> Result<LogFormat, Diagnostic> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "journald" => Ok(LogFormat::Journald),
        _ => Err(Diagnostic::new(format!("`{text}` is no form of a log"), "give text, json or journald")),
    }
}

/// `syslog` or a path.
pub(super) fn target(written: &Written<'_>) -> Result<LogTarget, Diagnostic> {
    match written.text {
        "syslog" => Ok(LogTarget::Syslog),
        _ => written.path().map(LogTarget::File),
    }
}
