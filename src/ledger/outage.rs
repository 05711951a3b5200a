//! A period in which the ledger's database is unavailable.

use std::fmt;
use std::time::SystemTime;

/// An outage of the ledger's database. Until it ends, the workflows wait: they publish, delete and retire nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When the outage began.
    pub since: SystemTime,
    /// The reason, as the server or the connection gave it.
    pub why: String,
    /// Whether the database answers but rejects writes.
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
