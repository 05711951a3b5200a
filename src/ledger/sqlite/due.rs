//! Queries for due deliveries, and the correction of due times when the clock is set back.
//!
//! Due times are stored as time of day. A person, NTP, or a host that starts without a clock may set the clock back,
//! and deliveries would then be due late by the length of this step. So a query for due deliveries detects the step and
//! moves future due times earlier by the same amount. A step forward is harmless, because it merely ends waits early.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqlitePool};

use super::{Result, Sqlite, json, rows};
use crate::backoff::LONGEST_WAIT;
use crate::names::{DirectoryName, VesselName};
use crate::records::{Delivery, DeliveryId, Origin, PlaceNumber};

/// Steps back of the clock are ignored up to this number of milliseconds.
const SMALL_STEP: i64 = 100;

/// The columns of a delivery and its version, which [`delivery`] reads.
macro_rules! due_columns {
    () => {
        concat!(
            "SELECT d.id AS delivery, d.state, d.failures, d.due_at, d.token, d.place, d.seen_size, d.seen_mtime, ",
            "(SELECT o.path FROM version o WHERE o.id = v.moved_from) AS origin, ",
            "v.moved_from IS NOT NULL AND EXISTS (
                 SELECT 1 FROM version g WHERE g.replaces = v.moved_from AND g.kind = 'gone') AS is_free, ",
            super::rows::version_columns!()
        )
    };
}
pub(super) use due_columns;

/// Reads the [`due_columns`].
pub(super) fn delivery(row: &SqliteRow) -> Result<Delivery> {
    Ok(Delivery {
        id: DeliveryId(row.try_get("delivery")?),
        version: rows::version(row)?,
        state: rows::state(row)?,
        failures: row.try_get("failures")?,
        due_at: row.try_get("due_at")?,
        token: rows::token(row)?,
        place: PlaceNumber(row.try_get("place")?),
        seen: rows::seen(row)?,
        origin: origin(row)?,
    })
}

/// The SQL condition that a delivery `d` of a version `v` need not wait for a move on the same vessel. An entry that
/// was moved with its directory waits for the move of the directory. A version that deletes or replaces the source of a
/// move waits for this move, unless the version is a move itself, because moves may form a circle. No delivery waits
/// for a move that has failed.
macro_rules! waits_for_no_move {
    () => {
        "NOT EXISTS (SELECT 1 FROM delivery first WHERE first.version = v.waits_for AND first.vessel = d.vessel
             AND first.failures = 0 AND first.state NOT IN ('acknowledged', 'superseded'))
         AND (v.replaces IS NULL OR v.moved_from IS NOT NULL OR NOT EXISTS (
             SELECT 1 FROM version m CROSS JOIN delivery first ON first.version = m.id AND first.vessel = d.vessel
             WHERE m.moved_from IN (
                 v.replaces, (SELECT g.replaces FROM version g WHERE g.id = v.replaces AND g.kind = 'gone'))
               AND first.failures = 0
               AND first.state NOT IN ('acknowledged', 'superseded')))"
    };
}

pub(super) use waits_for_no_move;

pub(super) async fn next_due(
    store: &Sqlite,
    vessel: &VesselName,
    large: bool,
    limit: u32,
    held_back: &[DirectoryName],
) -> Result<Vec<Delivery>> {
    let now = now(store).await?;
    let rows = sqlx::query(concat!(
        due_columns!(),
        " FROM delivery d JOIN version v ON v.id = d.version
         WHERE d.vessel = ? AND d.large = ? AND d.due_at <= ? AND d.queue IS NULL
           AND d.state NOT IN ('acknowledged', 'superseded') AND v.directory NOT IN (SELECT value FROM json_each(?))
           AND ",
        waits_for_no_move!(),
        " ORDER BY d.due_at, d.id LIMIT ?"
    ))
    .bind(vessel.as_str())
    .bind(large)
    .bind(now)
    .bind(json::texts(held_back.iter().map(DirectoryName::as_str)))
    .bind(limit)
    .fetch_all(&store.readers)
    .await?;
    rows.iter().map(delivery).collect()
}

fn origin(row: &SqliteRow) -> Result<Option<Origin>> {
    let path = rows::optional_path(row, "origin")?;
    path.map(|path| Ok(Origin { path, is_free: row.try_get("is_free")? })).transpose()
}

pub(super) async fn next_due_at(
    store: &Sqlite,
    vessel: &VesselName,
    held_back: &[DirectoryName],
) -> Result<Option<i64>> {
    now(store).await?;
    if !held_back.is_empty() {
        return Ok(sqlx::query_scalar(
            // Each inner query ends at the first delivery that is not held back; `min` instead would read all
            // deliveries.
            "SELECT min(due_at) FROM (
                 SELECT * FROM (SELECT d.due_at FROM delivery d CROSS JOIN version v ON v.id = d.version
                     WHERE d.vessel = ?1 AND d.large = 0 AND d.queue IS NULL
                       AND d.state NOT IN ('acknowledged', 'superseded')
                       AND v.directory NOT IN (SELECT value FROM json_each(?2)) ORDER BY d.due_at, d.id LIMIT 1)
                 UNION ALL
                 SELECT * FROM (SELECT d.due_at FROM delivery d CROSS JOIN version v ON v.id = d.version
                     WHERE d.vessel = ?1 AND d.large = 1 AND d.queue IS NULL
                       AND d.state NOT IN ('acknowledged', 'superseded')
                       AND v.directory NOT IN (SELECT value FROM json_each(?2)) ORDER BY d.due_at, d.id LIMIT 1))",
        )
        .bind(vessel.as_str())
        .bind(json::texts(held_back.iter().map(DirectoryName::as_str)))
        .fetch_one(&store.readers)
        .await?);
    }
    // The two inner queries are one index lookup each; `min` over both values of `large` would scan all open
    // deliveries.
    Ok(sqlx::query_scalar(
        "SELECT min(due_at) FROM (
             SELECT min(due_at) AS due_at FROM delivery
             WHERE vessel = ?1 AND large = 0 AND queue IS NULL AND state NOT IN ('acknowledged', 'superseded')
             UNION ALL
             SELECT min(due_at) FROM delivery
             WHERE vessel = ?1 AND large = 1 AND queue IS NULL AND state NOT IN ('acknowledged', 'superseded'))",
    )
    .bind(vessel.as_str())
    .fetch_one(&store.readers)
    .await?)
}

/// Returns the time of day in milliseconds since 1970. If the clock was set back since the last call, corrects the due
/// times first.
pub(super) async fn now(store: &Sqlite) -> Result<i64> {
    let now = store.now();
    let mut latest = store.latest.lock().await;
    if now < *latest - SMALL_STEP {
        let milliseconds = *latest - now;
        tracing::info!(milliseconds, "The clock was set back; retries are due earlier by the same amount");
        move_back(&store.writer, now, *latest - now).await?;
        *latest = now;
    }
    *latest = now.max(*latest);
    Ok(now)
}

/// Reduces all due times after `now` by `step` milliseconds. Deliveries that never failed become due at once, and no
/// other delivery waits longer than [`LONGEST_WAIT`].
pub(super) async fn move_back(writer: &SqlitePool, now: i64, step: i64) -> Result<()> {
    let longest = i64::try_from(LONGEST_WAIT.as_millis()).unwrap_or(i64::MAX);
    let mut transaction = writer.begin().await?;
    let vessels: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT vessel FROM tally WHERE waiting > 0").fetch_all(&mut *transaction).await?;
    for vessel in vessels {
        for statement in [
            "UPDATE delivery SET due_at = min(due_at - ?3, iif(failures = 0, ?2, ?2 + ?4))
             WHERE vessel = ?1 AND large IN (0, 1) AND due_at > ?2 AND queue IS NULL
               AND state NOT IN ('acknowledged', 'superseded')",
            "UPDATE delivery SET due_at = min(due_at - ?3, iif(failures = 0, ?2, ?2 + ?4))
             WHERE vessel = ?1 AND queue IN (SELECT directory FROM queue) AND large IN (0, 1) AND due_at > ?2
               AND state NOT IN ('acknowledged', 'superseded')",
        ] {
            sqlx::query(statement).bind(&vessel).bind(now).bind(step).bind(longest).execute(&mut *transaction).await?;
        }
    }
    Ok(transaction.commit().await?)
}
