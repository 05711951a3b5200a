//! Walks through a vessel's queue in the order in which it is sent: stage by stage, while the lanes of a stage take
//! turns.
//!
//! Ranges are examined in pieces. If only one lane of a stage is open, a piece returns only the deliveries that match
//! the filter. While several lanes take turns, a piece also returns the other deliveries, because each of them counts
//! as a turn.

use std::time::{Duration, Instant};

use super::lane::{Lane, Next};
use super::plan::Stage;
use super::reader::{Found, Piece, QueueReader};
use super::{LanePlace, QueueCursor};
use crate::ledger::LedgerError;

/// Maximum number of deliveries examined at a time in all ranges of a stage together (`ROUND`), and minimum number in
/// one range (`PIECE`).
const ROUND: usize = 8192;
const PIECE: usize = 8;
/// If a piece took less than this time, the next piece is larger. If a piece took more than four times this time, the
/// next piece is smaller.
const QUICK: Duration = Duration::from_millis(5);

/// The limits of the work for one answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct Effort {
    /// Number of examined deliveries after which no further piece is examined.
    pub(in crate::ledger) deliveries: usize,
    /// Time after which no further piece is examined.
    pub(in crate::ledger) time: Duration,
}

/// A walk through a queue.
pub(super) struct Walk {
    stages: Vec<Stage>,
    stage: usize,
    turn: usize,
    /// The lanes of the current stage.
    lanes: Vec<Lane>,
    /// The cursor at which the walk began.
    begin: QueueCursor,
    /// The cursor after the deliveries that the walk has passed.
    passed: QueueCursor,
    is_selective: bool,
    /// Number of deliveries to examine at a time, in all open ranges of the stage together.
    round: usize,
    most: usize,
    examined: usize,
    effort: Effort,
    since: Instant,
}

/// One step of the walk: a delivery of the queue.
pub(super) struct Step {
    stage: usize,
    lane: usize,
    pub(super) place: LanePlace,
}

/// The result of a step of the walk.
pub(super) enum Progress {
    /// A delivery that the filter wants.
    Wanted(Step),
    /// The limit of the effort was reached.
    Limit,
    /// The end of the queue was reached.
    End,
}

impl Walk {
    /// Begins a walk at the cursor `from`. The caller needs at most `most` wanted deliveries; with `is_selective`, the
    /// filter rejects some deliveries.
    pub(super) fn new(
        stages: Vec<Stage>,
        from: Option<&QueueCursor>,
        (most, is_selective): (usize, bool),
        effort: Effort,
    ) -> Self {
        let begin = from.cloned().unwrap_or_default();
        let passed = begin.clone();
        let (lanes, since) = (Vec::new(), Instant::now());
        // The first pieces are small, because usually all deliveries match the filter.
        let (round, examined) = (most, 0);
        let (stage, turn) = (begin.stage, begin.turn);
        let mut walk =
            Self { stages, stage, turn, lanes, begin, passed, is_selective, round, most, examined, effort, since };
        walk.enter(stage, turn);
        walk
    }

    fn enter(&mut self, stage: usize, turn: usize) {
        (self.stage, self.turn) = (stage, turn);
        self.lanes.clear();
        let Some(plan) = self.stages.get(stage) else { return };
        let passed = (self.passed.stage == stage).then_some(&self.passed.lanes);
        let after = |lane: usize| passed.and_then(|places| places.get(lane)?.as_ref());
        self.lanes = plan.lanes.iter().enumerate().map(|(at, ranges)| Lane::new(plan, ranges, after(at))).collect();
    }

    /// Goes to the next delivery that the filter wants.
    pub(super) async fn next(&mut self, reader: &mut impl QueueReader) -> Result<Progress, LedgerError> {
        while self.stage < self.stages.len() {
            match self.next_in_turn() {
                Some((lane, Next::Found(found))) => {
                    self.turn = lane + 1;
                    let Found { place, is_wanted } = found;
                    let step = Step { stage: self.stage, lane, place };
                    if is_wanted {
                        return Ok(Progress::Wanted(step));
                    }
                    self.pass(step);
                }
                Some((lane, Next::Unknown(range))) => {
                    // Stops only after the cursor has moved, so that each answer makes progress.
                    if self.is_spent() && self.cursor() != self.begin {
                        return Ok(Progress::Limit);
                    }
                    self.examine(reader, lane, range).await?;
                }
                Some((_, Next::End)) | None => self.enter(self.stage + 1, 0),
            }
        }
        Ok(Progress::End)
    }

    /// Records that a delivery was listed, or was rejected by the filter.
    pub(super) fn pass(&mut self, step: Step) {
        self.passed.pass(step.stage, step.lane, step.place);
    }

    /// Returns the next delivery or the range to examine, with its lane; `None` at the end of the stage.
    fn next_in_turn(&mut self) -> Option<(usize, Next)> {
        let count = self.lanes.len();
        for ahead in 0..count {
            let lane = (self.turn + ahead) % count;
            match self.lanes[lane].next() {
                Next::End => {}
                next => return Some((lane, next)),
            }
        }
        None
    }

    async fn examine(&mut self, reader: &mut impl QueueReader, lane: usize, range: usize) -> Result<(), LedgerError> {
        let count = self.lanes.iter().map(Lane::open_ranges).sum::<usize>().max(1);
        let left = self.effort.deliveries.saturating_sub(self.examined);
        let rows = (self.round / count).min(left).max(PIECE);
        let with_unwanted = self.lanes.iter().filter(|lane| lane.is_open()).count() > 1;
        let began = Instant::now();
        let Stage { due_until, .. } = self.stages[self.stage];
        let at = self.lanes[lane].range(range);
        // A page needs at most `self.most` wanted deliveries, so the piece may end there.
        let most = if with_unwanted { rows } else { self.most.min(rows) };
        let piece = Piece { range: &at.of, after: &at.after, until: due_until, rows, most, with_unwanted };
        let examined = reader.examine(piece).await?;
        self.examined += if examined.last.is_some() { rows } else { examined.found.len() };
        self.lanes[lane].add(range, examined);
        if self.is_selective {
            let smallest = self.most.min(ROUND);
            self.round = match began.elapsed() {
                took if took < QUICK => (self.round * 2).min(ROUND.max(self.most)),
                took if took > QUICK * 4 => (self.round / 2).max(smallest),
                _ => self.round,
            };
        }
        Ok(())
    }

    fn is_spent(&self) -> bool {
        self.examined >= self.effort.deliveries || self.since.elapsed() >= self.effort.time
    }

    /// Returns where the next page begins: after all passed deliveries, and after the places up to which the lanes were
    /// examined without a match.
    pub(super) fn cursor(&self) -> QueueCursor {
        let mut cursor = self.passed.clone();
        if cursor.stage != self.stage {
            cursor = QueueCursor { stage: self.stage, ..QueueCursor::default() };
        }
        for (at, lane) in self.lanes.iter().enumerate() {
            if let Some(place) = lane.examined()
                && cursor.lanes.get(at).and_then(Option::as_ref).is_none_or(|passed| passed < place)
            {
                cursor.reach(at, place.clone());
            }
        }
        cursor
    }

    /// Returns the cursor after the deliveries that were passed.
    pub(super) fn passed(&self) -> &QueueCursor {
        &self.passed
    }
}
