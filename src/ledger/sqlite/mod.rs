//! The ledger in an SQLite file: opening it and bringing it up to this program's form.
//!
//! One connection writes, so that writers queue here and never meet SQLite's lock; others read beside it (WAL).
//! `synchronous=NORMAL`: a power cut may take the last transactions, never the file. Each of them is one that the workflows
//! make again: an admission by the next scan, an acknowledgement by looking at the destination.

mod lock;
mod rows;
mod store;
#[cfg(test)]
mod tests;
mod transitions;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::LedgerError;
use crate::clock::Clock;
use crate::names::InstanceId;
use lock::Lock;

type Result<T> = std::result::Result<T, LedgerError>;

/// Numbered and embedded. A published one is never changed: its checksum is kept in the ledger.
static MIGRATIONS: Migrator = sqlx::migrate!("src/ledger/migrations");

/// How long a writer queues behind the others. The pool's own limit of 30 s would stop the daemon over a slow disk or the
/// reconciling of a very large directory.
const LONGEST_QUEUE: Duration = Duration::from_secs(600);

pub(super) struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
    instance: InstanceId,
    clock: Clock,
    _lock: Lock,
}

impl Sqlite {
    pub(super) async fn open(file: &Path, clock: Clock) -> Result<Self> {
        let lock = Lock::take(file)?;
        let unusable = |why: String| LedgerError::Unusable { file: file.into(), why };
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let pool = |connections| SqlitePoolOptions::new().max_connections(connections).acquire_timeout(LONGEST_QUEUE);
        let writer = pool(1).connect_with(options.clone()).await.map_err(|e| unusable(e.to_string()))?;
        MIGRATIONS.run(&writer).await.map_err(|e| migration_error(e, file.into()))?;
        let readers = pool(2).connect_with(options.read_only(true)).await.map_err(|e| unusable(e.to_string()))?;
        let instance = instance(&writer).await?;
        Ok(Self { writer, readers, instance, clock, _lock: lock })
    }

    /// Milliseconds since 1970.
    fn now(&self) -> i64 {
        self.clock.now_ms()
    }
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
