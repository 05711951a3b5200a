//! The queries for [`QueuePage`]s. They go through the indexes in whose order [`super::due`] and [`super::queues`] hand out
//! deliveries, and examine a limited number of rows, so that an answer costs the same however many deliveries are open.

use std::time::{Duration, Instant};

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row};

use super::queue_walk::{Step, Walk};
use super::{Result, rows};
use crate::ledger::{LanePlace, QueueCursor, QueueFilter, QueuePage, QueuePosition, QueueStage, QueueState, Queued};
use crate::names::{DirectoryName, VesselName};
use crate::records::{DeliveryId, VersionId};

/// Maximum number of deliveries that one answer examines, and the time after which it examines no more.
const EXAMINED: usize = 20_000;
const LONGEST: Duration = Duration::from_millis(40);
/// Number of deliveries that are examined at a time, where not all of them may be wanted.
const AT_ONCE: usize = 500;

/// The failed deliveries after a place, in the order of their next attempts.
macro_rules! failed {
    ($parked:literal) => {
        concat!(
            "SELECT id, due_at FROM delivery WHERE vessel = $1 AND parked = ",
            $parked,
            " AND failures > 0 AND state NOT IN ('acknowledged', 'superseded') AND (due_at, id) > ($2, $3)
              ORDER BY due_at, id LIMIT $4"
        )
    };
}

const PUT_OFF: &str = failed!("false");
const PARKED: &str = failed!("true");

/// The open deliveries of the versions with the numbers `$5`.
const OF_VERSIONS: &str = "SELECT d.id, d.due_at FROM delivery d WHERE d.version = ANY ($5) AND d.vessel = $1
     AND d.state NOT IN ('acknowledged', 'superseded') AND (d.due_at, d.id) > ($2, $3)
     ORDER BY d.due_at, d.id LIMIT $4";

/// The deliveries with the ids `$1`, in that order, that match the filter: one directory (`$2`), a part of the path (`$3`),
/// never failed (`$4`), one of several directories (`$5`). `place` is the index of the id in `$1`.
const ENTRIES: &str =
    "SELECT i.at - 1 AS place, d.id, d.due_at, d.state, d.failures, d.reason, d.parked, v.id AS version, v.directory,
     v.path, v.kind, v.size, v.admitted_at
 FROM unnest($1::bigint[]) WITH ORDINALITY i (id, at) JOIN delivery d ON d.id = i.id JOIN version v ON v.id = d.version
 WHERE ($2::text IS NULL OR v.directory = $2) AND ($3::bytea IS NULL OR position($3 IN v.path) > 0)
   AND (NOT $4 OR d.failures = 0) AND ($5::text[] IS NULL OR v.directory = ANY ($5))
 ORDER BY i.at";

/// Where the deliveries come from.
enum Source {
    Walk(Walk),
    /// The deliveries that one query returns, after a position.
    Query {
        question: &'static str,
        versions: Vec<i64>,
        after: QueuePosition,
    },
}

pub(super) async fn page(
    readers: &PgPool,
    (vessel, stages): (&VesselName, &[QueueStage]),
    filter: &QueueFilter,
    from: Option<&QueueCursor>,
    limit: u32,
) -> Result<QueuePage> {
    let (limit, begun) = (limit as usize, Instant::now());
    let question = match (&filter.versions, filter.state) {
        (Some(_), _) => Some(OF_VERSIONS),
        (None, None | Some(QueueState::Waiting)) => None,
        (None, Some(QueueState::PutOff)) => Some(PUT_OFF),
        (None, Some(QueueState::Parked)) => Some(PARKED),
    };
    let mut one = readers.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut source = match question {
        Some(question) => {
            let numbers = filter.versions.iter().flatten().map(|version| version.0);
            let start = QueuePosition { due_at: i64::MIN, delivery: DeliveryId(i64::MIN) };
            let after = from.and_then(|from| from.lanes.first()?.as_ref()).map_or(start, LanePlace::position);
            Source::Query { question, versions: numbers.collect(), after }
        }
        None => Source::Walk(Walk::begin(&mut one, vessel, stages, filter.directory.as_ref(), from).await?),
    };
    let is_selective = filter.directory.is_some()
        || filter.among.is_some()
        || filter.search.is_some()
        || filter.state == Some(QueueState::Waiting);
    let (mut entries, mut examined, mut cursor) = (Vec::new(), 0, from.cloned().unwrap_or_default());
    loop {
        let missing = limit - entries.len();
        // The first look is a small one, because mostly everything matches.
        let batch = if is_selective && examined > 0 { AT_ONCE.max(missing + 1) } else { missing + 1 };
        let steps = source.next(&mut one, vessel, batch).await?;
        examined += steps.len();
        for (at, entry) in matching(&mut one, &steps, filter).await? {
            if entries.len() == limit {
                // There is one more than was wanted.
                pass(&mut cursor, &steps[..at]);
                return Ok(QueuePage { entries, next: Some(cursor) });
            }
            entries.push(entry);
        }
        if steps.len() < batch {
            return Ok(QueuePage { entries, next: None });
        }
        pass(&mut cursor, &steps);
        if examined >= EXAMINED || begun.elapsed() >= LONGEST {
            return Ok(QueuePage { entries, next: Some(cursor) });
        }
    }
}

fn pass(cursor: &mut QueueCursor, steps: &[Step]) {
    steps.iter().for_each(|step| cursor.pass(step.stage, step.lane, step.place.clone()));
}

impl Source {
    /// Returns the next places, at most `most`; fewer at the end.
    async fn next(&mut self, one: &mut PgConnection, vessel: &VesselName, most: usize) -> Result<Vec<Step>> {
        match self {
            Self::Walk(walk) => {
                let mut steps = Vec::with_capacity(most);
                while steps.len() < most
                    && let Some(step) = walk.next(one).await?
                {
                    steps.push(step);
                }
                Ok(steps)
            }
            Self::Query { question, versions, after } => {
                let range = sqlx::query_as(*question).bind(vessel.as_str()).bind(after.due_at).bind(after.delivery.0);
                // Only one of the questions has a fifth parameter.
                let range = range.bind(i64::try_from(most).unwrap_or(i64::MAX));
                let range = if *question == OF_VERSIONS { range.bind(&*versions) } else { range };
                let found: Vec<(i64, i64)> = range.fetch_all(one).await?;
                let place = |(id, due_at)| QueuePosition { due_at, delivery: DeliveryId(id) };
                let found: Vec<QueuePosition> = found.into_iter().map(place).collect();
                *after = found.last().copied().unwrap_or(*after);
                Ok(found.into_iter().map(|at| Step { stage: 0, lane: 0, place: LanePlace::ByTime(at) }).collect())
            }
        }
    }
}

/// Returns those of the deliveries that match a filter, each with its place among the steps.
async fn matching(one: &mut PgConnection, steps: &[Step], filter: &QueueFilter) -> Result<Vec<(usize, Queued)>> {
    let rows = sqlx::query(ENTRIES)
        .bind(steps.iter().map(|step| step.place.position().delivery.0).collect::<Vec<_>>())
        .bind(filter.directory.as_ref().map(DirectoryName::as_str))
        .bind(filter.search.as_ref().map(String::as_bytes))
        .bind(filter.state == Some(QueueState::Waiting))
        .bind(filter.among.as_ref().map(|names| names.iter().map(DirectoryName::as_str).collect::<Vec<_>>()))
        .fetch_all(one)
        .await?;
    let with_place = |row| Ok((usize::try_from(row_place(row)?).unwrap_or(usize::MAX), queued(row)?));
    rows.iter().map(with_place).collect()
}

fn row_place(row: &PgRow) -> Result<i64> {
    Ok(row.try_get("place")?)
}

fn queued(row: &PgRow) -> Result<Queued> {
    Ok(Queued {
        position: QueuePosition { due_at: row.try_get("due_at")?, delivery: DeliveryId(row.try_get("id")?) },
        version: VersionId(row.try_get("version")?),
        directory: rows::directory(row)?,
        path: rows::rel_path(row)?,
        kind: rows::kind(row)?,
        size: rows::number(row, "size")?,
        admitted_at: row.try_get("admitted_at")?,
        progress: rows::state(row)?,
        failures: rows::small(row, "failures")?,
        reason: row.try_get("reason")?,
        parked: row.try_get("parked")?,
    })
}
