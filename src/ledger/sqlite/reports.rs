//! Implements [`Reports`] in SQLite's SQL. Uses reading connections only, in parallel with the writer.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Readers, Result, json, link_usage, pauses, queue, rows};
use crate::ledger::{
    DeliveryHistory, DirectoryTally, Ending, LedgerError, Oldest, Postponed, QueueCursor, QueueFilter, QueuePage,
    QueueStage, Receipt, ReceiptPage, Reports, Summary, Tally, Trouble, VersionHistory, VesselNote,
};
use crate::names::{DirectoryName, RelPath, VesselName, display_bytes};
use crate::records::{DeliveryCost, DeliveryId, DeliveryState, LinkBytes, UtcDay, WayOf};

/// Number of milliseconds that one row of the table `retired_tally` covers: 15 minutes.
const QUARTER: i64 = 900_000;

/// Maximum number of deliveries that are examined for one page of receipts with a filter, unless the page's limit is
/// larger.
const EXAMINED: u32 = 5000;

/// The columns that [`receipt`] reads.
macro_rules! receipts {
    () => {
        receipts!("delivery d")
    };
    ($deliveries:literal) => {
        concat!("SELECT d.id, d.vessel, d.acknowledged_at, coalesce(d.verified, '') AS verified, v.directory, v.path, v.size, v.digest,
             d.written_bytes, d.link_bytes, d.made_from, d.saved_bytes
         FROM ", $deliveries, " CROSS JOIN version v ON v.id = d.version WHERE d.state = 'acknowledged' ")
    };
}

/// For each vessel, the postponed delivery that is retried first.
pub(super) const POSTPONED: &str = "SELECT d.vessel, v.directory, v.path, coalesce(d.reason, '') AS reason, d.due_at
     FROM (SELECT vessel FROM tally GROUP BY vessel HAVING sum(postponed) > 0) t
     CROSS JOIN delivery d ON d.id = (
         SELECT f.id FROM delivery f INDEXED BY delivery_failed
         WHERE f.vessel = t.vessel AND f.parked = 0 AND f.failures > 0
             AND f.state NOT IN ('acknowledged', 'superseded') ORDER BY f.due_at, f.id LIMIT 1)
     CROSS JOIN version v ON v.id = d.version ORDER BY t.vessel";

#[async_trait]
impl Reports for Readers {
    async fn summary(&self, today: i64) -> Result<Summary> {
        // One transaction, so that all sums describe the same moment.
        let mut one = self.0.begin().await?;
        let tallies = sqlx::query("SELECT * FROM tally ORDER BY vessel, directory").fetch_all(&mut *one).await?;
        let directories = sqlx::query(
            "SELECT t.directory, t.waiting, t.waiting_bytes, coalesce(sum(r.files), 0) AS retired,
                 coalesce(sum(r.bytes), 0) AS retired_bytes
             FROM directory_tally t LEFT JOIN retired_tally r ON r.directory = t.directory AND r.quarter >= ?
             GROUP BY t.directory ORDER BY t.directory",
        )
        .bind(today / QUARTER)
        .fetch_all(&mut *one)
        .await?;
        let notes = sqlx::query("SELECT * FROM vessel ORDER BY name").fetch_all(&mut *one).await?;
        let oldest = sqlx::query(
            "SELECT t.vessel, v.directory, v.path, v.admitted_at
             FROM (SELECT DISTINCT vessel FROM tally WHERE waiting > 0) t JOIN version v ON v.id = (
                 SELECT d.version FROM delivery d INDEXED BY delivery_oldest
                 WHERE d.vessel = t.vessel AND d.state NOT IN ('acknowledged', 'superseded') ORDER BY d.version LIMIT 1)
             ORDER BY t.vessel",
        )
        .fetch_all(&mut *one)
        .await?;
        let postponed = sqlx::query(POSTPONED).fetch_all(&mut *one).await?;
        let paused = pauses::paused(&mut *one, i64::MIN).await?;
        let size = sqlx::query(
            "SELECT page_count * page_size AS bytes, freelist_count * page_size AS free
             FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
        );
        let size = size.fetch_one(&mut *one).await?;
        Ok(Summary {
            tallies: tallies.iter().map(tally).collect::<Result<_>>()?,
            directories: directories.iter().map(directory_tally).collect::<Result<_>>()?,
            notes: notes.iter().map(note).collect::<Result<_>>()?,
            oldest: oldest.iter().map(oldest_of).collect::<Result<_>>()?,
            postponed: postponed.iter().map(postponed_of).collect::<Result<_>>()?,
            paused_directories: paused,
            ledger_bytes: number(&size, "bytes")?,
            ledger_free_bytes: number(&size, "free")?,
        })
    }

    async fn troubles(&self, limit: u32) -> Result<Vec<Trouble>> {
        sqlx::query(
            "SELECT d.id, d.vessel, v.directory, v.path, coalesce(d.reason, '') AS reason, d.due_at
             FROM delivery d CROSS JOIN version v ON v.id = d.version WHERE d.parked = 1 ORDER BY d.id LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&self.0)
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
        queue::page(&self.0, (vessel, stages), filter, from, limit).await
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
        let mut one = self.0.begin().await?;
        // This query reads only the index, which contains the ids too.
        let range: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT acknowledged_at, id FROM delivery
             WHERE state = 'acknowledged' AND acknowledged_at <= ?1 AND (acknowledged_at, id) < (?1, ?2)
             ORDER BY acknowledged_at DESC, id DESC LIMIT ?3",
        )
        .bind(at)
        .bind(id.0)
        .bind(examined)
        .fetch_all(&mut *one)
        .await?;
        let question = concat!(
            "WITH examined AS (SELECT key, value FROM json_each(?1)) ",
            receipts!("examined i CROSS JOIN delivery d ON d.id = i.value"),
            "AND (?2 IS NULL OR d.vessel = ?2) AND (?3 IS NULL OR instr(v.path, ?3) > 0) ORDER BY i.key LIMIT ?4"
        );
        let rows = sqlx::query(question)
            .bind(json::numbers(range.iter().map(|(_, id)| *id)))
            .bind(vessel.map(VesselName::as_str))
            .bind(search.map(str::as_bytes))
            .bind(limit)
            .fetch_all(&mut *one)
            .await?;
        let receipts: Vec<Receipt> = rows.iter().map(receipt).collect::<Result<_>>()?;
        let is_full = receipts.len() == limit as usize;
        let last = if is_full { receipts.last().map(|last| (last.acknowledged_at, last.delivery)) } else { None };
        let examined_all = range.len() < examined as usize;
        let end = range.last().map(|(at, id)| (*at, DeliveryId(*id))).filter(|_| !examined_all);
        Ok((receipts, last.or(end)))
    }

    async fn last_receipts(&self, limit: u32) -> Result<Vec<Receipt>> {
        let question = concat!(receipts!(), "ORDER BY d.acknowledged_at DESC, d.id DESC LIMIT ?");
        sqlx::query(question).bind(limit).fetch_all(&self.0).await?.iter().map(receipt).collect()
    }

    async fn receipts(&self, after: (i64, DeliveryId), limit: u32) -> Result<Vec<Receipt>> {
        let question = concat!(
            receipts!(),
            "AND d.acknowledged_at >= ?1 AND (d.acknowledged_at > ?1 OR d.id > ?2)
             ORDER BY d.acknowledged_at, d.id LIMIT ?3"
        );
        let found = sqlx::query(question).bind(after.0).bind(after.1.0).bind(limit).fetch_all(&self.0).await?;
        found.iter().map(receipt).collect()
    }

    async fn expired(&self, after: (i64, DeliveryId), limit: u32) -> Result<Vec<Receipt>> {
        let found = sqlx::query(
            "SELECT d.id, d.vessel, d.expired_at AS acknowledged_at, '' AS verified, v.directory, v.path, v.size, v.digest,
                 d.written_bytes, d.link_bytes, d.made_from, d.saved_bytes
             FROM delivery d CROSS JOIN version v ON v.id = d.version
             WHERE d.expired_at IS NOT NULL AND d.expired_at >= ?1 AND (d.expired_at > ?1 OR d.id > ?2)
             ORDER BY d.expired_at, d.id LIMIT ?3",
        )
        .bind(after.0)
        .bind(after.1.0)
        .bind(limit)
        .fetch_all(&self.0)
        .await?;
        found.iter().map(receipt).collect()
    }

    async fn link_bytes(&self, days: RangeInclusive<UtcDay>) -> Result<Vec<(VesselName, LinkBytes)>> {
        link_usage::sums(&self.0, days).await
    }

    async fn way_bytes(&self, days: RangeInclusive<UtcDay>) -> Result<Vec<(WayOf, LinkBytes)>> {
        link_usage::way_sums(&self.0, days).await
    }

    async fn history(&self, directory: &DirectoryName, path: &RelPath) -> Result<Vec<VersionHistory>> {
        let mut one = self.0.begin().await?;
        let versions = sqlx::query(concat!(
            "SELECT ",
            rows::version_columns!(),
            ", v.admitted_at, v.complete, v.ended_at, v.ending, v.forgotten_at, v.processed
             FROM version v WHERE v.directory = ? AND v.path = ? ORDER BY v.id"
        ))
        .bind(directory.as_str())
        .bind(path.as_bytes())
        .fetch_all(&mut *one)
        .await?;
        let mut history = Vec::new();
        for row in &versions {
            let deliveries = sqlx::query("SELECT * FROM delivery WHERE version = ? ORDER BY vessel")
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
        Ok(history)
    }
}

fn number(row: &SqliteRow, column: &str) -> Result<u64> {
    Ok(row.try_get::<i64, _>(column)?.cast_unsigned())
}

fn vessel(row: &SqliteRow, column: &str) -> Result<VesselName> {
    Ok(VesselName::new(row.try_get(column)?))
}

fn tally(row: &SqliteRow) -> Result<Tally> {
    Ok(Tally {
        vessel: vessel(row, "vessel")?,
        directory: rows::directory(row)?,
        waiting: number(row, "waiting")?,
        waiting_bytes: number(row, "waiting_bytes")?,
        parked: number(row, "parked")?,
        postponed: number(row, "postponed")?,
        acknowledged: number(row, "acknowledged")?,
        expired: number(row, "expired")?,
        acknowledged_bytes: number(row, "acknowledged_bytes")?,
        acknowledged_at: row.try_get("acknowledged_at")?,
    })
}

fn directory_tally(row: &SqliteRow) -> Result<DirectoryTally> {
    Ok(DirectoryTally {
        directory: rows::directory(row)?,
        waiting: number(row, "waiting")?,
        waiting_bytes: number(row, "waiting_bytes")?,
        retired: number(row, "retired")?,
        retired_bytes: number(row, "retired_bytes")?,
    })
}

fn note(row: &SqliteRow) -> Result<VesselNote> {
    let (at, reason): (Option<i64>, Option<String>) = (row.try_get("away_at")?, row.try_get("away_reason")?);
    Ok(VesselNote {
        vessel: vessel(row, "name")?,
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

fn oldest_of(row: &SqliteRow) -> Result<Oldest> {
    Ok(Oldest {
        vessel: vessel(row, "vessel")?,
        directory: rows::directory(row)?,
        path: rows::rel_path(row)?,
        admitted_at: row.try_get("admitted_at")?,
    })
}

fn postponed_of(row: &SqliteRow) -> Result<Postponed> {
    Ok(Postponed {
        vessel: vessel(row, "vessel")?,
        directory: rows::directory(row)?,
        path: rows::rel_path(row)?,
        reason: row.try_get("reason")?,
        due_at: row.try_get("due_at")?,
    })
}

fn trouble(row: &SqliteRow) -> Result<Trouble> {
    Ok(Trouble {
        delivery: DeliveryId(row.try_get("id")?),
        vessel: vessel(row, "vessel")?,
        directory: rows::directory(row)?,
        path: rows::rel_path(row)?,
        reason: row.try_get("reason")?,
        due_at: row.try_get("due_at")?,
    })
}

fn receipt(row: &SqliteRow) -> Result<Receipt> {
    Ok(Receipt {
        delivery: DeliveryId(row.try_get("id")?),
        vessel: vessel(row, "vessel")?,
        directory: rows::directory(row)?,
        path: rows::rel_path(row)?,
        size: number(row, "size")?,
        digest: rows::digest(row)?,
        acknowledged_at: row.try_get::<Option<i64>, _>("acknowledged_at")?.unwrap_or_default(),
        verified: row.try_get("verified")?,
        cost: cost(row)?,
        made_from: made_from(row)?,
        saved_bytes: row.try_get::<Option<i64>, _>("saved_bytes")?.map(i64::cast_unsigned),
    })
}

fn ended(row: &SqliteRow) -> Result<Option<(i64, Ending)>> {
    let Some(at) = row.try_get::<Option<i64>, _>("ended_at")? else { return Ok(None) };
    let ending = match row.try_get::<Option<&str>, _>("ending")?.unwrap_or_default() {
        "superseded" => Ending::Superseded,
        "vanished" => Ending::Vanished,
        "retired" => Ending::Retired,
        "expired" => Ending::Expired,
        other => return Err(LedgerError::Corrupt(format!("unknown ending {other:?}"))),
    };
    Ok(Some((at, ending)))
}

fn delivery(row: &SqliteRow) -> Result<DeliveryHistory> {
    let (at, verified): (Option<i64>, Option<String>) = (row.try_get("acknowledged_at")?, row.try_get("verified")?);
    Ok(DeliveryHistory {
        id: DeliveryId(row.try_get("id")?),
        vessel: vessel(row, "vessel")?,
        state: match row.try_get::<Option<i64>, _>("expired_at")? {
            Some(_) => DeliveryState::Expired,
            None => rows::state(row)?,
        },
        failures: row.try_get("failures")?,
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

fn made_from(row: &SqliteRow) -> Result<Option<String>> {
    Ok(row.try_get::<Option<&[u8]>, _>("made_from")?.map(|file| display_bytes(file).to_string()))
}

fn cost(row: &SqliteRow) -> Result<Option<DeliveryCost>> {
    let (written, link): (Option<i64>, Option<i64>) = (row.try_get("written_bytes")?, row.try_get("link_bytes")?);
    Ok(written.map(|written| DeliveryCost { written: written.cast_unsigned(), link: link.map(i64::cast_unsigned) }))
}
