//! The queries for [`QueuePage`]s. They go through the index in whose order [`super::due`] hands out deliveries, and
//! examine a limited number of rows, so that an answer costs the same however many deliveries are open. Deliveries of
//! directories with a queue of their own (see [`super::queues`]) are sorted by the time when they are due, too, which
//! costs a pass over them.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqlitePool};

use super::{Result, rows};
use crate::ledger::{QueueFilter, QueuePage, QueuePosition, QueueState, Queued};
use crate::names::{DirectoryName, VesselName};
use crate::records::{DeliveryId, VersionId};

/// Maximum number of deliveries that one answer examines.
const EXAMINED: u32 = 5000;

/// The deliveries of one index range after a place, in its order. `$index` is the index, `$range` what its first columns
/// are equal to.
macro_rules! range {
    ($index:literal, $range:literal) => {
        concat!(
            "SELECT id, due_at FROM (SELECT id, due_at FROM delivery INDEXED BY ",
            $index,
            " WHERE vessel = ?1 AND ",
            $range,
            " AND state NOT IN ('acknowledged', 'superseded') AND (due_at, id) > (?2, ?3)
              ORDER BY due_at, id LIMIT ?4)"
        )
    };
}

/// Small and large files are two ranges, each in the order in which it is sent. The third range is sorted.
pub(super) const ALL: &str = concat!(
    range!("delivery_open", "queue IS NULL AND large = 0"),
    " UNION ALL ",
    range!("delivery_open", "queue IS NULL AND large = 1"),
    " UNION ALL ",
    range!("delivery_queue", "queue IS NOT NULL"),
    " ORDER BY due_at, id LIMIT ?4"
);
pub(super) const PUT_OFF: &str = range!("delivery_failed", "parked = 0 AND failures > 0");
pub(super) const PARKED: &str = range!("delivery_failed", "parked = 1 AND failures > 0");

/// The open deliveries of the versions whose numbers are given as a JSON array.
const OF_VERSIONS: &str =
    "SELECT d.id, d.due_at FROM json_each(?5) i CROSS JOIN delivery d ON d.version = i.value AND d.vessel = ?1
     WHERE d.state NOT IN ('acknowledged', 'superseded') AND (d.due_at, d.id) > (?2, ?3)
     ORDER BY d.due_at, d.id LIMIT ?4";

/// The deliveries whose numbers are given as a JSON array, in its order, as far as they match the filter: directory, part of
/// the path, never failed.
const ENTRIES: &str =
    "SELECT d.id, d.due_at, d.state, d.failures, d.reason, d.parked, v.id AS version, v.directory, v.path,
     v.kind, v.size, v.admitted_at
 FROM json_each(?1) i CROSS JOIN delivery d ON d.id = i.value CROSS JOIN version v ON v.id = d.version
 WHERE (?2 IS NULL OR v.directory = ?2) AND (?3 IS NULL OR instr(v.path, ?3) > 0) AND (NOT ?4 OR d.failures = 0)
 ORDER BY i.key LIMIT ?5";

pub(super) async fn page(
    readers: &SqlitePool,
    vessel: &VesselName,
    filter: &QueueFilter,
    after: Option<QueuePosition>,
    limit: u32,
) -> Result<QueuePage> {
    let question = match (&filter.versions, filter.state) {
        (Some(_), _) => OF_VERSIONS,
        (None, None | Some(QueueState::Waiting)) => ALL,
        (None, Some(QueueState::PutOff)) => PUT_OFF,
        (None, Some(QueueState::Parked)) => PARKED,
    };
    let selective = filter.directory.is_some() || filter.search.is_some() || filter.state == Some(QueueState::Waiting);
    let examined = if selective { EXAMINED.max(limit) } else { limit };
    let after = after.unwrap_or(QueuePosition { due_at: i64::MIN, delivery: DeliveryId(i64::MIN) });
    let mut one = readers.begin().await?;
    let mut range =
        sqlx::query_as(question).bind(vessel.as_str()).bind(after.due_at).bind(after.delivery.0).bind(examined);
    if let Some(versions) = &filter.versions {
        range = range.bind(super::json::numbers(versions.iter().map(|version| version.0)));
    }
    let range: Vec<(i64, i64)> = range.fetch_all(&mut *one).await?;
    let whole = range.len() < examined as usize;
    // One more than wanted shows whether there are more.
    let rows = sqlx::query(ENTRIES)
        .bind(super::json::numbers(range.iter().map(|(id, _)| *id)))
        .bind(filter.directory.as_ref().map(DirectoryName::as_str))
        .bind(filter.search.as_ref().map(String::as_bytes))
        .bind(filter.state == Some(QueueState::Waiting))
        .bind(limit.saturating_add(1))
        .fetch_all(&mut *one)
        .await?;
    let entries: Vec<Queued> = rows.iter().take(limit as usize).map(queued).collect::<Result<_>>()?;
    let next = if rows.len() > entries.len() {
        entries.last().map(|last| last.position)
    } else {
        let last = range.last().map(|(id, due_at)| QueuePosition { due_at: *due_at, delivery: DeliveryId(*id) });
        last.filter(|_| !whole)
    };
    Ok(QueuePage { entries, next })
}

fn queued(row: &SqliteRow) -> Result<Queued> {
    Ok(Queued {
        position: QueuePosition { due_at: row.try_get("due_at")?, delivery: DeliveryId(row.try_get("id")?) },
        version: VersionId(row.try_get("version")?),
        directory: rows::directory(row)?,
        path: rows::rel_path(row)?,
        kind: rows::kind(row)?,
        size: row.try_get::<i64, _>("size")?.cast_unsigned(),
        admitted_at: row.try_get("admitted_at")?,
        progress: rows::state(row)?,
        failures: row.try_get("failures")?,
        reason: row.try_get("reason")?,
        parked: row.try_get("parked")?,
    })
}
