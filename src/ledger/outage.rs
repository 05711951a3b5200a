//! A period in which the ledger's database is unavailable.

use std::fmt;
use std::time::SystemTime;

/// Why the ledger can't be used for now. The workflows wait; nothing is published, deleted or retired meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When it began.
    pub since: SystemTime,
    /// The reason, as the server or the connection gave it.
    pub why: String,
    /// Whether the database answers, but rejects writes.
    pub refuses_writes: bool,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.refuses_writes {
            true => write!(f, "the ledger's database rejects writes: {}", self.why),
            false => write!(f, "the ledger's database is unavailable: {}", self.why),
        }
    }
}
