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

impl LogLevel {
    pub(super) const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// As it is written.
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

impl LogFormat {
    /// As they are written.
    pub(super) const ALL: [(&'static str, Option<Self>); 3] =
        [("text", Some(Self::Text)), ("json", Some(Self::Json)), ("journald", Some(Self::Journald))];
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

/// `syslog` or a path.
pub(super) fn target(written: &Written<'_>) -> Result<LogTarget, Diagnostic> {
    match written.text {
        "syslog" => Ok(LogTarget::Syslog),
        _ => written.path().map(LogTarget::File),
    }
}
