//! Errors of the ledger, and the fault that each error causes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Outage;
use crate::fault::Fault;

/// An error of the ledger. Cheap to clone, because one failed transaction affects many callers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process has the ledger open.
    #[error("the ledger {} is in use by another contentmonster", .file.display())]
    InUse {
        /// The ledger's file.
        file: PathBuf,
    },
    /// A newer program wrote the ledger.
    #[error("the ledger {} was written by a newer contentmonster (schema {form})", .file.display())]
    TooNew {
        /// The ledger's file.
        file: PathBuf,
        /// The number of the ledger's newest migration.
        form: i64,
        /// The newest copy that was made before an upgrade and that this program can use.
        copy: Option<PathBuf>,
    },
    /// An older program wrote the ledger, and this program opened it read-only, which doesn't migrate it.
    #[error("the ledger {} was written by an older contentmonster", .file.display())]
    TooOld {
        /// The ledger's file.
        file: PathBuf,
    },
    /// The ledger doesn't exist yet, and a caller tried to open it read-only.
    #[error("there is no ledger yet at {}", .file.display())]
    NotThere {
        /// The ledger's file.
        file: PathBuf,
    },
    /// The ledger can't be opened.
    #[error("the ledger {} can't be opened: {why}", .file.display())]
    Unusable {
        /// The ledger's file.
        file: PathBuf,
        /// The error of the file system or the database.
        why: String,
    },
    /// The ledger contains invalid data.
    #[error("the ledger is corrupt: {0}")]
    Corrupt(String),
    /// The ledger could not be copied.
    #[error("the ledger can't be copied to {}: {why}", .to.display())]
    NotCopied {
        /// The path of the copy.
        to: PathBuf,
        /// The error of the file system or the database.
        why: String,
    },
    /// A ledger in PostgreSQL can't be opened.
    #[error("the ledger {ledger} can't be opened: {why}")]
    Refused {
        /// The address of the database, without a password.
        ledger: String,
        /// The error of the server or of the connection.
        why: String,
        /// The remedy for the operator.
        remedy: &'static str,
        /// Whether the database is only unavailable, so that a later attempt may succeed without a change by the
        /// operator.
        may_pass: bool,
    },
    /// Another process holds the lease of the ledger.
    #[error("the ledger {ledger} is in use by contentmonster on {holder}")]
    Held {
        /// The address of the database.
        ledger: String,
        /// Host and process of the holder.
        holder: String,
    },
    /// Another process has acquired the lease, because this one did not renew it in time.
    #[error(
        "another contentmonster has taken over the ledger {ledger}, because this one did not renew its lease in time"
    )]
    TakenOver {
        /// The address of the database.
        ledger: String,
    },
    /// This shore has lost the work that an update belongs to, or never had it.
    #[error("this shore no longer serves the {work}")]
    NotOurs {
        /// The work.
        work: String,
    },
    /// The database is unavailable, and the query did not wait for it.
    #[error("{0}")]
    Away(Arc<Outage>),
    /// The ledger has an older schema, and could not be copied before its upgrade, so it was not upgraded.
    #[error("the ledger is not upgraded, because it can't be copied to {} first: {why}", .to.display())]
    NoCopyBeforeUpgrade {
        /// The path of the copy.
        to: PathBuf,
        /// The missing condition, or the error of the file system or the database.
        why: String,
    },
    /// A transaction failed.
    #[error("a ledger transaction failed: {0}")]
    Failed(#[source] Arc<sqlx::Error>),
}

/// Prefix of the field `why` of [`LedgerError::Unusable`] when the ledger file is damaged.
const CORRUPT: &str = "the file is corrupt: ";

/// Remedy for a corrupt ledger.
const START_ANEW: &str = "check Database in [MONSTER]; if it names the right ledger, stop contentmonster and restore \
                          a copy made by `contentmonster backup`, or a backup of the PostgreSQL database; without a \
                          copy, move away the ledger and the files beside it whose names begin with its name, or name \
                          a new database, and start again: files that are still in \
                          a Location are delivered again (where a vessel already has a file, only its hash is \
                          compared), and receipts, history and orders such as `pause` are lost";

/// Returns whether SQLite reports a damaged file (`SQLITE_CORRUPT`, 11) or a file that is not a database
/// (`SQLITE_NOTADB`, 26). The lowest byte of an SQLite error code is its primary code (sqlite.org/rescode.html).
///
/// For PostgreSQL, the codes are `ERRCODE_DATA_CORRUPTED` and `ERRCODE_INDEX_CORRUPTED`.
fn is_corrupt(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    let Some(code) = error.code() else { return false };
    match error.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
        Some(_) => code.parse::<i64>().is_ok_and(|code| matches!(code & 0xff, 11 | 26)),
        None => matches!(&*code, "XX001" | "XX002"),
    }
}

impl LedgerError {
    /// Converts an error that SQLite returned when it opened `file`.
    pub(super) fn opening(file: &Path, error: &sqlx::Error) -> Self {
        match is_corrupt(error) {
            true => Self::Unusable { file: file.into(), why: format!("{CORRUPT}{error}") },
            false => Self::Unusable { file: file.into(), why: error.to_string() },
        }
    }
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        if is_corrupt(&error) {
            return Self::Corrupt(error.to_string());
        }
        Self::Failed(Arc::new(error))
    }
}

impl LedgerError {
    /// Returns whether the database is only unavailable, so that a later attempt to open the ledger may succeed.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Refused { may_pass: true, .. })
    }

    /// Returns the fault, with its remedy. Every error of the ledger stops the daemon, so that no file is sent without
    /// a record.
    pub fn fault(&self) -> Fault {
        if let Self::TooNew { file, copy: Some(copy), .. } = self {
            let (ledger, copy) = (file.display(), copy.display());
            return Fault::daemon(self).mend(format!(
                "install the newer version again; or return to the copy made before the upgrade: remove {ledger}-wal and \
                 {ledger}-shm, then replace {ledger} with {copy}"
            ));
        }
        Fault::daemon(self).mend(match self {
            Self::InUse { .. } => "stop the other contentmonster, or set another Database for this one",
            Self::TooNew { .. } => "install the newer version again, or set another Database for this one",
            Self::TooOld { .. } => "start this contentmonster once to upgrade the ledger",
            Self::NotThere { .. } => "start contentmonster, which creates the ledger, or check Database in [MONSTER]",
            Self::Unusable { why, .. } if why.starts_with(CORRUPT) => START_ANEW,
            Self::Unusable { .. } => "check Database in [MONSTER], and the permissions and free space of its directory",
            Self::Corrupt(_) => START_ANEW,
            Self::Refused { remedy, .. } => remedy,
            Self::Held { .. } => {
                "stop the other contentmonster, or set another Database for this one; to share the work between both, \
                 set another ShoreName; if the other host has failed, the ledger can be used again after LeaseTime"
            }
            Self::TakenOver { .. } => {
                "start this contentmonster again after the other one has stopped; if this host is only slow, give both \
                 a longer LeaseTime"
            }
            Self::NotOurs { .. } => "restart contentmonster on this host, so that it takes its share of the work again",
            Self::Away(_) => {
                "wait until the database is available again, or repair it; contentmonster then continues by itself"
            }
            Self::NotCopied { .. } => {
                "name a file that does not exist yet, in a writable directory with enough free space, or an empty \
                 database"
            }
            Self::NoCopyBeforeUpgrade { .. } => {
                "free some space on the disk that holds Database, or move the ledger to another disk and set Database"
            }
            Self::Failed(error)
                if error
                    .as_database_error()
                    .is_some_and(|error| error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some()) =>
            {
                "check the log of the database server, and the rights of the user of Database"
            }
            Self::Failed(_) => "check the free space and the health of the disk that holds Database",
        })
    }
}
