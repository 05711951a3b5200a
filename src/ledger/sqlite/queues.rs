//! Implements [`Queues`] in SQLite's SQL.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite as Db, SqlitePool, Transaction};

use super::due::{self, due_columns, waits_for_no_move};
use super::ranks::{expires_at, rank};
use super::transitions::settle;
use super::{Result, Sqlite, json, rows};
use crate::ledger::{ExpiredDelivery, QueueEnd, QueueSettings, Queues};
use crate::names::{DirectoryName, VesselName};
use crate::records::{Delivery, VersionId};

/// Returns whether deliveries of a directory must still be moved to its queue.
pub(super) async fn is_unsettled(writer: &SqlitePool, directory: &DirectoryName) -> Result<bool> {
    let unsettled: i64 = sqlx::query_scalar("SELECT count(*) FROM queue WHERE directory = ? AND settled = 0")
        .bind(directory.as_str())
        .fetch_one(writer)
        .await?;
    Ok(unsettled > 0)
}

/// Moves the deliveries of `versions`, a JSON array of numbers, to the directory's own queue, or to the shared queue if
/// the directory has none (`ordering` is null).
pub(super) async fn requeue(
    transaction: &mut Transaction<'_, Db>,
    directory: &DirectoryName,
    versions: &str,
) -> Result<()> {
    sqlx::query(concat!(
        "UPDATE delivery AS d SET queue = iif(q.ordering IS NULL, NULL, q.directory),
             rank = iif(d.failures > 0, NULL, ",
        rank!(),
        "), expires_at = ",
        expires_at!(),
        " FROM version v, queue q
         WHERE v.id = d.version AND q.directory = ?2 AND d.version IN (SELECT value FROM json_each(?1))
           AND d.state <> 'superseded'"
    ))
    .bind(versions)
    .bind(directory.as_str())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Records that [`requeue`] has moved all deliveries of a directory. Deletes the queue of a directory that uses the
/// shared queue now.
pub(super) async fn settled(writer: &SqlitePool, directory: &DirectoryName) -> Result<()> {
    let mut transaction = writer.begin().await?;
    for statement in [
        "DELETE FROM queue WHERE directory = ? AND ordering IS NULL",
        "UPDATE queue SET settled = 1 WHERE directory = ? AND settled = 0",
    ] {
        sqlx::query(statement).bind(directory.as_str()).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}

#[async_trait]
impl Queues for Sqlite {
    async fn set_queue(&self, directory: &DirectoryName, settings: Option<QueueSettings>) -> Result<()> {
        let expire = settings.and_then(|settings| settings.expire).map(milliseconds);
        let insert = "INSERT INTO queue (directory, ordering, expire) VALUES (?1, ?2, ?3)
             ON CONFLICT (directory) DO UPDATE SET ordering = ?2, expire = ?3, settled = 0
                 WHERE ordering IS NOT ?2 OR expire IS NOT ?3";
        let update = "UPDATE queue SET ordering = ?2, expire = ?3, settled = 0
             WHERE directory = ?1 AND (ordering IS NOT ?2 OR expire IS NOT ?3)";
        sqlx::query(if settings.is_some() { insert } else { update })
            .bind(directory.as_str())
            .bind(settings.map(|settings| settings.order.as_str()))
            .bind(expire)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn release_queues(&self, keep: &[DirectoryName]) -> Result<()> {
        let mut transaction = self.writer.begin().await?;
        let released: Vec<String> =
            sqlx::query_scalar("SELECT directory FROM queue WHERE directory NOT IN (SELECT value FROM json_each(?))")
                .bind(json::texts(keep.iter().map(DirectoryName::as_str)))
                .fetch_all(&mut *transaction)
                .await?;
        for directory in released {
            for statement in [
                "UPDATE delivery SET queue = NULL, rank = NULL, expires_at = NULL
                 WHERE vessel IN (SELECT vessel FROM tally WHERE directory = ?1) AND queue = ?1 AND large IN (0, 1)
                   AND state NOT IN ('acknowledged', 'superseded')",
                "DELETE FROM queue WHERE directory = ?1",
            ] {
                sqlx::query(statement).bind(&directory).execute(&mut *transaction).await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    async fn next_due_in(
        &self,
        vessel: &VesselName,
        queue: &DirectoryName,
        large: bool,
        limit: u32,
        end: QueueEnd,
    ) -> Result<Vec<Delivery>> {
        // Every number and every path is greater than -1e300. With `rank IS NOT NULL` instead, SQLite would read all
        // deliveries without a rank.
        const FRONT: &str = concat!(
            due_columns!(),
            " FROM delivery d JOIN version v ON v.id = d.version
             WHERE d.vessel = ?1 AND d.queue = ?2 AND d.large = ?4 AND d.rank > -1e300 AND d.due_at <= ?3
               AND d.state NOT IN ('acknowledged', 'superseded') AND ",
            waits_for_no_move!(),
            " ORDER BY d.rank, d.due_at, d.id LIMIT ?5"
        );
        const BACK: &str = concat!(
            due_columns!(),
            " FROM delivery d JOIN version v ON v.id = d.version
             WHERE d.vessel = ?1 AND d.queue = ?2 AND d.large = ?4 AND d.rank > -1e300 AND d.due_at <= ?3
               AND d.state NOT IN ('acknowledged', 'superseded') AND ",
            waits_for_no_move!(),
            " ORDER BY d.rank DESC, d.due_at DESC, d.id DESC LIMIT ?5"
        );
        const WITHOUT_RANK: &str = concat!(
            due_columns!(),
            " FROM delivery d JOIN version v ON v.id = d.version
             WHERE d.vessel = ?1 AND d.queue = ?2 AND d.large = ?4 AND d.rank IS NULL AND d.due_at <= ?3
               AND d.state NOT IN ('acknowledged', 'superseded') AND ",
            waits_for_no_move!(),
            " ORDER BY d.due_at, d.id LIMIT ?5"
        );
        let (now, mut found) = (due::now(self).await?, Vec::new());
        let in_order = if end == QueueEnd::Front { [FRONT, WITHOUT_RANK] } else { [WITHOUT_RANK, BACK] };
        for question in in_order {
            let left = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            if left == 0 {
                break;
            }
            let due = sqlx::query(question)
                .bind(vessel.as_str())
                .bind(queue.as_str())
                .bind(now)
                .bind(large)
                .bind(left)
                .fetch_all(&self.readers)
                .await?;
            for row in &due {
                found.push(due::delivery(row)?);
            }
        }
        Ok(found)
    }

    async fn next_due_at_in(&self, vessel: &VesselName, queue: &DirectoryName) -> Result<Option<i64>> {
        /// Reads the due time of the earliest delivery without a rank and of one with a rank. Any delivery with a rank
        /// will do, because all of them are due already.
        const QUESTION: &str = "SELECT min(due_at) FROM (
                 SELECT * FROM (SELECT d.due_at FROM delivery d
                     WHERE d.vessel = ?1 AND d.queue = ?2 AND d.large = 0 AND d.rank IS NULL
                       AND d.state NOT IN ('acknowledged', 'superseded') ORDER BY d.due_at LIMIT 1)
                 UNION ALL
                 SELECT * FROM (SELECT d.due_at FROM delivery d
                     WHERE d.vessel = ?1 AND d.queue = ?2 AND d.large = 1 AND d.rank IS NULL
                       AND d.state NOT IN ('acknowledged', 'superseded') ORDER BY d.due_at LIMIT 1)
                 UNION ALL
                 SELECT * FROM (SELECT d.due_at FROM delivery d
                     WHERE d.vessel = ?1 AND d.queue = ?2 AND d.large = 0 AND d.rank > -1e300
                       AND d.state NOT IN ('acknowledged', 'superseded') ORDER BY d.rank LIMIT 1)
                 UNION ALL
                 SELECT * FROM (SELECT d.due_at FROM delivery d
                     WHERE d.vessel = ?1 AND d.queue = ?2 AND d.large = 1 AND d.rank > -1e300
                       AND d.state NOT IN ('acknowledged', 'superseded') ORDER BY d.rank LIMIT 1))";
        due::now(self).await?;
        let due = sqlx::query_scalar(QUESTION).bind(vessel.as_str()).bind(queue.as_str());
        Ok(due.fetch_one(&self.readers).await?)
    }

    async fn expire(&self, directory: &DirectoryName, until: i64, limit: u32) -> Result<Vec<ExpiredDelivery>> {
        let now = self.now();
        let mut transaction = self.writer.begin().await?;
        let expired = sqlx::query(
            "SELECT d.id, d.vessel, v.path, d.expires_at FROM delivery d CROSS JOIN version v ON v.id = d.version
             WHERE d.queue = ? AND d.expires_at <= ? AND d.state NOT IN ('acknowledged', 'superseded')
               AND d.state <> 'publishing'
             ORDER BY d.expires_at LIMIT ?",
        )
        .bind(directory.as_str())
        .bind(until)
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await?;
        if expired.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<i64> = expired.iter().map(|row| row.try_get("id")).collect::<sqlx::Result<_>>()?;
        let ids = json::numbers(ids.into_iter());
        sqlx::query(
            "UPDATE delivery SET state = 'superseded', parked = 0, expired_at = ?2
             WHERE id IN (SELECT value FROM json_each(?1)) AND state NOT IN ('acknowledged', 'superseded')",
        )
        .bind(&ids)
        .bind(now)
        .execute(&mut *transaction)
        .await?;
        settle(&mut transaction, &ids, now).await?;
        transaction.commit().await?;
        let expired_delivery = |row: &SqliteRow| -> Result<ExpiredDelivery> {
            Ok(ExpiredDelivery {
                vessel: VesselName::new(row.try_get("vessel")?),
                path: rows::rel_path(row)?,
                expired_at: row.try_get("expires_at")?,
            })
        };
        expired.iter().map(expired_delivery).collect()
    }

    async fn next_expiry(&self, directory: &DirectoryName) -> Result<Option<i64>> {
        Ok(sqlx::query_scalar(
            "SELECT min(expires_at) FROM delivery
             WHERE queue = ? AND expires_at IS NOT NULL AND state NOT IN ('acknowledged', 'superseded')",
        )
        .bind(directory.as_str())
        .fetch_one(&self.readers)
        .await?)
    }

    async fn has_expired(&self, directory: &DirectoryName) -> Result<bool> {
        let expired: i64 = sqlx::query_scalar("SELECT coalesce(sum(expired), 0) FROM tally WHERE directory = ?")
            .bind(directory.as_str())
            .fetch_one(&self.readers)
            .await?;
        Ok(expired > 0)
    }

    async fn unreceived(&self, versions: &[VersionId]) -> Result<Vec<VersionId>> {
        let ids: Vec<i64> = sqlx::query_scalar(
            "SELECT i.value FROM json_each(?) i
             WHERE NOT EXISTS (SELECT 1 FROM delivery d WHERE d.version = i.value AND d.state = 'acknowledged')",
        )
        .bind(json::numbers(versions.iter().map(|version| version.0)))
        .fetch_all(&self.readers)
        .await?;
        Ok(ids.into_iter().map(VersionId).collect())
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4)
}
