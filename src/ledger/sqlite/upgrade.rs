//! Migrates a ledger to this program's schema. A migration can't be undone, so an existing ledger is copied first; an
//! older program can use the copy.
//!
//! The copy is beside the ledger. Its name is that of the ledger with `.schema-` and the number of the ledger's newest
//! migration. A copy of the same schema is from an earlier upgrade, so it is replaced by a copy of the present state. A
//! new ledger is not copied.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::BinaryBytes;
use sqlx::SqlitePool;
use tempfile::NamedTempFile;

use super::backup::{self, Overwrite};
use super::schema::{MIGRATIONS, bring_up_to_date, migration_error};
use super::{LedgerError, Result};

/// In the name of a copy, the text between the ledger's name and the number of its schema.
const SCHEMA: &str = ".schema-";

/// Free space in bytes that must remain after the copy: migrations write to the `-wal` file and build indexes.
const SPARE: u64 = 16 << 20;

/// Interval at which the progress of a copy or a migration is logged.
const PROGRESS: Duration = Duration::from_secs(5);

/// The numbers of the migrations that a ledger lacks.
struct Pending {
    /// The ledger's newest migration.
    from: i64,
    missing: Vec<i64>,
}

/// If the ledger has an older schema, copies it and then migrates it.
///
/// # Errors
/// [`LedgerError`] when the ledger was written by a newer program, when there is not enough space for the copy, or when
/// the copy or a migration fails.
pub(super) async fn upgrade(file: &Path, writer: &SqlitePool) -> Result<()> {
    if let Some(pending) = pending(file, writer).await? {
        copy(file, pending.from, writer).await?;
        for (done, &number) in pending.missing.iter().enumerate() {
            let step = format!("step {} of {}", done + 1, pending.missing.len());
            let migrating = MIGRATIONS.run_to(number, writer);
            let report = |passed: u64| tracing::info!(seconds = passed, "Still upgrading the ledger: {step}");
            watched(migrating, report).await.map_err(|e| migration_error(e, file.into()))?;
            tracing::info!(schema = number, "Upgraded the ledger: {step}");
        }
    }
    bring_up_to_date(writer, file).await
}

/// Returns the migrations that an existing ledger lacks. `None` if it lacks none, or if the ledger is new or was
/// written by a newer program.
async fn pending(file: &Path, writer: &SqlitePool) -> Result<Option<Pending>> {
    let failed = |error: sqlx::Error| LedgerError::opening(file, &error);
    let table = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'");
    let tables: i64 = table.fetch_one(writer).await.map_err(failed)?;
    if tables == 0 {
        return Ok(None);
    }
    let applied: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
        .fetch_all(writer)
        .await
        .map_err(failed)?;
    // A ledger without migrations is new: its creation was interrupted. A ledger of a newer program is rejected later,
    // and not copied.
    let Some(&from) = applied.last().filter(|_| applied.iter().all(|&number| MIGRATIONS.version_exists(number))) else {
        return Ok(None);
    };
    let missing: Vec<i64> =
        MIGRATIONS.iter().map(|migration| migration.version).filter(|number| !applied.contains(number)).collect();
    Ok((!missing.is_empty()).then_some(Pending { from, missing }))
}

/// Checks that there is enough space for a copy, and then copies the ledger to a file beside it.
async fn copy(file: &Path, schema: i64, writer: &SqlitePool) -> Result<()> {
    let to = copy_of_schema(file, schema);
    let failed = |why: String| LedgerError::NoCopyBeforeUpgrade { to: to.clone(), why };
    let size = used_bytes(writer).await?;
    let directory = backup::directory_of(file);
    let free = free_bytes(directory).map_err(|e| failed(e.to_string()))?;
    if let Some(short) = (size + SPARE).checked_sub(free).filter(|short| *short > 0) {
        let (size, free, short) = (BinaryBytes(size), BinaryBytes(free), BinaryBytes(short));
        return Err(failed(format!(
            "the copy needs {size}, the upgrade itself 16 MiB, and only {free} are free; free at least {short} more"
        )));
    }
    tracing::info!(
        copy = %to.display(), bytes = size, schema,
        "The ledger has the schema of an older contentmonster. Copying it before the upgrade"
    );
    let temporary = backup::temporary(directory).map_err(|e| failed(e.to_string()))?;
    let report = |_| {
        let written = temporary.as_file().metadata().map_or(0, |meta| meta.len());
        let percent = (written * 100).checked_div(size).unwrap_or(100).min(100);
        tracing::info!(bytes = written, "Still copying the ledger: {percent} %");
    };
    watched(backup::fill(file, &temporary), report).await.map_err(|e| failed(e.to_string()))?;
    place(temporary, &to).map_err(|e| failed(e.to_string()))
}

fn place(copy: NamedTempFile, to: &Path) -> io::Result<()> {
    backup::place(copy, to, Overwrite::Yes)
}

/// Runs `work`. Meanwhile calls `tell` every [`PROGRESS`] with the number of seconds that have passed.
async fn watched<T>(work: impl Future<Output = T>, tell: impl Fn(u64)) -> T {
    let began = Instant::now();
    tokio::pin!(work);
    loop {
        match tokio::time::timeout(PROGRESS, &mut work).await {
            Ok(result) => return result,
            Err(_) => tell(began.elapsed().as_secs()),
        }
    }
}

/// Returns the size of the ledger without its unused pages, which is the size of the copy.
async fn used_bytes(writer: &SqlitePool) -> Result<u64> {
    let query = "SELECT (page_count - freelist_count) * page_size
                 FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()";
    let bytes: i64 = sqlx::query_scalar(query).fetch_one(writer).await?;
    Ok(bytes.cast_unsigned())
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn copy_of_schema(ledger: &Path, schema: i64) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(format!("{SCHEMA}{schema}"));
    name.into()
}

/// Returns the newest copy that was made before an upgrade and that this program can use; `None` if there is none.
pub(super) fn usable_copy(ledger: &Path) -> Option<PathBuf> {
    let mut start = OsString::from(ledger.file_name()?);
    start.push(SCHEMA);
    let schema = |entry: io::Result<std::fs::DirEntry>| -> Option<i64> {
        let name = entry.ok()?.file_name();
        let number = name.as_bytes().strip_prefix(start.as_bytes())?;
        std::str::from_utf8(number).ok()?.parse().ok().filter(|&number| MIGRATIONS.version_exists(number))
    };
    let newest = std::fs::read_dir(backup::directory_of(ledger)).ok()?.filter_map(schema).max()?;
    Some(copy_of_schema(ledger, newest))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::clock::Clock;
    use crate::ledger::{Ledger, backup};
    use crate::settings::Database;
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions, Connection};

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
        names.sort();
        names
    }

    async fn write_schema(file: &Path, schema: i64) {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let mut database = options.connect().await.unwrap();
        MIGRATIONS.run_to(schema, &mut database).await.unwrap();
        database.close().await.unwrap();
    }

    async fn dump(file: &Path) -> Vec<(String, String)> {
        let mut database = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
        let rows = sqlx::query_as("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name");
        rows.fetch_all(&mut database).await.unwrap()
    }

    #[tokio::test]
    async fn a_new_or_current_ledger_is_not_copied() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("ledger");
        for _ in 0..2 {
            Ledger::open(&file, Clock::system()).await.unwrap().close().await.unwrap();
            assert_eq!(names(place.path()), ["ledger", "ledger.lock"]);
        }
    }

    #[tokio::test]
    async fn before_an_upgrade_the_ledger_is_copied_and_the_copy_can_take_its_place() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("ledger");
        write_schema(&file, 12).await;
        let before = dump(&file).await;
        // The upgrade replaces a copy that an earlier upgrade from this schema made.
        std::fs::write(place.path().join("ledger.schema-12"), "old").unwrap();
        Ledger::open(&file, Clock::system()).await.unwrap().close().await.unwrap();
        assert_eq!(names(place.path()), ["ledger", "ledger.lock", "ledger.schema-12"]);
        let copy = place.path().join("ledger.schema-12");
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_ne!(dump(&file).await, before, "the ledger is upgraded");
        assert_eq!(dump(&copy).await, before, "the copy is not");

        std::fs::copy(&copy, &file).unwrap();
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(place.path().join(format!("ledger{end}")));
        }
        assert_eq!(dump(&file).await, before);
        Ledger::open(&file, Clock::system()).await.unwrap().close().await.unwrap();
        backup(&Database::File(file), &place.path().join("backup")).await.unwrap();
    }

    #[tokio::test]
    async fn an_upgrade_whose_copy_can_not_be_placed_changes_nothing() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("ledger");
        write_schema(&file, 12).await;
        let before = dump(&file).await;
        // A copy can't replace a directory of its name.
        std::fs::create_dir_all(place.path().join("ledger.schema-12/x")).unwrap();
        let refused = Ledger::open(&file, Clock::system()).await.err().expect("there is no place for the copy");
        assert!(refused.to_string().contains("ledger.schema-12"), "{refused}");
        assert_eq!(dump(&file).await, before);
        assert_eq!(names(place.path()), ["ledger", "ledger.lock", "ledger.schema-12"], "no temporary file is left");
    }

    #[tokio::test]
    async fn a_ledger_of_a_newer_program_is_not_copied_and_the_copy_to_restore_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("ledger");
        for name in ["ledger.schema-9", "ledger.schema-12", "ledger.schema-99999", "ledger.schema-x", "ledger.schema-"]
        {
            std::fs::write(place.path().join(name), "").unwrap();
        }
        Ledger::open(&file, Clock::system()).await.unwrap().close().await.unwrap();
        let mut database = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
        sqlx::query("UPDATE _sqlx_migrations SET version = 99999 WHERE version = 12")
            .execute(&mut database)
            .await
            .unwrap();
        database.close().await.unwrap();
        let before = names(place.path());
        let refused = Ledger::open(&file, Clock::system()).await.err().expect("it is newer");
        assert!(refused.fault().to_string().contains("ledger.schema-12"), "{}", refused.fault());
        assert_eq!(names(place.path()), before);
    }
}
