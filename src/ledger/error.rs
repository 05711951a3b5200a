//! What can go wrong with the ledger, and what follows from it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::fault::Fault;

/// The ledger can't be used. Cheap to clone: one failed transaction concerns many.
#[derive(Clone, Debug, thiserror::Error)]
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
    /// It was written by an older program, and only looked at.
    #[error("the ledger {} was written by an older contentmonster", .file.display())]
    TooOld {
        /// The ledger's file.
        file: PathBuf,
    },
    /// There is none yet, and it was only looked at.
    #[error("there is no ledger yet at {}", .file.display())]
    NotThere {
        /// The ledger's file.
        file: PathBuf,
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
    Failed(#[source] Arc<sqlx::Error>),
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(Arc::new(error))
    }
}

impl LedgerError {
    /// What follows from it: without its ledger the daemon stops, so that nothing is sent that nobody will remember.
    pub fn fault(&self) -> Fault {
        Fault::daemon(self).mend(match self {
            Self::InUse { .. } => "stop the other one, or give this one its own Database",
            Self::TooNew { .. } => "install that version again, or give this one its own Database",
            Self::TooOld { .. } => "start this contentmonster once: that brings the ledger up to date",
            Self::NotThere { .. } => "start contentmonster, which makes it; or check Database in [MONSTER]",
            Self::Unusable { .. } => "check Database in [MONSTER], its directory's permissions and free space",
            Self::Corrupt(_) | Self::Failed(_) => "check the disk that holds Database: its space and its health",
        })
    }
}
