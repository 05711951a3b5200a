//! Chooses the index ranges that a listing reads, stage by stage and lane by lane.

use std::collections::HashSet;

use super::{LanePlace, QueueFilter, QueueLane, QueuePosition, QueueRank, QueueStage, QueueState, RangeOf};
use crate::names::DirectoryName;
use crate::records::DeliveryId;

/// One [`QueueStage`] of a vessel's queue, with the index ranges to read for each of its lanes. A lane without ranges
/// is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    pub(super) lanes: Vec<Vec<RangeOf>>,
    due_after: i64,
    pub(super) due_until: i64,
}

/// Returns the only stage of a listing of failed deliveries or of some versions; `None` for any other listing.
pub(super) fn apart(filter: &QueueFilter) -> Option<Stage> {
    let range = match (&filter.versions, filter.state) {
        (Some(versions), _) => RangeOf::Versions(versions.clone()),
        (None, None | Some(QueueState::Waiting)) => return None,
        (None, Some(QueueState::PutOff)) => RangeOf::Failed { parked: false },
        (None, Some(QueueState::Parked)) => RangeOf::Failed { parked: true },
    };
    Some(Stage { lanes: vec![vec![range]], due_after: i64::MIN, due_until: i64::MAX })
}

/// Returns the stages that may hold deliveries of `directories`. `queues` lists the directories with their own queue,
/// and for each whether all its deliveries are already in that queue.
pub(super) fn stages(
    stages: &[QueueStage],
    queues: &[(DirectoryName, bool)],
    directories: Option<&[DirectoryName]>,
) -> Vec<Stage> {
    let has_own = |name: &DirectoryName| queues.iter().any(|(queue, is_settled)| queue == name && *is_settled);
    let in_shared = directories.is_none_or(|names| !names.iter().all(has_own));
    let is_wanted = |queue: &DirectoryName| directories.is_none_or(|names| names.contains(queue));
    let wanted = |lane: &QueueLane| QueueLane {
        shared: lane.shared && in_shared,
        queues: lane.queues.iter().filter(|queue| is_wanted(queue)).cloned().collect(),
        ranked: lane.ranked,
    };
    let plan = |stage: &QueueStage| {
        let narrow: Vec<Vec<RangeOf>> = stage.lanes.iter().map(|lane| ranges(&wanted(lane))).collect();
        // While several lanes take turns, deliveries that the filter rejects count as turns too, so a lane that may
        // have wanted deliveries keeps all its ranges.
        let take_turns = narrow.iter().filter(|ranges| !ranges.is_empty()).count() > 1;
        let whole = |(lane, narrow): (&QueueLane, Vec<RangeOf>)| match take_turns && !narrow.is_empty() {
            true => ranges(lane),
            false => narrow,
        };
        let lanes = stage.lanes.iter().zip(narrow).map(whole).collect();
        Stage { lanes, due_after: stage.due_after, due_until: stage.due_until }
    };
    stages.iter().chain(&unnamed(stages, queues)).map(plan).collect()
}

/// Returns a stage with the queues that none of `stages` names, for example after a change of the settings; `None` if
/// all are named.
fn unnamed(stages: &[QueueStage], queues: &[(DirectoryName, bool)]) -> Option<QueueStage> {
    let lanes = stages.iter().flat_map(|stage| &stage.lanes);
    let named: HashSet<&DirectoryName> = lanes.flat_map(|lane| &lane.queues).collect();
    let queues: Vec<_> = queues.iter().map(|(name, _)| name).filter(|name| !named.contains(name)).cloned().collect();
    let lane = QueueLane { shared: false, queues, ranked: true };
    (!lane.queues.is_empty()).then(|| QueueStage { lanes: vec![lane], due_after: i64::MIN, due_until: i64::MAX })
}

fn ranges(lane: &QueueLane) -> Vec<RangeOf> {
    let mut ranges = Vec::new();
    for large in [false, true] {
        if lane.shared {
            ranges.push(RangeOf::Shared { large });
        }
        for queue in &lane.queues {
            ranges.push(RangeOf::Own { queue: queue.clone(), large });
            if lane.ranked {
                ranges.push(RangeOf::Ranked { queue: queue.clone(), large });
            }
        }
    }
    ranges
}

impl Stage {
    /// Returns the place after which a range must be read if its lane was listed up to `after`; `None` if the whole
    /// range comes before `after`.
    pub(super) fn begin(&self, range: &RangeOf, after: Option<&LanePlace>) -> Option<LanePlace> {
        let first = QueuePosition { due_at: i64::MIN, delivery: DeliveryId(i64::MIN) };
        Some(match (range, after) {
            // All deliveries with a rank come before those without one.
            (RangeOf::Ranked { .. }, Some(LanePlace::ByTime(_))) => return None,
            (RangeOf::Ranked { .. }, Some(after)) => after.clone(),
            (RangeOf::Ranked { .. }, None) => LanePlace::Ranked(QueueRank::Number(i64::MIN), first),
            (_, Some(after @ LanePlace::ByTime(_))) => after.clone(),
            (RangeOf::Shared { .. } | RangeOf::Own { .. }, _) => {
                LanePlace::ByTime(QueuePosition { due_at: self.due_after, delivery: DeliveryId(i64::MAX) })
            }
            (RangeOf::Failed { .. } | RangeOf::Versions(_), _) => LanePlace::ByTime(first),
        })
    }
}
