//! Reads a vessel's queue for [`queue::page`](crate::ledger::queue). Reads pieces of the same indexes, in the same
//! order, as [`super::due`] and [`super::queues`], which return the next deliveries to send. One statement examines a
//! piece, however few of its deliveries match the filter.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::{Result, json, rows};
use crate::ledger::queue::{self, Effort, Examined, Found, Piece, QueueReader, RangeOf, Wanted};
use crate::ledger::{LanePlace, QueueCursor, QueueFilter, QueuePage, QueuePosition, QueueRank, QueueStage, Queued};
use crate::names::{DirectoryName, VesselName};
use crate::records::{DeliveryId, VersionId};

/// Examines the first `?3` deliveries of a range. Returns those that match the filter (all if `?11`), at most `?12`.
/// Then returns the `?3`-th delivery of the range once more, marked `is_last`, if the range has so many deliveries.
///
/// `$range` selects the deliveries `d`, `$rank` is their rank, `$order` their order. The filter: never failed (`?8`),
/// directory in a list (`?9`), path contains a text (`?10`).
macro_rules! piece {
    ($range:expr, $rank:literal, $order:literal) => {
        concat!(
            "SELECT id, due_at, iif(typeof(rank) = 'blob', NULL, rank) AS number, iif(typeof(rank) = 'blob', rank, NULL) AS path,
                 is_wanted, is_last FROM (
                 SELECT * FROM (
                     SELECT r.id, r.due_at, r.rank, (NOT ?8 OR r.failures = 0)
                         AND (?9 IS NULL OR v.directory IN (SELECT value FROM json_each(?9)))
                         AND (?10 IS NULL OR instr(v.path, ?10) > 0) AS is_wanted, 0 AS is_last
                     FROM (SELECT d.id, d.version, d.failures, d.due_at, ",
            $rank,
            " AS rank FROM ",
            $range,
            " ORDER BY ",
            $order,
            " LIMIT ?3) r CROSS JOIN version v ON v.id = r.version
                     WHERE is_wanted OR ?11 ORDER BY r.rank, r.due_at, r.id LIMIT ?12)
                 UNION ALL
                 SELECT * FROM (SELECT d.id, d.due_at, ",
            $rank,
            ", 0, 1 FROM ",
            $range,
            " ORDER BY ",
            $order,
            " LIMIT 1 OFFSET ?3 - 1))"
        )
    };
}

/// The open deliveries that follow a given position in a queue, read from the index `$index`. `?6` is the latest due
/// time of deliveries without a rank, and `?13` is the rank at the position.
macro_rules! queue {
    ($index:literal, $queue:literal, $after:literal, $order:literal) => {
        piece!(
            concat!(
                "delivery d INDEXED BY ",
                $index,
                " WHERE d.vessel = ?1 AND d.large = ?2 AND ",
                $queue,
                " AND d.state NOT IN ('acknowledged', 'superseded') AND ",
                $after
            ),
            "d.rank",
            $order
        )
    };
}

/// The failed deliveries that follow a given position, ordered by the time of the next attempt.
macro_rules! failed {
    ($parked:literal) => {
        piece!(
            concat!(
                "delivery d INDEXED BY delivery_failed WHERE d.vessel = ?1 AND d.parked = ",
                $parked,
                " AND d.failures > 0 AND d.state NOT IN ('acknowledged', 'superseded') AND (d.due_at, d.id) > (?4, ?5)"
            ),
            "d.rank",
            "d.due_at, d.id"
        )
    };
}

pub(super) const SHARED: &str =
    queue!("delivery_open", "d.queue IS NULL", "(d.due_at, d.id) > (?4, ?5) AND d.due_at <= ?6", "d.due_at, d.id");
pub(super) const OWN: &str = queue!(
    "delivery_queue",
    "d.queue = ?7 AND d.rank IS NULL",
    "(d.due_at, d.id) > (?4, ?5) AND d.due_at <= ?6",
    "d.due_at, d.id"
);
pub(super) const RANKED: &str =
    queue!("delivery_queue", "d.queue = ?7", "(d.rank, d.due_at, d.id) > (?13, ?4, ?5)", "d.rank, d.due_at, d.id");
pub(super) const PUT_OFF: &str = failed!("0");
pub(super) const PARKED: &str = failed!("1");

/// The open deliveries of the versions whose numbers are given as a JSON array.
const OF_VERSIONS: &str = piece!(
    "json_each(?7) i CROSS JOIN delivery d ON d.version = i.value AND d.vessel = ?1
     WHERE d.state NOT IN ('acknowledged', 'superseded') AND (d.due_at, d.id) > (?4, ?5)",
    "NULL",
    "d.due_at, d.id"
);

/// The deliveries whose numbers are given as a JSON array, in the order of the array.
const ENTRIES: &str =
    "SELECT d.id, d.due_at, d.state, d.failures, d.reason, d.parked, v.id AS version, v.directory, v.path,
     v.kind, v.size, v.admitted_at
 FROM json_each(?1) i CROSS JOIN delivery d ON d.id = i.value CROSS JOIN version v ON v.id = d.version
 ORDER BY i.key";

pub(super) async fn page(
    readers: &SqlitePool,
    (vessel, stages): (&VesselName, &[QueueStage]),
    filter: &QueueFilter,
    from: Option<&QueueCursor>,
    limit: u32,
) -> Result<QueuePage> {
    let wanted = Wanted::of(filter);
    let directories = wanted.directories.as_deref().map(names);
    let mut transaction = readers.begin().await?;
    let mut reader = Reader { one: &mut transaction, vessel, wanted, directories };
    queue::page(&mut reader, stages, filter, from, (limit as usize, Effort::ANSWER)).await
}

fn names(directories: &[DirectoryName]) -> String {
    json::texts(directories.iter().map(DirectoryName::as_str))
}

struct Reader<'a> {
    /// A connection in a transaction, so that all pieces come from the same snapshot.
    one: &'a mut SqliteConnection,
    vessel: &'a VesselName,
    wanted: Wanted<'a>,
    /// The directories of `wanted`, as a JSON array.
    directories: Option<String>,
}

impl QueueReader for Reader<'_> {
    async fn queues(&mut self) -> Result<Vec<(DirectoryName, bool)>> {
        let queues: Vec<(String, bool)> =
            sqlx::query_as("SELECT directory, settled AND ordering IS NOT NULL FROM queue ORDER BY directory")
                .fetch_all(&mut *self.one)
                .await?;
        Ok(queues.into_iter().map(|(name, is_settled)| (DirectoryName::new(&name), is_settled)).collect())
    }

    async fn waiting(&mut self, directories: &[DirectoryName]) -> Result<u64> {
        let sum = sqlx::query_scalar(
            "SELECT coalesce(sum(waiting), 0) FROM tally
             WHERE vessel = ?1 AND directory IN (SELECT value FROM json_each(?2))",
        );
        let sum: i64 = sum.bind(self.vessel.as_str()).bind(names(directories)).fetch_one(&mut *self.one).await?;
        Ok(sum.cast_unsigned())
    }

    async fn examine(&mut self, piece: Piece<'_>) -> Result<Examined> {
        let (question, large) = match piece.range {
            RangeOf::Shared { large } => (SHARED, *large),
            RangeOf::Own { large, .. } => (OWN, *large),
            RangeOf::Ranked { large, .. } => (RANKED, *large),
            RangeOf::Failed { parked: false } => (PUT_OFF, false),
            RangeOf::Failed { parked: true } => (PARKED, false),
            RangeOf::Versions(_) => (OF_VERSIONS, false),
        };
        let queue = match piece.range {
            RangeOf::Own { queue, .. } | RangeOf::Ranked { queue, .. } => Some(queue.as_str().to_owned()),
            RangeOf::Versions(versions) => Some(json::numbers(versions.iter().map(|version| version.0))),
            RangeOf::Shared { .. } | RangeOf::Failed { .. } => None,
        };
        let QueuePosition { due_at, delivery } = piece.after.position();
        // Not every statement uses all parameters.
        let query = sqlx::query(question).bind(self.vessel.as_str()).bind(large).bind(number(piece.rows));
        let query = query.bind(due_at).bind(delivery.0).bind(piece.until).bind(queue);
        let query = query.bind(self.wanted.never_failed).bind(self.directories.as_deref());
        let query = query.bind(self.wanted.search).bind(piece.with_unwanted).bind(number(piece.most));
        let query = match piece.after {
            LanePlace::Ranked(QueueRank::Number(number), _) => query.bind(*number),
            LanePlace::Ranked(QueueRank::Path(path), _) => query.bind(path.clone()),
            LanePlace::ByTime(_) => query.bind(None::<i64>),
        };
        let (mut found, mut last) = (Vec::new(), None);
        for row in &query.fetch_all(&mut *self.one).await? {
            match row.try_get("is_last")? {
                true => last = Some(place(row)?),
                false => found.push(Found { place: place(row)?, is_wanted: row.try_get("is_wanted")? }),
            }
        }
        Ok(Examined::of(piece, found, last))
    }

    async fn entries(&mut self, deliveries: &[DeliveryId]) -> Result<Vec<Queued>> {
        let ids = json::numbers(deliveries.iter().map(|delivery| delivery.0));
        sqlx::query(ENTRIES).bind(ids).fetch_all(&mut *self.one).await?.iter().map(queued).collect()
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn place(row: &SqliteRow) -> Result<LanePlace> {
    let position = QueuePosition { due_at: row.try_get("due_at")?, delivery: DeliveryId(row.try_get("id")?) };
    let (number, path): (Option<i64>, Option<Vec<u8>>) = (row.try_get("number")?, row.try_get("path")?);
    Ok(match (number, path) {
        (_, Some(path)) => LanePlace::Ranked(QueueRank::Path(path), position),
        (Some(number), None) => LanePlace::Ranked(QueueRank::Number(number), position),
        (None, None) => LanePlace::ByTime(position),
    })
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
