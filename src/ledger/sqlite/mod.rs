//! The ledger in an SQLite file: opening it and bringing it up to this program's form.
//!
//! One connection writes, so that writers queue here and never meet SQLite's lock; others read beside it (WAL).
//! `synchronous=NORMAL`: a power cut may take the last transactions, never the file. Each of them is one that the workflows
//! make again: an admission by the next scan, an acknowledgement by looking at the destination.

mod group;
mod json;
mod lock;
mod mounts;
mod outbox;
mod outlines;
mod rows;
mod scratch;
mod store;
mod survey;
#[cfg(test)]
mod tests;
mod transitions;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tempfile::TempDir;

use super::{LedgerError, Survey};
use crate::clock::Clock;
use crate::names::InstanceId;
use group::Group;
use lock::Lock;
use outbox::Listeners;
use survey::Readers;

type Result<T> = std::result::Result<T, LedgerError>;

/// Numbered and embedded. A published one is never changed: its checksum is kept in the ledger.
static MIGRATIONS: Migrator = sqlx::migrate!("src/ledger/migrations");

/// How long a writer queues behind the others. The pool's own limit of 30 s would stop the daemon over a slow disk or the
/// reconciling of a very large directory.
const LONGEST_QUEUE: Duration = Duration::from_secs(600);

/// Rows that wait on their way out of a connection's thread; with fewer, a question for a batch takes several turns.
const ROWS_ON_THE_WAY: usize = 1024;

pub(super) struct Sqlite {
    writer: SqlitePool,
    group: Group,
    readers: SqlitePool,
    listeners: Listeners,
    instance: InstanceId,
    clock: Clock,
    _lock: Lock,
    /// Where the file lies that this is a copy of a ledger in.
    _scratch: Option<TempDir>,
}

impl Sqlite {
    pub(super) async fn open(file: &Path, clock: Clock) -> Result<Self> {
        let lock = Lock::take(file)?;
        let unusable = |why: String| LedgerError::Unusable { file: file.into(), why };
        let options = options(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true);
        // A file that is there already keeps what it was made with.
        let writing = options.clone().auto_vacuum(SqliteAutoVacuum::Incremental);
        let writer = pool(1).connect_with(writing).await.map_err(|e| unusable(e.to_string()))?;
        MIGRATIONS.run(&writer).await.map_err(|e| migration_error(e, file.into()))?;
        let readers = pool(2).connect_with(options.read_only(true)).await.map_err(|e| unusable(e.to_string()))?;
        let instance = instance(&writer).await?;
        let listeners = Listeners::default();
        let group = Group::start(writer.clone(), clock.clone(), listeners.clone());
        Ok(Self { writer, group, readers, listeners, instance, clock, _lock: lock, _scratch: None })
    }

    /// Opens a copy of a ledger, which goes with it.
    pub(super) async fn scratch(file: &Path, clock: Clock) -> Result<Self> {
        let copied = scratch::copy(file);
        let unusable =
            |e: std::io::Error| LedgerError::Unusable { file: file.into(), why: format!("it can't be copied: {e}") };
        let (place, copy) = copied.map_err(unusable)?;
        Ok(Self { _scratch: Some(place), ..Self::open(&copy, clock).await? })
    }

    /// Opens the ledger only to look into it, also while another process writes.
    pub(super) async fn look(file: &Path) -> Result<Arc<dyn Survey>> {
        let unusable = |why: String| LedgerError::Unusable { file: file.into(), why };
        match file.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(LedgerError::NotThere { file: file.into() }),
            Err(e) => return Err(unusable(e.to_string())),
        }
        let readers = pool(1).connect_with(options(file).read_only(true)).await.map_err(|e| unusable(e.to_string()))?;
        let form: i64 = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
            .fetch_one(&readers)
            .await
            .map_err(|_| LedgerError::NotThere { file: file.into() })?;
        let ours = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
        match form.cmp(&ours) {
            std::cmp::Ordering::Less => Err(LedgerError::TooOld { file: file.into() }),
            std::cmp::Ordering::Equal => Ok(Arc::new(Readers(readers))),
            std::cmp::Ordering::Greater => Err(LedgerError::TooNew { file: file.into(), form }),
        }
    }

    /// Milliseconds since 1970.
    fn now(&self) -> i64 {
        self.clock.now_ms()
    }
}

fn options(file: &Path) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new().filename(file);
    options.busy_timeout(Duration::from_secs(10)).row_buffer_size(ROWS_ON_THE_WAY)
}

/// Whether a connection still works is found out by using it: asking first would cost as much again.
fn pool(connections: u32) -> SqlitePoolOptions {
    let pool = SqlitePoolOptions::new().max_connections(connections);
    pool.acquire_timeout(LONGEST_QUEUE).test_before_acquire(false)
}

fn migration_error(error: MigrateError, file: PathBuf) -> LedgerError {
    match error {
        MigrateError::VersionMissing(form) | MigrateError::VersionTooNew(form, _) => LedgerError::TooNew { file, form },
        error => LedgerError::Unusable { file, why: error.to_string() },
    }
}

/// The shore's id, made up when the ledger is new.
async fn instance(writer: &SqlitePool) -> Result<InstanceId> {
    let mut transaction = writer.begin().await?;
    let made_up = InstanceId::new(std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id()));
    sqlx::query("INSERT INTO instance (id) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM instance)")
        .bind(made_up.to_string())
        .execute(&mut *transaction)
        .await?;
    let id: String = sqlx::query_scalar("SELECT id FROM instance").fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    InstanceId::parse(&id).ok_or_else(|| LedgerError::Corrupt(format!("the instance id {id:?}")))
}
