//! One process, one ledger: a lock file beside it.
//!
//! SQLite's own locks last for a transaction; two daemons would take turns and each undo the other's work.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::LedgerError;

/// Held as long as the ledger is open. The kernel lets go of it when the process ends, however that happens.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(ledger: &Path) -> Result<Self, LedgerError> {
        let unusable = |why: String| LedgerError::Unusable { file: ledger.into(), why };
        let mut path = ledger.as_os_str().to_owned();
        path.push(".lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| unusable(format!("{}: {e}", Path::new(&path).display())))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LedgerError::InUse { file: ledger.into() }),
            Err(TryLockError::Error(e)) => Err(unusable(format!("{}: {e}", Path::new(&path).display()))),
        }
    }
}
