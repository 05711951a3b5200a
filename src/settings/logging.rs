//! Level, destination and format of the log.

use std::fmt;
use std::path::PathBuf;

use super::problems::Diagnostic;
use super::written_value::Written;

/// `LogLevel`, `LogFormat` and `LogFile`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// The least severe level that is logged; `None`: info, or warn with progress bars.
    pub level: Option<LogLevel>,
    /// The format of log lines; `None`: text.
    pub format: Option<LogFormat>,
    /// The destination of log lines.
    pub target: LogTarget,
}

/// The levels of log messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Errors that stop the program or a part of its work.
    Error,
    /// Problems that a person should look at.
    Warn,
    /// One line for each file and vessel.
    Info,
    /// Single steps.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    pub(super) const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Returns the level as written.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// A JSON object for each line.
    Json,
    /// A short message with fields, sent directly to journald, even if journald does not read standard error.
    Journald,
}

impl LogFormat {
    /// The formats as written.
    pub(super) const ALL: [(&'static str, Option<Self>); 3] =
        [("text", Some(Self::Text)), ("json", Some(Self::Json)), ("journald", Some(Self::Journald))];
}

/// The destination of log lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error, which journald may read.
    #[default]
    StandardError,
    /// The system log, through `/dev/log`.
    Syslog,
    /// The file at this absolute path.
    File(PathBuf),
}

/// Parses `syslog` or a path.
pub(super) fn target(written: &Written<'_>) -> Result<LogTarget, Diagnostic> {
    match written.text {
        "syslog" => Ok(LogTarget::Syslog),
        _ => written.path().map(LogTarget::File),
    }
}
