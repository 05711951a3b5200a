//! A copy of a ledger in a directory of its own: to try out on it what would be done.
//!
//! The ledger itself is only read, and not locked, for a daemon may be at work with it: a copy that was made while it was
//! written to is made again. What is entered in the copy stays in one transaction, which is undone afterwards: so one copy
//! serves as long as the ledger stays as it is.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sqlx::Connection;
use tempfile::TempDir;

use super::{Result, Sqlite};
use crate::clock::Clock;
use crate::ledger::LedgerError;

/// How often a copy is tried while somebody else writes.
const TRIES: usize = 20;

/// What shows whether a ledger was written to: of its file, and of the log beside it.
type Looks = [Option<(u64, SystemTime)>; 2];

/// A copy of a ledger. Its file goes with it.
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
            |e: io::Error| LedgerError::Unusable { file: file.into(), why: format!("it can't be copied: {e}") };
        let (place, copied, looks) = copied.map_err(unusable)?;
        let store = Sqlite::open_as(&copied, clock, true).await?;
        let scratch = Self { store: store.into(), original: file.to_owned(), looks, _place: place };
        let mut connection = scratch.store.writer.acquire().await?;
        // Never dropped, so it is open for as long as the connection: all further transactions are savepoints in it.
        std::mem::forget(connection.begin().await?);
        drop(connection);
        Ok(scratch)
    }

    /// Whether the ledger is still what was copied.
    pub(in crate::ledger) fn is_current(&self) -> bool {
        looks(&self.original) == self.looks
    }

    /// Undoes what was entered.
    pub(in crate::ledger) async fn undo(&self) -> Result<()> {
        let mut connection = self.store.writer.acquire().await?;
        // Said in SQL: for the library it is one transaction to the end.
        sqlx::query("ROLLBACK").execute(&mut *connection).await?;
        sqlx::query("BEGIN").execute(&mut *connection).await?;
        Ok(())
    }
}

fn looks(file: &Path) -> Looks {
    [file.to_owned(), with_suffix(file, "-wal")].map(|file| look(&file))
}

/// Copies a ledger, if there is one; gives the directory that the copy lives in, the copy's name, and how the ledger looked.
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
    Err(io::Error::other("it keeps changing while it is copied; stop the daemon for a moment"))
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What shows whether a file was written to.
fn look(file: &Path) -> Option<(u64, SystemTime)> {
    let meta = file.metadata().ok()?;
    Some((meta.len(), meta.modified().ok()?))
}
