//! The ledger in an SQLite file.
//!
//! One connection writes, so that writers queue here and never meet SQLite's lock; others read beside it (WAL).
//! `synchronous=NORMAL`: a power cut may take the last transactions, never the file. Each of them is one that the workflows
//! make again: an admission by the next scan, an acknowledgement by looking at the destination.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, Sqlite as Db, SqlitePool, Transaction};

use super::lock::Lock;
use super::rows::{self, signed};
use super::{CurrentVersion, LedgerError, Parked, Store};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::names::{DirectoryName, InstanceId, RelPath, VesselName};
use crate::records::{Backlog, Delivery, DeliveryId, DeliveryState, NewVersion, Remains, Verified, Version, VersionId};

type Result<T> = std::result::Result<T, LedgerError>;

/// Numbered and embedded. A published one is never changed: its checksum is kept in the ledger.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("src/ledger/migrations");

/// The columns that [`rows::version`] reads, of a table called `v`.
macro_rules! version_columns {
    () => {
        "v.id AS version, v.directory, v.path, v.size, v.mtime, v.mtime_nanos, v.inode, v.mode, v.digest, v.chunk_size"
    };
}

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
        let pool = |connections| SqlitePoolOptions::new().max_connections(connections);
        let writer = pool(1).connect_with(options.clone()).await.map_err(|e| unusable(e.to_string()))?;
        MIGRATIONS.run(&writer).await.map_err(|e| migration_error(e, file.into()))?;
        let readers = pool(2).connect_with(options.read_only(true)).await.map_err(|e| unusable(e.to_string()))?;
        let instance = instance(&writer).await?;
        Ok(Self { writer, readers, instance, clock, _lock: lock })
    }

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

/// Ends the version that a path holds, and with it its open deliveries.
async fn end_current(
    transaction: &mut Transaction<'_, Db>,
    directory: &DirectoryName,
    path: &RelPath,
    ending: &str,
    now: i64,
) -> Result<()> {
    sqlx::query(
        "UPDATE delivery SET state = 'superseded', parked = 0
         WHERE state NOT IN ('acknowledged', 'superseded')
           AND version IN (SELECT id FROM version WHERE directory = ? AND path = ? AND ended_at IS NULL)",
    )
    .bind(directory.as_str())
    .bind(path.as_bytes())
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "UPDATE version SET ended_at = ?, ending = CASE complete WHEN 1 THEN 'retired' ELSE ? END
         WHERE directory = ? AND path = ? AND ended_at IS NULL",
    )
    .bind(now)
    .bind(ending)
    .bind(directory.as_str())
    .bind(path.as_bytes())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn insert_version(
    transaction: &mut Transaction<'_, Db>,
    directory: &DirectoryName,
    new: &NewVersion,
    now: i64,
) -> Result<i64> {
    let chunks: Vec<u8> = new.chunks.iter().flat_map(|digest| *digest.as_bytes()).collect();
    let inserted = sqlx::query(
        "INSERT INTO version (directory, path, size, mtime, mtime_nanos, inode, mode, digest, chunk_size, chunks, admitted_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(directory.as_str())
    .bind(new.path.as_bytes())
    .bind(signed(new.stamp.size))
    .bind(new.stamp.mtime)
    .bind(new.stamp.mtime_nanos)
    .bind(signed(new.stamp.inode))
    .bind(new.mode)
    .bind(&new.digest.as_bytes()[..])
    .bind(signed(new.chunk_size))
    .bind(chunks)
    .bind(now)
    .execute(&mut **transaction)
    .await?;
    Ok(inserted.last_insert_rowid())
}

/// Marks a version as complete once no delivery of it is open and at least one was acknowledged.
async fn settle(transaction: &mut Transaction<'_, Db>, version: i64) -> Result<()> {
    sqlx::query(
        "UPDATE version SET complete =
             NOT EXISTS (SELECT 1 FROM delivery WHERE version = ?1 AND state NOT IN ('acknowledged', 'superseded'))
             AND EXISTS (SELECT 1 FROM delivery WHERE version = ?1 AND state = 'acknowledged')
         WHERE id = ?1 AND ended_at IS NULL",
    )
    .bind(version)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn current_id(
    transaction: &mut Transaction<'_, Db>,
    directory: &DirectoryName,
    new: &NewVersion,
) -> Result<Option<i64>> {
    let id = sqlx::query_scalar(
        "SELECT id FROM version WHERE directory = ? AND path = ? AND ended_at IS NULL
         AND size = ? AND mtime = ? AND mtime_nanos = ? AND inode = ? AND digest = ?",
    )
    .bind(directory.as_str())
    .bind(new.path.as_bytes())
    .bind(signed(new.stamp.size))
    .bind(new.stamp.mtime)
    .bind(new.stamp.mtime_nanos)
    .bind(signed(new.stamp.inode))
    .bind(&new.digest.as_bytes()[..])
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(id)
}

#[async_trait]
impl Store for Sqlite {
    fn instance(&self) -> InstanceId {
        self.instance
    }

    async fn admit(&self, directory: &DirectoryName, versions: &[NewVersion], vessels: &[VesselName]) -> Result<()> {
        let now = self.now();
        let mut transaction = self.writer.begin().await?;
        for new in versions {
            if current_id(&mut transaction, directory, new).await?.is_some() {
                continue;
            }
            end_current(&mut transaction, directory, &new.path, "superseded", now).await?;
            let version = insert_version(&mut transaction, directory, new, now).await?;
            for vessel in vessels {
                sqlx::query("INSERT INTO delivery (version, vessel, state, due_at) VALUES (?, ?, 'pending', ?)")
                    .bind(version)
                    .bind(vessel.as_str())
                    .bind(now)
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    async fn reconcile(&self, directory: &DirectoryName, vessels: &[VesselName]) -> Result<()> {
        let mut transaction = self.writer.begin().await?;
        let versions: Vec<i64> = sqlx::query_scalar("SELECT id FROM version WHERE directory = ? AND ended_at IS NULL")
            .bind(directory.as_str())
            .fetch_all(&mut *transaction)
            .await?;
        for vessel in vessels {
            sqlx::query(
                "INSERT INTO delivery (version, vessel, state, due_at)
                 SELECT id, ?, 'pending', ? FROM version WHERE directory = ? AND ended_at IS NULL
                 ON CONFLICT (version, vessel) DO UPDATE SET state = 'pending' WHERE state = 'superseded'",
            )
            .bind(vessel.as_str())
            .bind(self.now())
            .bind(directory.as_str())
            .execute(&mut *transaction)
            .await?;
        }
        // A list of parameters has no place in static SQL; a JSON array has.
        let taking: Vec<String> = vessels.iter().map(|v| json_string(v.as_str())).collect();
        sqlx::query(
            "UPDATE delivery SET state = 'superseded', parked = 0
             WHERE state NOT IN ('acknowledged', 'superseded')
               AND version IN (SELECT id FROM version WHERE directory = ? AND ended_at IS NULL)
               AND vessel NOT IN (SELECT value FROM json_each(?))",
        )
        .bind(directory.as_str())
        .bind(format!("[{}]", taking.join(",")))
        .execute(&mut *transaction)
        .await?;
        for version in versions {
            settle(&mut transaction, version).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn current(&self, directory: &DirectoryName) -> Result<Vec<CurrentVersion>> {
        sqlx::query(
            "SELECT path, size, mtime, mtime_nanos, inode FROM version WHERE directory = ? AND ended_at IS NULL",
        )
        .bind(directory.as_str())
        .fetch_all(&self.readers)
        .await?
        .iter()
        .map(rows::current)
        .collect()
    }

    async fn current_at(&self, directory: &DirectoryName, path: &RelPath) -> Result<Option<CurrentVersion>> {
        sqlx::query(
            "SELECT path, size, mtime, mtime_nanos, inode FROM version
             WHERE directory = ? AND path = ? AND ended_at IS NULL",
        )
        .bind(directory.as_str())
        .bind(path.as_bytes())
        .fetch_optional(&self.readers)
        .await?
        .as_ref()
        .map(rows::current)
        .transpose()
    }

    async fn vanished(&self, directory: &DirectoryName, paths: &[RelPath]) -> Result<u64> {
        let mut transaction = self.writer.begin().await?;
        let mut dropped = 0;
        for path in paths {
            let open: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM version WHERE directory = ? AND path = ? AND ended_at IS NULL AND complete = 0",
            )
            .bind(directory.as_str())
            .bind(path.as_bytes())
            .fetch_one(&mut *transaction)
            .await?;
            dropped += open.cast_unsigned();
            end_current(&mut transaction, directory, path, "vanished", self.now()).await?;
        }
        transaction.commit().await?;
        Ok(dropped)
    }

    async fn retirable(&self, directory: &DirectoryName, after: VersionId, limit: u32) -> Result<Vec<Version>> {
        sqlx::query(concat!(
            "SELECT ",
            version_columns!(),
            " FROM version v WHERE v.directory = ? AND v.complete = 1 AND v.ended_at IS NULL AND v.id > ?
              ORDER BY v.id LIMIT ?"
        ))
        .bind(directory.as_str())
        .bind(after.0)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?
        .iter()
        .map(rows::version)
        .collect()
    }

    async fn retired(&self, version: VersionId) -> Result<()> {
        sqlx::query("UPDATE version SET ended_at = ?, ending = 'retired' WHERE id = ? AND ended_at IS NULL")
            .bind(self.now())
            .bind(version.0)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn next_due(&self, vessel: &VesselName, large: bool, limit: u32) -> Result<Vec<Delivery>> {
        let rows = sqlx::query(concat!(
            "SELECT d.id AS delivery, d.state, d.failures, ",
            version_columns!(),
            " FROM delivery d JOIN version v ON v.id = d.version
             WHERE d.vessel = ? AND d.due_at <= ? AND d.state NOT IN ('acknowledged', 'superseded')
               AND (v.size > v.chunk_size) = ?
             ORDER BY d.due_at, d.id LIMIT ?"
        ))
        .bind(vessel.as_str())
        .bind(self.now())
        .bind(large)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let delivery = |row| -> Result<Delivery> {
            Ok(Delivery {
                id: DeliveryId(Row::try_get(row, "delivery")?),
                version: rows::version(row)?,
                state: rows::state(row)?,
                failures: Row::try_get(row, "failures")?,
            })
        };
        rows.iter().map(delivery).collect()
    }

    async fn next_due_at(&self, vessel: &VesselName) -> Result<Option<i64>> {
        Ok(sqlx::query_scalar(
            "SELECT min(due_at) FROM delivery WHERE vessel = ? AND state NOT IN ('acknowledged', 'superseded')",
        )
        .bind(vessel.as_str())
        .fetch_one(&self.readers)
        .await?)
    }

    async fn chunk_digests(&self, version: VersionId) -> Result<Vec<Digest>> {
        let chunks: Vec<u8> = sqlx::query_scalar("SELECT chunks FROM version WHERE id = ?")
            .bind(version.0)
            .fetch_one(&self.readers)
            .await?;
        rows::digests(&chunks)
    }

    async fn enter(&self, delivery: DeliveryId, state: DeliveryState) -> Result<bool> {
        let entered = sqlx::query(
            "UPDATE delivery SET state = ?, touched = 1, parked = 0
             WHERE id = ? AND state NOT IN ('acknowledged', 'superseded')",
        )
        .bind(state.as_str())
        .bind(delivery.0)
        .execute(&self.writer)
        .await?;
        Ok(entered.rows_affected() == 1)
    }

    async fn acknowledge(&self, delivery: DeliveryId, verified: Verified) -> Result<bool> {
        let mut transaction = self.writer.begin().await?;
        let version: Option<i64> = sqlx::query_scalar(
            "UPDATE delivery SET state = 'acknowledged', parked = 0, reason = NULL, failures = 0,
                 acknowledged_at = ?, verified = ?
             WHERE id = ? AND state <> 'superseded' RETURNING version",
        )
        .bind(self.now())
        .bind(verified.as_str())
        .bind(delivery.0)
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(version) = version {
            settle(&mut transaction, version).await?;
        }
        transaction.commit().await?;
        Ok(version.is_some())
    }

    async fn put_off(&self, delivery: DeliveryId, reason: &str, due_at: i64, parked: bool) -> Result<()> {
        sqlx::query(
            "UPDATE delivery SET reason = ?, due_at = ?, parked = ?, failures = failures + 1
             WHERE id = ? AND state NOT IN ('acknowledged', 'superseded')",
        )
        .bind(reason)
        .bind(due_at)
        .bind(parked)
        .bind(delivery.0)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn hurry(&self, vessel: &VesselName) -> Result<()> {
        sqlx::query(
            "UPDATE delivery SET due_at = ?1
             WHERE vessel = ?2 AND due_at > ?1 AND state NOT IN ('acknowledged', 'superseded')",
        )
        .bind(self.now())
        .bind(vessel.as_str())
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn remains(&self, vessel: &VesselName, limit: u32) -> Result<Vec<Remains>> {
        let rows = sqlx::query(
            "SELECT d.id AS delivery, v.id AS version, v.directory, v.path
             FROM delivery d JOIN version v ON v.id = d.version
             WHERE d.vessel = ? AND d.state = 'superseded' AND d.touched = 1 LIMIT ?",
        )
        .bind(vessel.as_str())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let remains = |row| -> Result<Remains> {
            Ok(Remains {
                delivery: DeliveryId(Row::try_get(row, "delivery")?),
                version: VersionId(Row::try_get(row, "version")?),
                directory: rows::directory(row)?,
                path: rows::rel_path(row)?,
            })
        };
        rows.iter().map(remains).collect()
    }

    async fn swept(&self, delivery: DeliveryId) -> Result<()> {
        sqlx::query("UPDATE delivery SET touched = 0 WHERE id = ?").bind(delivery.0).execute(&self.writer).await?;
        Ok(())
    }

    async fn is_open(&self, version: VersionId, vessel: &VesselName) -> Result<bool> {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM delivery
             WHERE version = ? AND vessel = ? AND state NOT IN ('acknowledged', 'superseded')",
        )
        .bind(version.0)
        .bind(vessel.as_str())
        .fetch_one(&self.readers)
        .await?;
        Ok(open > 0)
    }

    async fn backlog(&self) -> Result<Vec<Backlog>> {
        let rows = sqlx::query(
            "SELECT d.vessel,
                 count(*) FILTER (WHERE d.state NOT IN ('acknowledged', 'superseded')) AS waiting,
                 coalesce(sum(v.size) FILTER (WHERE d.state NOT IN ('acknowledged', 'superseded')), 0) AS waiting_bytes,
                 coalesce(sum(d.parked), 0) AS parked,
                 count(*) FILTER (WHERE d.state = 'acknowledged') AS acknowledged
             FROM delivery d JOIN version v ON v.id = d.version GROUP BY d.vessel ORDER BY d.vessel",
        )
        .fetch_all(&self.readers)
        .await?;
        let backlog = |row: &sqlx::sqlite::SqliteRow| -> Result<Backlog> {
            let number = |column| Ok::<u64, sqlx::Error>(row.try_get::<i64, _>(column)?.cast_unsigned());
            Ok(Backlog {
                vessel: VesselName::new(row.try_get("vessel")?),
                waiting: number("waiting")?,
                waiting_bytes: number("waiting_bytes")?,
                parked: number("parked")?,
                acknowledged: number("acknowledged")?,
            })
        };
        rows.iter().map(backlog).collect()
    }

    async fn parked(&self, limit: u32) -> Result<Vec<Parked>> {
        let rows = sqlx::query(
            "SELECT d.vessel, v.directory, v.path, coalesce(d.reason, '') AS reason
             FROM delivery d JOIN version v ON v.id = d.version WHERE d.parked = 1 ORDER BY d.id LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let parked = |row: &sqlx::sqlite::SqliteRow| -> Result<Parked> {
            Ok(Parked {
                vessel: VesselName::new(row.try_get("vessel")?),
                directory: rows::directory(row)?,
                path: rows::rel_path(row)?,
                reason: row.try_get("reason")?,
            })
        };
        rows.iter().map(parked).collect()
    }
}

/// Text as a JSON string. Labels hold no control characters; the settings see to that.
fn json_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
