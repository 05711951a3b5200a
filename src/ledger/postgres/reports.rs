//! Implements [`Reports`] in PostgreSQL's SQL. A query fails at once while the database is unavailable, because people
//! must not wait.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Readers, Result, link_usage, pauses, queue, rows};
use crate::ledger::{
    DeliveryHistory, DirectoryTally, Ending, Oldest, Postponed, QueueCursor, QueueFilter, QueuePage, QueueStage,
    Receipt, ReceiptPage, Reports, ShoreSeen, Summary, Tally, Trouble, VersionHistory, VesselNote,
};
use crate::names::{DirectoryName, RelPath, VesselName, display_bytes};
use crate::records::{DeliveryCost, DeliveryId, DeliveryState, LinkBytes, UtcDay, WayOf};

/// Number of milliseconds that one row of the table `retired_tally` covers: 15 minutes.
const QUARTER: i64 = 900_000;

/// Maximum number of deliveries that are examined for one page of receipts with a filter, unless the page's limit is
/// larger.
const EXAMINED: u32 = 5000;

/// Begins a read-only transaction in which all queries see the same snapshot.
const ONE_MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The columns that [`receipt`] reads.
macro_rules! receipts {
    () => {
        receipts!("delivery d")
    };
    ($deliveries:literal) => {
        concat!("SELECT d.id, d.vessel, d.acknowledged_at, coalesce(d.verified, '') AS verified, v.directory, v.path, v.size, v.digest,
             d.written_bytes, d.link_bytes, d.made_from, d.saved_bytes
         FROM ", $deliveries, " JOIN version v ON v.id = d.version WHERE d.state = 'acknowledged' ")
    };
}

/// For each vessel, the postponed delivery that is retried first.
const POSTPONED: &str = "SELECT d.vessel, v.directory, v.path, coalesce(d.reason, '') AS reason, d.due_at
     FROM (SELECT vessel FROM tally GROUP BY vessel HAVING sum(postponed) > 0) t
     CROSS JOIN LATERAL (
         SELECT f.vessel, f.version, f.reason, f.due_at FROM delivery f
         WHERE f.vessel = t.vessel AND f.parked = false AND f.failures > 0
             AND f.state NOT IN ('acknowledged', 'superseded') ORDER BY f.due_at, f.id LIMIT 1) d
     JOIN version v ON v.id = d.version ORDER BY d.vessel";

#[async_trait]
impl Reports for Readers {
    async fn shores(&self) -> Result<Vec<ShoreSeen>> {
        super::shares::seen(&self.pool()?).await
    }

    async fn summary(&self, today: i64) -> Result<Summary> {
        let mut one = self.pool()?.begin_with(ONE_MOMENT).await?;
        let tallies = sqlx::query("SELECT * FROM tally ORDER BY vessel, directory").fetch_all(&mut *one).await?;
        let directories = sqlx::query(
            "SELECT t.directory, t.waiting, t.waiting_bytes, coalesce(sum(r.files), 0)::bigint AS retired,
                 coalesce(sum(r.bytes), 0)::bigint AS retired_bytes
             FROM directory_tally t LEFT JOIN retired_tally r ON r.directory = t.directory AND r.quarter >= $1
             GROUP BY t.directory ORDER BY t.directory",
        )
        .bind(today / QUARTER)
        .fetch_all(&mut *one)
        .await?;
        let notes = sqlx::query("SELECT * FROM vessel ORDER BY name").fetch_all(&mut *one).await?;
        let oldest = sqlx::query(
            "SELECT t.vessel, v.directory, v.path, v.admitted_at
             FROM (SELECT DISTINCT vessel FROM tally WHERE waiting > 0) t
             CROSS JOIN LATERAL (
                 SELECT d.version FROM delivery d
                 WHERE d.vessel = t.vessel AND d.state NOT IN ('acknowledged', 'superseded') ORDER BY d.version LIMIT 1) d
             JOIN version v ON v.id = d.version ORDER BY t.vessel",
        )
        .fetch_all(&mut *one)
        .await?;
        let postponed = sqlx::query(POSTPONED).fetch_all(&mut *one).await?;
        let paused = pauses::paused(&mut *one, i64::MIN).await?;
        let size: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
             WHERE c.relnamespace = 'contentmonster'::regnamespace AND c.relkind = 'r'",
        )
        .fetch_one(&mut *one)
        .await?;
        one.commit().await?;
        Ok(Summary {
            tallies: tallies.iter().map(tally).collect::<Result<_>>()?,
            directories: directories.iter().map(directory_tally).collect::<Result<_>>()?,
            notes: notes.iter().map(note).collect::<Result<_>>()?,
            oldest: oldest.iter().map(oldest_of).collect::<Result<_>>()?,
            postponed: postponed.iter().map(postponed_of).collect::<Result<_>>()?,
            paused_directories: paused,
            ledger_bytes: size.cast_unsigned(),
            ledger_free_bytes: 0,
        })
    }

    async fn troubles(&self, limit: u32) -> Result<Vec<Trouble>> {
        sqlx::query(
            "SELECT d.id, d.vessel, v.directory, v.path, coalesce(d.reason, '') AS reason, d.due_at
             FROM delivery d JOIN version v ON v.id = d.version WHERE d.parked ORDER BY d.id LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool()?)
        .await?
        .iter()
        .map(trouble)
        .collect()
    }

    async fn queue(
        &self,
        vessel: &VesselName,
        stages: &[QueueStage],
        filter: &QueueFilter,
        from: Option<&QueueCursor>,
        limit: u32,
    ) -> Result<QueuePage> {
        queue::page(&self.pool()?, (vessel, stages), filter, from, limit).await
    }

    async fn latest_receipts(
        &self,
        vessel: Option<&VesselName>,
        search: Option<&str>,
        before: Option<(i64, DeliveryId)>,
        limit: u32,
    ) -> Result<ReceiptPage> {
        // Without a filter, every examined delivery belongs to the page.
        let is_filtered = vessel.is_some() || search.is_some();
        let examined = if is_filtered { EXAMINED.max(limit) } else { limit };
        let (at, id) = before.unwrap_or((i64::MAX, DeliveryId(i64::MAX)));
        let mut one = self.pool()?.begin_with(ONE_MOMENT).await?;
        let range: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT acknowledged_at, id FROM delivery
             WHERE state = 'acknowledged' AND (acknowledged_at, id) < ($1, $2)
             ORDER BY acknowledged_at DESC, id DESC LIMIT $3",
        )
        .bind(at)
        .bind(id.0)
        .bind(i64::from(examined))
        .fetch_all(&mut *one)
        .await?;
        let question = concat!(
            receipts!("unnest($1::bigint[]) WITH ORDINALITY i (id, at) JOIN delivery d ON d.id = i.id"),
            "AND ($2::text IS NULL OR d.vessel = $2) AND ($3::bytea IS NULL OR position($3 IN v.path) > 0)
             ORDER BY i.at LIMIT $4"
        );
        let rows = sqlx::query(question)
            .bind(range.iter().map(|(_, id)| *id).collect::<Vec<_>>())
            .bind(vessel.map(VesselName::as_str))
            .bind(search.map(str::as_bytes))
            .bind(i64::from(limit))
            .fetch_all(&mut *one)
            .await?;
        one.commit().await?;
        let receipts: Vec<Receipt> = rows.iter().map(receipt).collect::<Result<_>>()?;
        let is_full = receipts.len() == limit as usize;
        let last = if is_full { receipts.last().map(|last| (last.acknowledged_at, last.delivery)) } else { None };
        let examined_all = range.len() < examined as usize;
        let end = range.last().map(|(at, id)| (*at, DeliveryId(*id))).filter(|_| !examined_all);
        Ok((receipts, last.or(end)))
    }

    async fn last_receipts(&self, limit: u32) -> Result<Vec<Receipt>> {
        let question = concat!(
            receipts!(),
            "AND d.acknowledged_at IS NOT NULL ORDER BY d.acknowledged_at DESC, d.id DESC LIMIT $1"
        );
        sqlx::query(question).bind(i64::from(limit)).fetch_all(&self.pool()?).await?.iter().map(receipt).collect()
    }

    async fn receipts(&self, after: (i64, DeliveryId), limit: u32) -> Result<Vec<Receipt>> {
        let question =
            concat!(receipts!(), "AND (d.acknowledged_at, d.id) > ($1, $2) ORDER BY d.acknowledged_at, d.id LIMIT $3");
        let found = sqlx::query(question).bind(after.0).bind(after.1.0).bind(i64::from(limit));
        found.fetch_all(&self.pool()?).await?.iter().map(receipt).collect()
    }

    async fn expired(&self, after: (i64, DeliveryId), limit: u32) -> Result<Vec<Receipt>> {
        let found = sqlx::query(
            "SELECT d.id, d.vessel, d.expired_at AS acknowledged_at, '' AS verified, v.directory, v.path, v.size, v.digest,
                 d.written_bytes, d.link_bytes, d.made_from, d.saved_bytes
             FROM delivery d JOIN version v ON v.id = d.version
             WHERE d.expired_at IS NOT NULL AND (d.expired_at, d.id) > ($1, $2)
             ORDER BY d.expired_at, d.id LIMIT $3",
        )
        .bind(after.0)
        .bind(after.1.0)
        .bind(i64::from(limit));
        found.fetch_all(&self.pool()?).await?.iter().map(receipt).collect()
    }

    async fn link_bytes(&self, days: RangeInclusive<UtcDay>) -> Result<Vec<(VesselName, LinkBytes)>> {
        link_usage::sums(&self.pool()?, days).await
    }

    async fn way_bytes(&self, days: RangeInclusive<UtcDay>) -> Result<Vec<(WayOf, LinkBytes)>> {
        link_usage::way_sums(&self.pool()?, days).await
    }

    async fn history(&self, directory: &DirectoryName, path: &RelPath) -> Result<Vec<VersionHistory>> {
        let mut one = self.pool()?.begin_with(ONE_MOMENT).await?;
        let versions = sqlx::query(concat!(
            "SELECT ",
            rows::version_columns!(),
            ", v.admitted_at, v.complete, v.ended_at, v.ending, v.forgotten_at, v.processed
             FROM version v WHERE v.directory = $1 AND v.path = $2 ORDER BY v.id"
        ))
        .bind(directory.as_str())
        .bind(path.as_bytes())
        .fetch_all(&mut *one)
        .await?;
        let mut history = Vec::new();
        for row in &versions {
            let deliveries = sqlx::query("SELECT * FROM delivery WHERE version = $1 ORDER BY vessel")
                .bind(row.try_get::<i64, _>("version")?)
                .fetch_all(&mut *one)
                .await?;
            history.push(VersionHistory {
                version: rows::version(row)?,
                admitted_at: row.try_get("admitted_at")?,
                complete: row.try_get("complete")?,
                ended: ended(row)?,
                forgotten_at: row.try_get("forgotten_at")?,
                processed: rows::optional_path(row, "processed")?,
                deliveries: deliveries.iter().map(delivery).collect::<Result<_>>()?,
            });
        }
        one.commit().await?;
        Ok(history)
    }
}

fn tally(row: &PgRow) -> Result<Tally> {
    Ok(Tally {
        vessel: rows::vessel(row, "vessel")?,
        directory: rows::directory(row)?,
        waiting: rows::number(row, "waiting")?,
        waiting_bytes: rows::number(row, "waiting_bytes")?,
        parked: rows::number(row, "parked")?,
        postponed: rows::number(row, "postponed")?,
        acknowledged: rows::number(row, "acknowledged")?,
        expired: rows::number(row, "expired")?,
        acknowledged_bytes: rows::number(row, "acknowledged_bytes")?,
        acknowledged_at: row.try_get("acknowledged_at")?,
    })
}

fn directory_tally(row: &PgRow) -> Result<DirectoryTally> {
    Ok(DirectoryTally {
        directory: rows::directory(row)?,
        waiting: rows::number(row, "waiting")?,
        waiting_bytes: rows::number(row, "waiting_bytes")?,
        retired: rows::number(row, "retired")?,
        retired_bytes: rows::number(row, "retired_bytes")?,
    })
}

fn note(row: &PgRow) -> Result<VesselNote> {
    let (at, reason): (Option<i64>, Option<String>) = (row.try_get("away_at")?, row.try_get("away_reason")?);
    Ok(VesselNote {
        vessel: rows::vessel(row, "name")?,
        paused_at: row.try_get("paused_at")?,
        paused_until: row.try_get("paused_until")?,
        pause_note: row.try_get("pause_note")?,
        away: at.map(|at| (at, reason.unwrap_or_default())),
        shell_refusal: row.try_get("shell_refusal")?,
        path: row
            .try_get::<Option<i64>, _>("path_at")?
            .zip(row.try_get::<Option<i64>, _>("path_rate")?)
            .map(|(at, rate)| (at, rate.cast_unsigned())),
    })
}

fn oldest_of(row: &PgRow) -> Result<Oldest> {
    Ok(Oldest {
        vessel: rows::vessel(row, "vessel")?,
        directory: rows::directory(row)?,
        path: rows::rel_path(row)?,
        admitted_at: row.try_get("admitted_at")?,
    })
}

fn postponed_of(row: &PgRow) -> Result<Postponed> {
    Ok(Postponed {
        vessel: rows::vessel(row, "vessel")?,
        directory: rows::directory(row)?,
        path: rows::rel_path(row)?,
        reason: row.try_get("reason")?,
        due_at: row.try_get("due_at")?,
    })
}

fn trouble(row: &PgRow) -> Result<Trouble> {
    Ok(Trouble {
        delivery: DeliveryId(row.try_get("id")?),
        vessel: rows::vessel(row, "vessel")?,
        directory: rows::directory(row)?,
        path: rows::rel_path(row)?,
        reason: row.try_get("reason")?,
        due_at: row.try_get("due_at")?,
    })
}

fn receipt(row: &PgRow) -> Result<Receipt> {
    Ok(Receipt {
        delivery: DeliveryId(row.try_get("id")?),
        vessel: rows::vessel(row, "vessel")?,
        directory: rows::directory(row)?,
        path: rows::rel_path(row)?,
        size: rows::number(row, "size")?,
        digest: rows::digest(row)?,
        acknowledged_at: row.try_get::<Option<i64>, _>("acknowledged_at")?.unwrap_or_default(),
        verified: row.try_get("verified")?,
        cost: cost(row)?,
        made_from: made_from(row)?,
        saved_bytes: row.try_get::<Option<i64>, _>("saved_bytes")?.map(i64::cast_unsigned),
    })
}

fn ended(row: &PgRow) -> Result<Option<(i64, Ending)>> {
    let Some(at) = row.try_get::<Option<i64>, _>("ended_at")? else { return Ok(None) };
    let ending = match row.try_get::<Option<&str>, _>("ending")?.unwrap_or_default() {
        "superseded" => Ending::Superseded,
        "vanished" => Ending::Vanished,
        "retired" => Ending::Retired,
        "expired" => Ending::Expired,
        other => return Err(rows::corrupt(format_args!("unknown ending {other:?}"))),
    };
    Ok(Some((at, ending)))
}

fn delivery(row: &PgRow) -> Result<DeliveryHistory> {
    let (at, verified): (Option<i64>, Option<String>) = (row.try_get("acknowledged_at")?, row.try_get("verified")?);
    Ok(DeliveryHistory {
        id: DeliveryId(row.try_get("id")?),
        vessel: rows::vessel(row, "vessel")?,
        state: match row.try_get::<Option<i64>, _>("expired_at")? {
            Some(_) => DeliveryState::Expired,
            None => rows::state(row)?,
        },
        failures: rows::small(row, "failures")?,
        due_at: row.try_get("due_at")?,
        expires_at: row.try_get("expires_at")?,
        expired_at: row.try_get("expired_at")?,
        reason: row.try_get("reason")?,
        parked: row.try_get("parked")?,
        acknowledged: at.map(|at| (at, verified.unwrap_or_default())),
        cost: cost(row)?,
        made_from: made_from(row)?,
        saved_bytes: row.try_get::<Option<i64>, _>("saved_bytes")?.map(i64::cast_unsigned),
    })
}

fn made_from(row: &PgRow) -> Result<Option<String>> {
    Ok(row.try_get::<Option<&[u8]>, _>("made_from")?.map(|file| display_bytes(file).to_string()))
}

fn cost(row: &PgRow) -> Result<Option<DeliveryCost>> {
    let (written, link): (Option<i64>, Option<i64>) = (row.try_get("written_bytes")?, row.try_get("link_bytes")?);
    Ok(written.map(|written| DeliveryCost { written: written.cast_unsigned(), link: link.map(i64::cast_unsigned) }))
}
