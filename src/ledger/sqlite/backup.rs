//! Copies a ledger while other connections read and write it.
//!
//! `VACUUM INTO` copies the state that one transaction sees (sqlite.org/lang_vacuum.html). The `-wal` file is part of a
//! ledger in use, so a copy of the ledger's file alone would be incomplete or empty.

use std::fs::File;
use std::io;
use std::path::Path;

use super::{LedgerError, Result, options, pool};

/// Makes a consistent copy of a ledger, see [`crate::ledger::backup`].
pub(in crate::ledger) async fn backup(ledger: &Path, to: &Path) -> Result<()> {
    let failed = |why: String| LedgerError::NotCopied { to: to.into(), why };
    match ledger.try_exists() {
        Ok(true) => {}
        Ok(false) => return Err(LedgerError::NotThere { file: ledger.into() }),
        Err(e) => return Err(LedgerError::Unusable { file: ledger.into(), why: e.to_string() }),
    }
    if to.symlink_metadata().is_ok() {
        return Err(failed("a file of that name already exists".to_owned()));
    }
    let directory = match to.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    // `tempfile` creates the file with mode 0600. SQLite accepts an empty file as a new database.
    let copy = tempfile::Builder::new().prefix(".contentmonster-backup-").tempfile_in(directory);
    let copy = copy.map_err(|e| failed(e.to_string()))?;
    let name = copy.path().to_str().ok_or_else(|| failed("the path is not UTF-8 text".to_owned()))?.to_owned();
    let opening = |e: sqlx::Error| LedgerError::opening(ledger, &e);
    let reader = pool(1).connect_with(options(ledger).read_only(true)).await.map_err(opening)?;
    let copied = sqlx::query("VACUUM INTO ?").bind(name).execute(&reader).await;
    reader.close().await;
    copied.map_err(|error| match LedgerError::from(error) {
        LedgerError::Corrupt(why) => LedgerError::Corrupt(format!("{}: {why}", ledger.display())),
        other => failed(other.to_string()),
    })?;
    prove(copy.path()).await?;
    let placed = copy.as_file().sync_all().and_then(|()| copy.persist_noclobber(to).map_err(|e| e.error).map(drop));
    placed.and_then(|()| sync(directory)).map_err(|e| failed(e.to_string()))
}

/// Checks the integrity of the copy, because a corrupt backup could not be restored.
async fn prove(copy: &Path) -> Result<()> {
    let reader =
        pool(1).connect_with(options(copy).read_only(true)).await.map_err(|e| LedgerError::opening(copy, &e))?;
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&reader).await?;
    reader.close().await;
    if found == "ok" { Ok(()) } else { Err(LedgerError::Corrupt(format!("the copy is damaged: {found}"))) }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
