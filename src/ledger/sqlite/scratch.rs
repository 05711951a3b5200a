//! A copy of a ledger in a temporary directory, for dry runs.
//!
//! The ledger itself is only read and not locked, because a daemon may be using it. If the ledger changes during the
//! copy, the copy is repeated. All updates to the copy are in one transaction, which is rolled back afterwards, so the
//! copy can be used again until the ledger changes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sqlx::Connection;
use tempfile::TempDir;

use super::{Result, Sqlite};
use crate::clock::Clock;
use crate::ledger::LedgerError;

/// Maximum number of attempts to copy a ledger that another process writes to.
const TRIES: usize = 20;

/// Size and modification time of the ledger's file and of its `-wal` file. If one of them differs, the ledger has
/// changed.
type Looks = [Option<(u64, SystemTime)>; 2];

/// A copy of a ledger. Dropping the value deletes the copy's files.
pub(in crate::ledger) struct Scratch {
    pub(in crate::ledger) store: std::sync::Arc<Sqlite>,
    original: PathBuf,
    looks: Looks,
    _place: TempDir,
}

impl Scratch {
    pub(in crate::ledger) async fn of(file: &Path, clock: Clock) -> Result<Self> {
        let copied = copy(file);
        let unusable =
            |e: io::Error| LedgerError::Unusable { file: file.into(), why: format!("copying it failed: {e}") };
        let (place, copied, looks) = copied.map_err(unusable)?;
        let store = Sqlite::open_as(&copied, clock, true).await?;
        let scratch = Self { store: store.into(), original: file.to_owned(), looks, _place: place };
        let mut connection = scratch.store.writer.acquire().await?;
        // The guard is never dropped, so the transaction remains open as long as the connection. All further
        // transactions are savepoints in this transaction.
        std::mem::forget(connection.begin().await?);
        drop(connection);
        Ok(scratch)
    }

    /// Returns whether the ledger has not changed since it was copied.
    pub(in crate::ledger) fn is_current(&self) -> bool {
        looks(&self.original) == self.looks
    }

    /// Rolls back all updates to the copy.
    pub(in crate::ledger) async fn undo(&self) -> Result<()> {
        let mut connection = self.store.writer.acquire().await?;
        // Uses plain SQL, so that sqlx does not notice the change and still counts one open transaction.
        sqlx::query("ROLLBACK").execute(&mut *connection).await?;
        sqlx::query("BEGIN").execute(&mut *connection).await?;
        Ok(())
    }
}

fn looks(file: &Path) -> Looks {
    [file.to_owned(), with_suffix(file, "-wal")].map(|file| look(&file))
}

/// Copies a ledger if it exists. Returns the temporary directory, the path of the copy, and the ledger's sizes and
/// times.
fn copy(file: &Path) -> io::Result<(TempDir, PathBuf, Looks)> {
    let place = tempfile::Builder::new().prefix("contentmonster-").tempdir()?;
    let copied = place.path().join("ledger");
    let sources = [file.to_owned(), with_suffix(file, "-wal")];
    let targets = [copied.clone(), with_suffix(&copied, "-wal")];
    for _ in 0..TRIES {
        let before = looks(file);
        for (source, target) in sources.iter().zip(&targets) {
            match std::fs::copy(source, target) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied?),
            }
        }
        if looks(file) == before {
            return Ok((place, copied, before));
        }
    }
    Err(io::Error::other("the ledger keeps changing while it is copied; stop the daemon, then try again"))
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns size and modification time of a file; `None` when the file can't be examined.
fn look(file: &Path) -> Option<(u64, SystemTime)> {
    let meta = file.metadata().ok()?;
    Some((meta.len(), meta.modified().ok()?))
}
