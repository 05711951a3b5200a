//! Walks through a vessel's queue in the order in which it is sent: stage by stage, the lanes of a stage in turn, and in
//! each lane the queues merged by rank and time. Each index range is read in small pieces, as far as it is needed. The same
//! walk as in SQLite, except that all ranks are keys, see [`super::ranks`].

use std::collections::{HashSet, VecDeque};

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::Result;
use crate::ledger::{LanePlace, QueueCursor, QueueLane, QueuePosition, QueueRank, QueueStage};
use crate::names::{DirectoryName, VesselName};
use crate::records::DeliveryId;

/// Number of deliveries that are read from all ranges of a stage together at a time, and of one of them.
const AT_ONCE: usize = 512;
const PIECE: std::ops::RangeInclusive<usize> = 8..=256;

/// The deliveries of one index range after a place, in its order. `$queue` is what its queue is, `$after` the condition for
/// the place.
macro_rules! range {
    ($queue:literal, $after:literal, $order:literal) => {
        concat!(
            "SELECT id, due_at, rank FROM delivery WHERE vessel = $1 AND large = $2 AND ",
            $queue,
            " AND state NOT IN ('acknowledged', 'superseded') AND ",
            $after,
            " ORDER BY ",
            $order,
            " LIMIT $3"
        )
    };
}

const SHARED: &str = range!("queue IS NULL", "(due_at, id) > ($4, $5) AND due_at <= $6", "due_at, id");
const OWN: &str = range!(
    "queue = $7 AND queue IS NOT NULL AND rank IS NULL",
    "(due_at, id) > ($4, $5) AND due_at <= $6",
    "rank, due_at, id"
);
const RANKED: &str = range!(
    "queue = $7 AND queue IS NOT NULL AND rank IS NOT NULL",
    "(rank, due_at, id) > ($6, $4, $5)",
    "rank, due_at, id"
);

/// The delivery that is next, and the lane of the stage that it is in.
pub(super) struct Step {
    pub(super) stage: usize,
    pub(super) lane: usize,
    pub(super) place: LanePlace,
}

/// A walk through a queue.
pub(super) struct Walk {
    vessel: VesselName,
    stages: Vec<QueueStage>,
    stage: usize,
    turn: usize,
    /// The lanes of the current stage.
    lanes: Vec<Vec<Range>>,
    piece: usize,
}

/// An index range.
struct Range {
    /// `None`: the shared queue.
    queue: Option<DirectoryName>,
    large: bool,
    ranked: bool,
    /// The last place that was read.
    after: LanePlace,
    until: i64,
    read: VecDeque<LanePlace>,
    is_at_end: bool,
}

impl Walk {
    /// Begins a walk at a cursor. With `only`, queues of other directories are left out.
    pub(super) async fn begin(
        one: &mut PgConnection,
        vessel: &VesselName,
        stages: &[QueueStage],
        only: Option<&DirectoryName>,
        from: Option<&QueueCursor>,
    ) -> Result<Self> {
        let queues: Vec<(String, bool)> =
            sqlx::query_as("SELECT directory, settled AND ordering IS NOT NULL FROM queue ORDER BY directory")
                .fetch_all(&mut *one)
                .await?;
        let mut stages = stages.to_vec();
        stages.extend(unnamed(&stages, queues.iter().map(|(name, _)| name)));
        if let Some(only) = only {
            // The deliveries of a directory whose queue is not settled yet may be in both.
            let is_apart = queues.iter().any(|(name, settled)| name == only.as_str() && *settled);
            for lane in stages.iter_mut().flat_map(|stage| &mut stage.lanes) {
                lane.shared &= !is_apart;
                lane.queues.retain(|queue| queue == only);
            }
        }
        let mut walk =
            Self { vessel: vessel.clone(), stages, stage: 0, turn: 0, lanes: Vec::new(), piece: *PIECE.end() };
        walk.enter(from.map_or(0, |from| from.stage), from);
        Ok(walk)
    }

    /// Goes to the beginning of a stage, or to the place of a cursor in it.
    fn enter(&mut self, stage: usize, from: Option<&QueueCursor>) {
        (self.stage, self.turn) = (stage, from.map_or(0, |from| from.turn));
        let Some(QueueStage { lanes, due_after, due_until }) = self.stages.get(stage) else {
            self.lanes.clear();
            return;
        };
        let after = |lane: usize| from.and_then(|from| from.lanes.get(lane)?.as_ref());
        let ranges = |(at, lane)| ranges(lane, after(at), (*due_after, *due_until));
        self.lanes = lanes.iter().enumerate().map(ranges).collect();
        let count = self.lanes.iter().map(Vec::len).sum::<usize>().max(1);
        self.piece = (AT_ONCE / count).clamp(*PIECE.start(), *PIECE.end());
    }

    /// Returns the next delivery; `None` at the end of the queue.
    pub(super) async fn next(&mut self, one: &mut PgConnection) -> Result<Option<Step>> {
        while self.stage < self.stages.len() {
            for ahead in 0..self.lanes.len() {
                let lane = (self.turn + ahead) % self.lanes.len();
                if let Some(place) = next_of(&mut self.lanes[lane], one, &self.vessel, self.piece).await? {
                    self.turn = lane + 1;
                    return Ok(Some(Step { stage: self.stage, lane, place }));
                }
            }
            self.enter(self.stage + 1, None);
        }
        Ok(None)
    }
}

/// Returns a stage of the queues that the stages do not name, as after a change of the settings; `None` if there are none.
fn unnamed<'a>(stages: &[QueueStage], queues: impl Iterator<Item = &'a String>) -> Option<QueueStage> {
    let named: HashSet<&str> = stages
        .iter()
        .flat_map(|stage| stage.lanes.iter().flat_map(|lane| lane.queues.iter().map(DirectoryName::as_str)))
        .collect();
    let queues: Vec<_> =
        queues.filter(|name| !named.contains(name.as_str())).map(|name| DirectoryName::new(name.as_str())).collect();
    let lanes = vec![QueueLane { shared: false, queues, ranked: true }];
    (!lanes[0].queues.is_empty()).then_some(QueueStage { lanes, due_after: i64::MIN, due_until: i64::MAX })
}

/// Returns the ranges of a lane after a place.
fn ranges(lane: &QueueLane, after: Option<&LanePlace>, (due_after, due_until): (i64, i64)) -> Vec<Range> {
    let start = LanePlace::ByTime(QueuePosition { due_at: due_after, delivery: DeliveryId(i64::MAX) });
    let first = || QueuePosition { due_at: i64::MIN, delivery: DeliveryId(i64::MIN) };
    let before_all = LanePlace::Ranked(QueueRank::Path(Vec::new()), first());
    let of = |queue: Option<&DirectoryName>, large, ranked| Range {
        queue: queue.cloned(),
        large,
        ranked,
        after: match (ranked, after) {
            (true, Some(place @ LanePlace::Ranked(..))) | (false, Some(place @ LanePlace::ByTime(_))) => place.clone(),
            (true, _) => before_all.clone(),
            (false, _) => start.clone(),
        },
        until: due_until,
        read: VecDeque::new(),
        // All deliveries with a rank come before those without one.
        is_at_end: ranked && matches!(after, Some(LanePlace::ByTime(_))),
    };
    let mut ranges = Vec::new();
    for large in [false, true] {
        if lane.shared {
            ranges.push(of(None, large, false));
        }
        for queue in &lane.queues {
            ranges.push(of(Some(queue), large, false));
            if lane.ranked {
                ranges.push(of(Some(queue), large, true));
            }
        }
    }
    ranges
}

/// Returns the next delivery of a lane: the first one of all its ranges.
async fn next_of(
    lane: &mut [Range],
    one: &mut PgConnection,
    vessel: &VesselName,
    piece: usize,
) -> Result<Option<LanePlace>> {
    for range in &mut *lane {
        if range.read.is_empty() && !range.is_at_end {
            range.read_on(one, vessel, piece).await?;
        }
    }
    let first = lane.iter_mut().filter(|range| !range.read.is_empty()).min_by(|a, b| a.read[0].cmp(&b.read[0]));
    Ok(first.and_then(|range| range.read.pop_front()))
}

impl Range {
    async fn read_on(&mut self, one: &mut PgConnection, vessel: &VesselName, piece: usize) -> Result<()> {
        let question = match (&self.queue, self.ranked) {
            (None, _) => SHARED,
            (Some(_), false) => OWN,
            (Some(_), true) => RANKED,
        };
        let QueuePosition { due_at, delivery } = self.after.position();
        let query = sqlx::query(question).bind(vessel.as_str()).bind(self.large).bind(piece as i64);
        let query = query.bind(due_at).bind(delivery.0);
        // A rank is the key of a number or of a path, and never empty.
        let query = match &self.after {
            LanePlace::ByTime(_) => query.bind(self.until),
            LanePlace::Ranked(QueueRank::Number(_), _) => query.bind(Vec::<u8>::new()),
            LanePlace::Ranked(QueueRank::Path(path), _) => query.bind(path.clone()),
        };
        let query = match &self.queue {
            Some(queue) => query.bind(queue.as_str().to_owned()),
            None => query,
        };
        let rows = query.fetch_all(&mut *one).await?;
        self.is_at_end = rows.len() < piece;
        for row in &rows {
            self.read.push_back(place(row)?);
        }
        if let Some(last) = self.read.back() {
            self.after = last.clone();
        }
        Ok(())
    }
}

fn place(row: &PgRow) -> Result<LanePlace> {
    let position = QueuePosition { due_at: row.try_get("due_at")?, delivery: DeliveryId(row.try_get("id")?) };
    Ok(match row.try_get::<Option<Vec<u8>>, _>("rank")? {
        Some(key) => LanePlace::Ranked(QueueRank::Path(key), position),
        None => LanePlace::ByTime(position),
    })
}
