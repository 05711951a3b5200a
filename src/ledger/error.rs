//! What can go wrong with the ledger, and what follows from it.

use std::path::PathBuf;

use crate::fault::Fault;

/// The ledger can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process has it open.
    #[error("the ledger {} is in use by another contentmonster", .file.display())]
    InUse {
        /// The ledger's file.
        file: PathBuf,
    },
    /// It was written by a newer program.
    #[error("the ledger {} was written by a newer contentmonster (form {form})", .file.display())]
    TooNew {
        /// The ledger's file.
        file: PathBuf,
        /// The number of its newest migration.
        form: i64,
    },
    /// It can't be opened.
    #[error("the ledger {} can't be opened: {why}", .file.display())]
    Unusable {
        /// The ledger's file.
        file: PathBuf,
        /// What the file system or the database said.
        why: String,
    },
    /// Something in it can't be.
    #[error("the ledger holds {0}, which it can't")]
    Corrupt(String),
    /// A transaction failed.
    #[error("the ledger failed: {0}")]
    Failed(#[from] sqlx::Error),
}

impl LedgerError {
    /// What follows from it: without its ledger the daemon stops, so that nothing is sent that nobody will remember.
    pub fn fault(&self) -> Fault {
        Fault::daemon(self).mend(match self {
            Self::InUse { .. } => "stop the other one, or give this one its own Database",
            Self::TooNew { .. } => "install that version again, or give this one its own Database",
            Self::Unusable { .. } => "check Database in [MONSTER], its directory's permissions and free space",
            Self::Corrupt(_) | Self::Failed(_) => "check the disk that holds Database: its space and its health",
        })
    }
}
