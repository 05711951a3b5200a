//! The questions and entries of [`Store`], in SQLite's SQL.
//!
//! Questions go to the reading connections, entries to the one that writes.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::transitions::{end_current, insert_version, is_current, settle, settle_all};
use super::{Result, Sqlite, rows};
use crate::digest::Digest;
use crate::ledger::{CurrentVersion, Parked, Store};
use crate::names::{DirectoryName, InstanceId, RelPath, VesselName};
use crate::records::{Backlog, Delivery, DeliveryId, DeliveryState, NewVersion, Remains, Verified, Version, VersionId};

/// The columns that [`rows::version`] reads, of a table called `v`.
macro_rules! version_columns {
    () => {
        "v.id AS version, v.directory, v.path, v.size, v.mtime, v.mtime_nanos, v.inode, v.mode, v.digest, v.chunk_size"
    };
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
            if is_current(&mut transaction, directory, new).await? {
                continue;
            }
            end_current(&mut transaction, directory, &new.path, "superseded", now).await?;
            let version = insert_version(&mut transaction, directory, new, now).await?;
            for vessel in vessels {
                sqlx::query(
                    "INSERT INTO delivery (version, vessel, large, state, due_at) VALUES (?, ?, ?, 'pending', ?)",
                )
                .bind(version)
                .bind(vessel.as_str())
                .bind(new.stamp.size > new.chunk_size)
                .bind(now)
                .execute(&mut *transaction)
                .await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    async fn reconcile(&self, directory: &DirectoryName, vessels: &[VesselName]) -> Result<()> {
        let mut transaction = self.writer.begin().await?;
        for vessel in vessels {
            // A size below 0 is one with its highest bit set: see `signed`.
            sqlx::query(
                "INSERT INTO delivery (version, vessel, large, state, due_at)
                 SELECT id, ?, size < 0 OR size > chunk_size, 'pending', ? FROM version WHERE directory = ? AND ended_at IS NULL
                 ORDER BY id
                 ON CONFLICT (version, vessel) DO UPDATE
                     SET state = 'pending', due_at = excluded.due_at, failures = 0, reason = NULL
                     WHERE state = 'superseded'",
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
        settle_all(&mut transaction, directory).await?;
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
        sqlx::query(
            "UPDATE version SET ended_at = ?, ending = 'retired' WHERE id = ? AND complete = 1 AND ended_at IS NULL",
        )
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
             WHERE d.vessel = ? AND d.large = ? AND d.due_at <= ? AND d.state NOT IN ('acknowledged', 'superseded')
             ORDER BY d.due_at, d.id LIMIT ?"
        ))
        .bind(vessel.as_str())
        .bind(large)
        .bind(self.now())
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
        // Each half is one look into the index; one minimum over both would read all that is open.
        Ok(sqlx::query_scalar(
            "SELECT min(due_at) FROM (
                 SELECT min(due_at) AS due_at FROM delivery
                 WHERE vessel = ?1 AND large = 0 AND state NOT IN ('acknowledged', 'superseded')
                 UNION ALL
                 SELECT min(due_at) FROM delivery
                 WHERE vessel = ?1 AND large = 1 AND state NOT IN ('acknowledged', 'superseded'))",
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
             WHERE d.vessel = ? AND d.state = 'superseded' AND d.touched = 1 ORDER BY d.id LIMIT ?",
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
        // One that was taken up again meanwhile (its vessel came back) may have sent something new.
        sqlx::query("UPDATE delivery SET touched = 0 WHERE id = ? AND state = 'superseded'")
            .bind(delivery.0)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn is_open(&self, delivery: DeliveryId) -> Result<bool> {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM delivery WHERE id = ? AND state NOT IN ('acknowledged', 'superseded')",
        )
        .bind(delivery.0)
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
        let backlog = |row: &SqliteRow| -> Result<Backlog> {
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
        let parked = |row: &SqliteRow| -> Result<Parked> {
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
