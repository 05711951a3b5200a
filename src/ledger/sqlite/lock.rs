//! A lock file beside the ledger, which ensures that only one process uses the ledger.
//!
//! SQLite's own locks last for one transaction only. Without this lock file, two daemons could both write to the ledger
//! and undo each other's work.
//!
//! This module also creates the ledger's file with mode 0600, whatever the umask is, before SQLite opens it. SQLite
//! gives the `-wal` and `-shm` files the same mode as the ledger.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::ledger::LedgerError;
use crate::root::{open_private, open_trusted, take_from_others};

/// The lock, held while the ledger is open. The kernel releases the lock when the process ends, even when it is killed.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(ledger: &Path) -> Result<Self, LedgerError> {
        let unusable = |why: String| LedgerError::Unusable { file: ledger.into(), why };
        let path = beside(ledger, ".lock");
        let failed = |path: &Path, e: std::io::Error| unusable(format!("{}: {e}", path.display()));
        let file = open_private(&path, OFlags::WRONLY).map_err(|e| failed(&path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LedgerError::InUse { file: ledger.into() }),
            Err(TryLockError::Error(e)) => return Err(failed(&path, e)),
        }
        take_from_others(&file);
        take_from_others(&open_private(ledger, OFlags::RDWR).map_err(|e| failed(ledger, e))?);
        for path in ["-wal", "-shm"].map(|end| beside(ledger, end)) {
            match open_trusted(&path, OFlags::RDONLY, rustix::fs::Mode::empty()) {
                Ok(file) => take_from_others(&file),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(&path, e)),
            }
        }
        Ok(Self { _file: file })
    }
}

fn beside(ledger: &Path, end: &str) -> PathBuf {
    let mut path = ledger.as_os_str().to_owned();
    path.push(end);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, lchown, symlink};

    #[test]
    fn a_ledger_that_all_users_may_read_becomes_ours_alone_and_one_behind_anothers_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().mode() & 0o777;
        for name in ["ledger", "ledger-wal", "ledger.lock"] {
            fs::write(at(name), "").unwrap();
            fs::set_permissions(at(name), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        }
        drop(Lock::take(&at("ledger")).ok().unwrap());
        assert_eq!(["ledger", "ledger-wal", "ledger.lock"].map(mode), [0o600; 3]);
        drop(Lock::take(&at("new")).ok().unwrap());
        assert_eq!(["new", "new.lock"].map(mode), [0o600; 2]);
        symlink("ledger", at("link")).unwrap();
        drop(Lock::take(&at("link")).ok().unwrap());
        if rustix::process::geteuid().is_root() {
            lchown(at("link"), Some(12_345), None).unwrap();
            let error = Lock::take(&at("link")).err().unwrap().to_string();
            assert!(error.contains("symbolic link that belongs to user 12345"), "{error}");
        }
    }
}
