//! A copy of a ledger in a directory of its own: to try out on it what would be done.
//!
//! The ledger itself is only read, and not locked, for a daemon may be at work with it: a copy that was made while it was
//! written to is made again.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::TempDir;

/// How often a copy is tried while somebody else writes.
const TRIES: usize = 20;

/// Copies a ledger, if there is one; gives the directory that the copy lives in, and the copy's name.
pub(super) fn copy(file: &Path) -> io::Result<(TempDir, PathBuf)> {
    let place = tempfile::Builder::new().prefix("contentmonster-").tempdir()?;
    let copied = place.path().join("ledger");
    let sources = [file.to_owned(), with_suffix(file, "-wal")];
    let targets = [copied.clone(), with_suffix(&copied, "-wal")];
    for _ in 0..TRIES {
        let before = sources.clone().map(|source| look(&source));
        for (source, target) in sources.iter().zip(&targets) {
            match std::fs::copy(source, target) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied?),
            }
        }
        if sources.clone().map(|source| look(&source)) == before {
            return Ok((place, copied));
        }
    }
    Err(io::Error::other("it is written to all the time; stop the daemon for a moment"))
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
