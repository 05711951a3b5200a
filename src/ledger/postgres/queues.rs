//! Implements [`Queues`] in PostgreSQL's SQL.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::due::{self, due_columns, waits_for_no_move};
use super::ranks::{expires_at, rank};
use super::transitions::settle;
use super::{Postgres, Result, rows};
use crate::ledger::{ExpiredDelivery, QueueEnd, QueueSettings, Queues};
use crate::names::{DirectoryName, VesselName};
use crate::records::{Delivery, VersionId};

/// Returns whether deliveries of a directory must still be moved to its queue.
pub(super) async fn is_unsettled(store: &Postgres, directory: &DirectoryName) -> Result<bool> {
    let unsettled = store.lasting(|pools| async move {
        let statement = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM queue WHERE directory = $1 AND NOT settled)");
        Ok(statement.bind(directory.as_str()).fetch_one(&pools.readers).await?)
    });
    unsettled.await
}

/// Moves the deliveries of `versions` to the directory's own queue, or to the shared queue if the directory has none
/// (`ordering` is null).
pub(super) async fn requeue(transaction: &mut PgConnection, directory: &DirectoryName, versions: &[i64]) -> Result<()> {
    sqlx::query(concat!(
        "UPDATE delivery d SET queue = CASE WHEN q.ordering IS NOT NULL THEN q.directory END,
             rank = CASE WHEN d.failures = 0 THEN ",
        rank!(),
        " END, expires_at = ",
        expires_at!(),
        " FROM version v, queue q
         WHERE v.id = d.version AND q.directory = $2 AND d.version = ANY ($1) AND d.state <> 'superseded'"
    ))
    .bind(versions)
    .bind(directory.as_str())
    .execute(&mut *transaction)
    .await?;
    Ok(())
}

/// Records that [`requeue`] has moved all deliveries of a directory. Deletes the queue of a directory that uses the
/// shared queue now.
pub(super) async fn settled(store: &Postgres, directory: &DirectoryName) -> Result<()> {
    let settled = store.lasting(|pools| async move {
        let mut write = pools.begin().await?;
        for statement in [
            "DELETE FROM queue WHERE directory = $1 AND ordering IS NULL",
            "UPDATE queue SET settled = true WHERE directory = $1 AND NOT settled",
        ] {
            sqlx::query(statement).bind(directory.as_str()).execute(&mut *write).await?;
        }
        write.commit().await
    });
    settled.await
}

/// The query for the due deliveries of a queue. `$rank` is a condition for the rank, `$order` the order.
macro_rules! due_in {
    ($rank:literal, $order:literal) => {
        concat!(
            due_columns!(),
            " FROM delivery d JOIN version v ON v.id = d.version
             WHERE d.vessel = $1 AND d.queue = $2 AND d.large = $4 AND d.rank ",
            $rank,
            " AND d.due_at <= $3 AND d.queue IS NOT NULL AND d.state NOT IN ('acknowledged', 'superseded') AND ",
            waits_for_no_move!(),
            " ORDER BY ",
            $order,
            " LIMIT $5"
        )
    };
}

#[async_trait]
impl Queues for Postgres {
    async fn set_queue(&self, directory: &DirectoryName, settings: Option<QueueSettings>) -> Result<()> {
        let expire = settings.and_then(|settings| settings.expire).map(milliseconds);
        let insert = "INSERT INTO queue AS q (directory, ordering, expire) VALUES ($1, $2, $3)
             ON CONFLICT (directory) DO UPDATE SET ordering = $2, expire = $3, settled = false
                 WHERE q.ordering IS DISTINCT FROM $2 OR q.expire IS DISTINCT FROM $3";
        let update = "UPDATE queue SET ordering = $2, expire = $3, settled = false
             WHERE directory = $1 AND (ordering IS DISTINCT FROM $2 OR expire IS DISTINCT FROM $3)";
        let set = self.lasting(|pools| {
            let statement = sqlx::query(if settings.is_some() { insert } else { update })
                .bind(directory.as_str())
                .bind(settings.map(|settings| settings.order.as_str()))
                .bind(expire);
            async move { pools.write_one(statement).await.map(drop) }
        });
        set.await
    }

    async fn release_queues(&self, keep: &[DirectoryName]) -> Result<()> {
        let keep = &rows::directories(keep);
        let released = self.lasting(|pools| async move {
            let mut write = pools.begin().await?;
            let released: Vec<String> = sqlx::query_scalar("SELECT directory FROM queue WHERE directory <> ALL ($1)")
                .bind(keep)
                .fetch_all(&mut *write)
                .await?;
            for directory in released {
                for statement in [
                    "UPDATE delivery SET queue = NULL, rank = NULL, expires_at = NULL
                     WHERE vessel = ANY (ARRAY(SELECT vessel FROM tally WHERE directory = $1)) AND queue = $1
                       AND queue IS NOT NULL AND large = ANY ('{f,t}') AND state NOT IN ('acknowledged', 'superseded')",
                    "DELETE FROM queue WHERE directory = $1",
                ] {
                    sqlx::query(statement).bind(&directory).execute(&mut *write).await?;
                }
            }
            write.commit().await
        });
        released.await
    }

    async fn next_due_in(
        &self,
        vessel: &VesselName,
        queue: &DirectoryName,
        large: bool,
        limit: u32,
        end: QueueEnd,
    ) -> Result<Vec<Delivery>> {
        const FRONT: &str = due_in!("IS NOT NULL", "d.rank, d.due_at, d.id");
        const BACK: &str = due_in!("IS NOT NULL", "d.rank DESC, d.due_at DESC, d.id DESC");
        const WITHOUT_RANK: &str = due_in!("IS NULL", "d.due_at, d.id");
        let (now, mut found) = (due::now(self).await?, Vec::new());
        let in_order = if end == QueueEnd::Front { [FRONT, WITHOUT_RANK] } else { [WITHOUT_RANK, BACK] };
        for question in in_order {
            let left = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            if left == 0 {
                break;
            }
            let due = self.lasting(|pools| async move {
                let statement = sqlx::query(question)
                    .bind(vessel.as_str())
                    .bind(queue.as_str())
                    .bind(now)
                    .bind(large)
                    .bind(i64::from(left));
                Ok(statement.fetch_all(&pools.readers).await?)
            });
            for row in &due.await? {
                found.push(due::delivery(row)?);
            }
        }
        Ok(found)
    }

    async fn next_due_at_in(&self, vessel: &VesselName, queue: &DirectoryName) -> Result<Option<i64>> {
        /// Reads the due time of the earliest delivery without a rank and of one with a rank. Any delivery with a rank
        /// will do, because all of them are due already.
        const QUESTION: &str = "SELECT min(due_at) FROM unnest('{f,t}'::bool[]) size (large), LATERAL (
                 (SELECT d.due_at FROM delivery d
                     WHERE d.vessel = $1 AND d.queue = $2 AND d.large = size.large AND d.rank IS NULL
                       AND d.queue IS NOT NULL AND d.state NOT IN ('acknowledged', 'superseded')
                     ORDER BY d.due_at, d.id LIMIT 1)
                 UNION ALL
                 (SELECT d.due_at FROM delivery d
                     WHERE d.vessel = $1 AND d.queue = $2 AND d.large = size.large AND d.rank IS NOT NULL
                       AND d.queue IS NOT NULL AND d.state NOT IN ('acknowledged', 'superseded')
                     ORDER BY d.rank, d.due_at, d.id LIMIT 1)) first";
        due::now(self).await?;
        let due = self.lasting(|pools| async move {
            let statement = sqlx::query_scalar(QUESTION).bind(vessel.as_str()).bind(queue.as_str());
            Ok(statement.fetch_one(&pools.readers).await?)
        });
        due.await
    }

    async fn expire(&self, directory: &DirectoryName, until: i64, limit: u32) -> Result<Vec<ExpiredDelivery>> {
        let (now, doubt) = (self.now(), &super::doubt::Doubt::new());
        let expired = self.lasting(|pools| async move {
            if let Some(expired) = doubt.resolved(&pools).await? {
                return Ok(expired);
            }
            let mut write = pools.begin().await?;
            let expired = expire(&mut write, directory, (until, now), limit).await?;
            doubt.commit(write, expired).await
        });
        expired.await
    }

    async fn next_expiry(&self, directory: &DirectoryName) -> Result<Option<i64>> {
        let next = self.lasting(|pools| async move {
            let statement = sqlx::query_scalar(
                "SELECT min(expires_at) FROM delivery
                 WHERE queue = $1 AND expires_at IS NOT NULL AND state NOT IN ('acknowledged', 'superseded')",
            );
            Ok(statement.bind(directory.as_str()).fetch_one(&pools.readers).await?)
        });
        next.await
    }

    async fn has_expired(&self, directory: &DirectoryName) -> Result<bool> {
        let expired = self.lasting(|pools| async move {
            let statement =
                sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM tally WHERE directory = $1 AND expired > 0)");
            Ok(statement.bind(directory.as_str()).fetch_one(&pools.readers).await?)
        });
        expired.await
    }

    async fn unreceived(&self, versions: &[VersionId]) -> Result<Vec<VersionId>> {
        let versions: &Vec<i64> = &versions.iter().map(|version| version.0).collect();
        let ids = self.lasting(|pools| async move {
            let statement = sqlx::query_scalar(
                "SELECT i.id FROM unnest($1::bigint[]) WITH ORDINALITY i (id, at)
                 WHERE NOT EXISTS (SELECT 1 FROM delivery d WHERE d.version = i.id AND d.state = 'acknowledged')
                 ORDER BY i.at",
            );
            Ok(statement.bind(versions).fetch_all(&pools.readers).await?)
        });
        let ids: Vec<i64> = ids.await?;
        Ok(ids.into_iter().map(VersionId).collect())
    }
}

async fn expire(
    transaction: &mut PgConnection,
    directory: &DirectoryName,
    (until, now): (i64, i64),
    limit: u32,
) -> Result<Vec<ExpiredDelivery>> {
    let expired = sqlx::query(
        "SELECT d.id, d.vessel, v.path, d.expires_at FROM delivery d JOIN version v ON v.id = d.version
         WHERE d.queue = $1 AND d.expires_at <= $2 AND d.expires_at IS NOT NULL
           AND d.state NOT IN ('acknowledged', 'superseded') AND d.state <> 'publishing'
         ORDER BY d.expires_at, d.id LIMIT $3",
    )
    .bind(directory.as_str())
    .bind(until)
    .bind(i64::from(limit))
    .fetch_all(&mut *transaction)
    .await?;
    let ids = rows::ids(&expired)?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query(
        "UPDATE delivery SET state = 'superseded', parked = false, expired_at = $2
         WHERE id = ANY ($1) AND state NOT IN ('acknowledged', 'superseded')",
    )
    .bind(&ids)
    .bind(now)
    .execute(&mut *transaction)
    .await?;
    settle(transaction, &ids, now).await?;
    let expired_delivery = |row: &PgRow| -> Result<ExpiredDelivery> {
        Ok(ExpiredDelivery {
            vessel: rows::vessel(row, "vessel")?,
            path: rows::rel_path(row)?,
            expired_at: row.try_get("expires_at")?,
        })
    };
    expired.iter().map(expired_delivery).collect()
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4)
}
