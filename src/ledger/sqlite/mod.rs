//! The ledger in an SQLite file: opens the file and migrates it to this program's schema.
//!
//! One connection writes, so that writers queue in this process and never contend for SQLite's lock. Other connections
//! read in parallel (WAL). With `synchronous=NORMAL`, a power cut may lose the last transactions but never corrupts the
//! file. The workflows make up for lost transactions: the next scan repeats a lost admission, and a check of the
//! destination repeats a lost acknowledgement.

mod backup;
mod due;
mod former_assemblies;
mod group;
mod incidents;
mod json;
mod link_usage;
mod listeners;
mod lock;
mod mounts;
mod moves;
mod notices;
mod pauses;
mod queue;
mod queues;
mod ranks;
mod reconcile;
mod reports;
mod rows;
mod schema;
mod scratch;
mod signatures;
mod store;
#[cfg(test)]
mod tests;
mod transitions;
mod upgrade;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlitePool};

use super::{LedgerError, Reports};
use crate::clock::Clock;
use crate::names::InstanceId;
use group::Group;
use listeners::Listeners;
use lock::Lock;
use schema::MIGRATIONS;
pub(super) use scratch::Scratch;

pub(super) use backup::backup;

type Result<T> = std::result::Result<T, LedgerError>;

/// The pool of read-only connections.
#[derive(Clone)]
struct Readers(SqlitePool);

/// Maximum time for which a caller waits for a connection of a pool. A longer wait is an error, which stops the daemon,
/// and sqlx's default of 30 s is too short for a slow disk or for the reconciliation of a very large directory.
const LONGEST_QUEUE: Duration = Duration::from_secs(600);

/// Number of rows that the thread of a connection buffers. With fewer rows, a query for a batch would need several
/// round trips to this thread.
const ROWS_ON_THE_WAY: usize = 1024;

pub(super) struct Sqlite {
    writer: SqlitePool,
    group: Group,
    readers: SqlitePool,
    listeners: Listeners,
    instance: InstanceId,
    clock: Clock,
    /// The latest time of day to which due times were compared, in milliseconds since 1970; see [`due`].
    latest: tokio::sync::Mutex<i64>,
    _lock: Lock,
}

impl Sqlite {
    pub(super) async fn open(file: &Path, clock: Clock) -> Result<Self> {
        Self::open_as(file, clock, false).await
    }

    /// Opens a ledger. A ledger for dry runs uses a single connection, so that one transaction encloses all updates.
    async fn open_as(file: &Path, clock: Clock, dry_run: bool) -> Result<Self> {
        let lock = Lock::take(file)?;
        let options = options(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true);
        // An existing file keeps the `auto_vacuum` mode that it was created with.
        let writing = options.clone().auto_vacuum(SqliteAutoVacuum::Incremental);
        let failed = |error: sqlx::Error| LedgerError::opening(file, &error);
        let writing = pool(1).idle_timeout(None).max_lifetime(None).connect_with(writing);
        let writer = writing.await.map_err(failed)?;
        match dry_run {
            // The ledger of a dry run is a temporary copy, so it is upgraded without a backup.
            true => schema::bring_up_to_date(&writer, file).await?,
            false => upgrade::upgrade(file, &writer).await?,
        }
        let readers = match dry_run {
            true => writer.clone(),
            false => pool(2).connect_with(options.read_only(true)).await.map_err(failed)?,
        };
        let instance = instance(&writer).await?;
        // The clock may have been ahead when the ledger was last open, so due times far in the future are moved back.
        let now = clock.now_ms();
        due::move_back(&writer, now, 0).await?;
        let latest = tokio::sync::Mutex::new(now);
        let listeners = Listeners::default();
        let group = Group::start(writer.clone(), clock.clone(), listeners.clone());
        Ok(Self { writer, group, readers, listeners, instance, clock, latest, _lock: lock })
    }

    /// Opens the ledger read-only, even while another process writes to it. If `untouched` is set and the ledger has no
    /// `-wal` file (no other process has the ledger open), SQLite creates no files beside the ledger. The returned
    /// reader then does not notice later updates by another process, so use it only for a short time.
    pub(super) async fn look(file: &Path, untouched: bool) -> Result<Arc<dyn Reports>> {
        let unusable = |why: String| LedgerError::Unusable { file: file.into(), why };
        match file.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(LedgerError::NotThere { file: file.into() }),
            Err(e) => return Err(unusable(e.to_string())),
        }
        let failed = |error: sqlx::Error| LedgerError::opening(file, &error);
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let immutable = untouched && !Path::new(&log).exists();
        let reading = options(file).read_only(true).immutable(immutable);
        let readers = pool(1).connect_with(reading).await.map_err(failed)?;
        // A new file has no tables until the process that created it has run the migrations.
        let known = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'");
        let known: i64 = known.fetch_one(&readers).await.map_err(failed)?;
        if known == 0 {
            return Err(LedgerError::NotThere { file: file.into() });
        }
        let form: i64 = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
            .fetch_one(&readers)
            .await
            .map_err(failed)?;
        let ours = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
        match form.cmp(&ours) {
            std::cmp::Ordering::Less => Err(LedgerError::TooOld { file: file.into() }),
            std::cmp::Ordering::Equal => Ok(Arc::new(Readers(readers))),
            std::cmp::Ordering::Greater => Err(too_new(file.into(), form)),
        }
    }

    /// Writes everything to the ledger's file (a checkpoint), so that this file alone is complete, and closes the
    /// ledger.
    async fn shut(&self) -> Result<()> {
        self.readers.close().await;
        let mut writer = self.writer.acquire().await?;
        // A concurrent reader prevents a complete checkpoint; the next start then recovers the rest from the `-wal`
        // file.
        sqlx::query("PRAGMA busy_timeout = 1000").execute(&mut *writer).await?;
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *writer).await?;
        drop(writer);
        self.writer.close().await;
        Ok(())
    }

    /// Returns the time of day in milliseconds since 1970.
    fn now(&self) -> i64 {
        self.clock.now_ms()
    }
}

fn options(file: &Path) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new().filename(file);
    // Statements are not logged: sqlx's log lines contain SQL, and an operator cannot fix a slow statement.
    options.busy_timeout(Duration::from_secs(10)).row_buffer_size(ROWS_ON_THE_WAY).disable_statement_logging()
}

/// Returns the options of a pool that doesn't test a connection before use: the test would cost as much as the query.
fn pool(connections: u32) -> SqlitePoolOptions {
    let pool = SqlitePoolOptions::new().max_connections(connections);
    pool.acquire_timeout(LONGEST_QUEUE).acquire_slow_threshold(LONGEST_QUEUE).test_before_acquire(false)
}

fn too_new(file: PathBuf, form: i64) -> LedgerError {
    LedgerError::TooNew { copy: upgrade::usable_copy(&file), file, form }
}

/// Returns the shore's id; generates the id when the ledger is new.
async fn instance(writer: &SqlitePool) -> Result<InstanceId> {
    let mut transaction = writer.begin().await?;
    let made_up = InstanceId::new(std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id()));
    sqlx::query("INSERT INTO instance (id) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM instance)")
        .bind(made_up.to_string())
        .execute(&mut *transaction)
        .await?;
    let id: String = sqlx::query_scalar("SELECT id FROM instance").fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    InstanceId::parse(&id).ok_or_else(|| LedgerError::Corrupt(format!("invalid instance id {id:?}")))
}
