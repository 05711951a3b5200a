//! Copies a ledger while other connections read and write it.
//!
//! `VACUUM INTO` copies the state that one transaction sees (sqlite.org/lang_vacuum.html). A plain copy of the ledger's
//! file would be incomplete or empty, because the `-wal` file is part of a ledger in use.

use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

use super::{LedgerError, Result, options, pool};

/// Whether a copy may replace an existing file.
#[derive(Clone, Copy)]
pub(super) enum Overwrite {
    Yes,
    No,
}

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
    let copy = temporary(directory_of(to)).map_err(|e| failed(e.to_string()))?;
    fill(ledger, &copy).await.map_err(|error| match error {
        LedgerError::Failed(why) => failed(LedgerError::Failed(why).to_string()),
        other => other,
    })?;
    place(copy, to, Overwrite::No).map_err(|e| failed(e.to_string()))
}

/// Returns the directory that a path is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

/// Creates the empty file to which a copy is written, with mode 0600. SQLite accepts an empty file as a new database.
pub(super) fn temporary(directory: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".contentmonster-backup-").tempfile_in(directory)
}

/// Writes the copy and checks its integrity, because a corrupt copy could not be restored.
pub(super) async fn fill(ledger: &Path, copy: &NamedTempFile) -> Result<()> {
    let copy = copy.path();
    let no_text = || LedgerError::NotCopied { to: copy.into(), why: "the path is not UTF-8 text".to_owned() };
    let name = copy.to_str().ok_or_else(no_text)?.to_owned();
    let opening = |e: sqlx::Error| LedgerError::opening(ledger, &e);
    let reader = pool(1).connect_with(options(ledger).read_only(true)).await.map_err(opening)?;
    let copied = sqlx::query("VACUUM INTO ?").bind(name).execute(&reader).await;
    reader.close().await;
    copied.map_err(|error| match LedgerError::from(error) {
        LedgerError::Corrupt(why) => LedgerError::Corrupt(format!("{}: {why}", ledger.display())),
        other => other,
    })?;
    prove(copy).await
}

/// Flushes a copy and renames it to its final name.
pub(super) fn place(copy: NamedTempFile, to: &Path, overwrite: Overwrite) -> io::Result<()> {
    copy.as_file().sync_all()?;
    match overwrite {
        Overwrite::Yes => copy.persist(to),
        Overwrite::No => copy.persist_noclobber(to),
    }
    .map_err(|e| e.error)?;
    File::open(directory_of(to))?.sync_all()
}

async fn prove(copy: &Path) -> Result<()> {
    let reader =
        pool(1).connect_with(options(copy).read_only(true)).await.map_err(|e| LedgerError::opening(copy, &e))?;
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&reader).await?;
    reader.close().await;
    if found == "ok" { Ok(()) } else { Err(LedgerError::Corrupt(format!("a check of its copy failed: {found}"))) }
}
