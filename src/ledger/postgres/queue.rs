//! Reads a vessel's queue for [`queue::page`](crate::ledger::queue), as [`crate::ledger::sqlite`] does, except that
//! every rank is a string of bytes, see [`super::ranks`].

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row};

use super::{Result, rows};
use crate::ledger::queue::{self, Effort, Examined, Found, Piece, QueueReader, RangeOf, Wanted};
use crate::ledger::{LanePlace, QueueCursor, QueueFilter, QueuePage, QueuePosition, QueueRank, QueueStage, Queued};
use crate::names::{DirectoryName, VesselName};
use crate::records::{DeliveryId, VersionId};

/// The SQL condition that a delivery `d` matches the filter. Either the filter wants all deliveries (`$8`), or all
/// these conditions hold: `d` never failed (if `$9`), its directory is in a list (`$10`), and its path contains a text
/// (`$11`). The version of a delivery is looked up only if the filter does not want all.
macro_rules! is_wanted {
    () => {
        "$8 OR ((NOT $9 OR d.failures = 0) AND coalesce((
             SELECT ($10::text[] IS NULL OR v.directory = ANY ($10)) AND ($11::bytea IS NULL OR position($11 IN v.path) > 0)
             FROM version v WHERE v.id = d.version), false))"
    };
}

/// Examines the first `$3` deliveries of a range. Returns those that match the filter (all if `$12`), at most `$13`.
/// Then returns the `$3`-th delivery of the range once more, marked `is_last`, if the range has so many deliveries.
///
/// `$range` selects the deliveries `d`, `$rank` is their rank, `$order` their order.
macro_rules! piece {
    ($range:expr, $rank:literal, $order:literal) => {
        concat!(
            "(SELECT * FROM (SELECT d.id, d.due_at, ",
            $rank,
            " AS rank, ",
            is_wanted!(),
            " AS is_wanted, false AS is_last FROM ",
            $range,
            " ORDER BY ",
            $order,
            " LIMIT $3) d WHERE is_wanted OR $12 ORDER BY ",
            $order,
            " LIMIT $13)
             UNION ALL
             (SELECT d.id, d.due_at, ",
            $rank,
            ", false, true FROM ",
            $range,
            " ORDER BY ",
            $order,
            " LIMIT 1 OFFSET $3 - 1)"
        )
    };
}

/// The open deliveries that follow a given position in a queue. `$6` is the latest due time of deliveries without a
/// rank, and `$14` is the rank at the position.
macro_rules! queue {
    ($queue:literal, $after:literal, $order:literal) => {
        piece!(
            concat!(
                "delivery d WHERE d.vessel = $1 AND d.large = $2 AND ",
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
                "delivery d WHERE d.vessel = $1 AND d.parked = ",
                $parked,
                " AND d.failures > 0 AND d.state NOT IN ('acknowledged', 'superseded') AND (d.due_at, d.id) > ($4, $5)"
            ),
            "d.rank",
            "d.due_at, d.id"
        )
    };
}

const SHARED: &str = queue!("d.queue IS NULL", "(d.due_at, d.id) > ($4, $5) AND d.due_at <= $6", "d.due_at, d.id");
const OWN: &str = queue!(
    "d.queue = $7 AND d.queue IS NOT NULL AND d.rank IS NULL",
    "(d.due_at, d.id) > ($4, $5) AND d.due_at <= $6",
    "d.rank, d.due_at, d.id"
);
const RANKED: &str = queue!(
    "d.queue = $7 AND d.queue IS NOT NULL AND d.rank IS NOT NULL",
    "(d.rank, d.due_at, d.id) > ($14, $4, $5)",
    "d.rank, d.due_at, d.id"
);
const PUT_OFF: &str = failed!("false");
const PARKED: &str = failed!("true");

/// The open deliveries of the versions with the numbers `$15`.
const OF_VERSIONS: &str = piece!(
    "delivery d WHERE d.version = ANY ($15) AND d.vessel = $1 AND d.state NOT IN ('acknowledged', 'superseded')
     AND (d.due_at, d.id) > ($4, $5)",
    "NULL::bytea",
    "d.due_at, d.id"
);

/// The deliveries with the numbers `$1`, in the order of `$1`.
const ENTRIES: &str =
    "SELECT d.id, d.due_at, d.state, d.failures, d.reason, d.parked, v.id AS version, v.directory, v.path,
     v.kind, v.size, v.admitted_at
 FROM unnest($1::bigint[]) WITH ORDINALITY i (id, at) JOIN delivery d ON d.id = i.id JOIN version v ON v.id = d.version
 ORDER BY i.at";

pub(super) async fn page(
    readers: &PgPool,
    (vessel, stages): (&VesselName, &[QueueStage]),
    filter: &QueueFilter,
    from: Option<&QueueCursor>,
    limit: u32,
) -> Result<QueuePage> {
    let mut transaction = readers.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut reader = Reader { one: &mut transaction, vessel, wanted: Wanted::of(filter) };
    queue::page(&mut reader, stages, filter, from, (limit as usize, Effort::ANSWER)).await
}

struct Reader<'a> {
    /// A connection in a transaction, so that all pieces come from the same snapshot.
    one: &'a mut PgConnection,
    vessel: &'a VesselName,
    wanted: Wanted<'a>,
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
        let sum = "SELECT coalesce(sum(waiting), 0)::bigint FROM tally WHERE vessel = $1 AND directory = ANY ($2)";
        let sum = sqlx::query_scalar(sum).bind(self.vessel.as_str()).bind(rows::directories(directories));
        let sum: i64 = sum.fetch_one(&mut *self.one).await?;
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
            RangeOf::Own { queue, .. } | RangeOf::Ranked { queue, .. } => Some(queue.as_str()),
            RangeOf::Shared { .. } | RangeOf::Failed { .. } | RangeOf::Versions(_) => None,
        };
        // Here every rank is the key of a number or of a path, as bytes. A key is never empty, so all ranks come after
        // the empty key.
        let rank = match piece.after {
            LanePlace::Ranked(QueueRank::Path(key), _) => &key[..],
            LanePlace::Ranked(QueueRank::Number(_), _) | LanePlace::ByTime(_) => &[],
        };
        let QueuePosition { due_at, delivery } = piece.after.position();
        // Not every statement uses all parameters.
        let query = sqlx::query(question).bind(self.vessel.as_str()).bind(large).bind(number(piece.rows));
        let query = query.bind(due_at).bind(delivery.0).bind(piece.until).bind(queue);
        let query = query.bind(self.wanted.is_all()).bind(self.wanted.never_failed);
        let query = query.bind(self.wanted.directories.as_deref().map(rows::directories)).bind(self.wanted.search);
        let query = query.bind(piece.with_unwanted).bind(number(piece.most)).bind(rank);
        let query = match piece.range {
            RangeOf::Versions(versions) => query.bind(versions.iter().map(|version| version.0).collect::<Vec<_>>()),
            _ => query,
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
        let ids: Vec<i64> = deliveries.iter().map(|delivery| delivery.0).collect();
        sqlx::query(ENTRIES).bind(ids).fetch_all(&mut *self.one).await?.iter().map(queued).collect()
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn place(row: &PgRow) -> Result<LanePlace> {
    let position = QueuePosition { due_at: row.try_get("due_at")?, delivery: DeliveryId(row.try_get("id")?) };
    Ok(match row.try_get::<Option<Vec<u8>>, _>("rank")? {
        Some(key) => LanePlace::Ranked(QueueRank::Path(key), position),
        None => LanePlace::ByTime(position),
    })
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
