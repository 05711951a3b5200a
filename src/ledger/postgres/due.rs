//! Queries for due deliveries, and the correction of due times when the clock is set back.
//!
//! Due times are stored as time of day. If a person, NTP, or a host that starts without a clock sets the clock back,
//! deliveries would be due late by the same amount. So a query for due deliveries detects such a step and moves future
//! due times earlier by that amount. A step forward is harmless, because it merely ends waits early.

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Postgres, Result, rows};
use crate::backoff::LONGEST_WAIT;
use crate::names::{DirectoryName, VesselName};
use crate::records::{Delivery, DeliveryId, Origin, PlaceNumber};

/// Number of milliseconds up to which a step back of the clock is ignored.
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
pub(super) fn delivery(row: &PgRow) -> Result<Delivery> {
    let is_free = row.try_get("is_free")?;
    Ok(Delivery {
        id: DeliveryId(row.try_get("delivery")?),
        version: rows::version(row)?,
        state: rows::state(row)?,
        failures: rows::small(row, "failures")?,
        due_at: row.try_get("due_at")?,
        token: rows::token(row)?,
        place: PlaceNumber(row.try_get("place")?),
        seen: rows::seen(row)?,
        origin: rows::optional_path(row, "origin")?.map(|path| Origin { path, is_free }),
    })
}

/// The SQL condition that a delivery `d` of a version `v` need not wait for a move on the same vessel. An entry that
/// was moved with its directory waits for the move of the directory. A version that deletes or replaces the source of a
/// move waits for this move, unless the version is a move itself, because moves may form a circle. No delivery waits
/// for a move that has failed.
macro_rules! waits_for_no_move {
    () => {
        "NOT EXISTS (SELECT 1 FROM delivery f WHERE f.version = v.waits_for AND f.vessel = d.vessel
             AND f.failures = 0 AND f.state NOT IN ('acknowledged', 'superseded'))
         AND (v.replaces IS NULL OR v.moved_from IS NOT NULL OR NOT EXISTS (
             SELECT 1 FROM (
                 SELECT v.replaces AS id
                 UNION ALL SELECT g.replaces FROM version g WHERE g.id = v.replaces AND g.kind = 'gone') source,
             LATERAL (
                 SELECT m.id FROM version m WHERE m.moved_from = source.id AND m.moved_from IS NOT NULL OFFSET 0) m,
             LATERAL (
                 SELECT 1 FROM delivery f WHERE f.version = m.id AND f.vessel = d.vessel AND f.failures = 0
                   AND f.state NOT IN ('acknowledged', 'superseded') OFFSET 0) f))"
    };
}
pub(super) use waits_for_no_move;

/// The due deliveries to a vessel (`$1`) that have no queue of their own, of large or small files (`$2`), until a time
/// (`$3`), except those of some directories (`$4`).
pub(super) const NEXT_DUE: &str = concat!(
    due_columns!(),
    " FROM delivery d JOIN version v ON v.id = d.version
      WHERE d.vessel = $1 AND d.large = $2 AND d.due_at <= $3 AND d.queue IS NULL
        AND d.state NOT IN ('acknowledged', 'superseded') AND v.directory <> ALL ($4)
        AND ",
    waits_for_no_move!(),
    " ORDER BY d.due_at, d.id LIMIT $5"
);

/// When the next delivery to a vessel (`$1`) is due, if no directory is held back. The two inner queries are one index
/// lookup each; one query over both values of `large` would scan all open deliveries.
pub(super) const NEXT_DUE_AT: &str = "SELECT min(due_at) FROM (
    (SELECT due_at FROM delivery WHERE vessel = $1 AND NOT large AND queue IS NULL
       AND state NOT IN ('acknowledged', 'superseded') ORDER BY due_at, id LIMIT 1)
    UNION ALL
    (SELECT due_at FROM delivery WHERE vessel = $1 AND large AND queue IS NULL
       AND state NOT IN ('acknowledged', 'superseded') ORDER BY due_at, id LIMIT 1)) first";

pub(super) async fn next_due(
    store: &Postgres,
    vessel: &VesselName,
    large: bool,
    limit: u32,
    held_back: &[DirectoryName],
) -> Result<Vec<Delivery>> {
    let now = now(store).await?;
    let held_back = rows::directories(held_back);
    let due = store.lasting(|pools| {
        let statement =
            sqlx::query(NEXT_DUE).bind(vessel.as_str()).bind(large).bind(now).bind(&held_back).bind(i64::from(limit));
        async move { Ok(statement.fetch_all(&pools.repeaters).await?) }
    });
    due.await?.iter().map(delivery).collect()
}

pub(super) async fn next_due_at(
    store: &Postgres,
    vessel: &VesselName,
    held_back: &[DirectoryName],
) -> Result<Option<i64>> {
    now(store).await?;
    let held_back = rows::directories(held_back);
    let at = store.lasting(|pools| {
        let statement = match held_back.is_empty() {
            true => sqlx::query_scalar(NEXT_DUE_AT).bind(vessel.as_str()),
            false => sqlx::query_scalar(
                // Each inner query ends at the first delivery that is not held back; `min` instead would read all
                // deliveries.
                "SELECT min(due_at) FROM (
                     (SELECT d.due_at FROM delivery d JOIN version v ON v.id = d.version
                      WHERE d.vessel = $1 AND NOT d.large AND d.queue IS NULL
                        AND d.state NOT IN ('acknowledged', 'superseded') AND v.directory <> ALL ($2)
                      ORDER BY d.due_at, d.id LIMIT 1)
                     UNION ALL
                     (SELECT d.due_at FROM delivery d JOIN version v ON v.id = d.version
                      WHERE d.vessel = $1 AND d.large AND d.queue IS NULL
                        AND d.state NOT IN ('acknowledged', 'superseded') AND v.directory <> ALL ($2)
                      ORDER BY d.due_at, d.id LIMIT 1)) first",
            )
            .bind(vessel.as_str())
            .bind(&held_back),
        };
        async move { Ok(statement.fetch_one(&pools.repeaters).await?) }
    });
    at.await
}

/// Returns the time of day in milliseconds since 1970. If the clock was set back since the last call, corrects the due
/// times first.
pub(super) async fn now(store: &Postgres) -> Result<i64> {
    let now = store.now();
    let mut latest = store.latest.lock().await;
    if now < *latest - SMALL_STEP {
        let milliseconds = *latest - now;
        tracing::info!(milliseconds, "The clock was set back; retries are due earlier by the same amount");
        move_back(store, now, *latest - now).await?;
        *latest = now;
    }
    *latest = now.max(*latest);
    Ok(now)
}

/// Reduces all due times after `now` by `step` milliseconds. Deliveries that never failed become due at once, and no
/// other delivery waits longer than [`LONGEST_WAIT`].
pub(super) async fn move_back(store: &Postgres, now: i64, step: i64) -> Result<()> {
    let longest = i64::try_from(LONGEST_WAIT.as_millis()).unwrap_or(i64::MAX);
    let moved = store.lasting(|pools| async move {
        let mut write = pools.begin().await?;
        let vessels: Vec<String> =
            sqlx::query_scalar("SELECT DISTINCT vessel FROM tally WHERE waiting > 0").fetch_all(&mut *write).await?;
        for vessel in vessels {
            for statement in [
                "UPDATE delivery SET due_at = least(due_at - $3, CASE WHEN failures = 0 THEN $2 ELSE $2 + $4 END)
                 WHERE vessel = $1 AND large = ANY ('{f,t}') AND due_at > $2 AND queue IS NULL
                   AND state NOT IN ('acknowledged', 'superseded')",
                "UPDATE delivery SET due_at = least(due_at - $3, CASE WHEN failures = 0 THEN $2 ELSE $2 + $4 END)
                 WHERE vessel = $1 AND queue = ANY (ARRAY(SELECT directory FROM queue)) AND large = ANY ('{f,t}')
                   AND due_at > $2 AND queue IS NOT NULL AND state NOT IN ('acknowledged', 'superseded')",
            ] {
                sqlx::query(statement).bind(&vessel).bind(now).bind(step).bind(longest).execute(&mut *write).await?;
            }
        }
        write.commit().await
    });
    moved.await
}
