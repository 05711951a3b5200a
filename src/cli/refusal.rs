//! The reason why a command can't continue.

use super::{Exit, say_error};
use crate::ledger::LedgerError;
use crate::status::SocketError;

/// The reason why a command can't continue, and the exit code.
pub(super) struct Refusal {
    exit: Exit,
    text: String,
}

impl Refusal {
    /// Creates a refusal with an exit code.
    pub(super) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    /// Creates a refusal of an invalid command line, for example one that names something that doesn't exist.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, text: text.into() }
    }
}

impl Refusal {
    /// Prints the refusal, and returns its exit code.
    pub(super) fn say(self) -> Exit {
        say_error(format_args!("{}", self.text));
        self.exit
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        Self { exit: Exit::Broken, text: error.fault().to_string() }
    }
}

impl From<SocketError> for Refusal {
    fn from(error: SocketError) -> Self {
        Self { exit: Exit::Broken, text: error.to_string() }
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        let text = format!("the running contentmonster gave an invalid answer: {error}; restart contentmonster");
        Self { exit: Exit::Broken, text }
    }
}
