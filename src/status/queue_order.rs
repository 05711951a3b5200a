//! Computes the order in which a vessel's files are sent, as a list of stages: parts of the vessel's queue that the
//! ledger lists one after another. The scheduler (`vessel/levels`) sends in the same order.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::queues::Sending;
use crate::ledger::{QueueLane, QueueStage};
use crate::names::{DirectoryName, VesselName};
use crate::settings::{Order, Priority, Schedule};

/// The queues of one priority whose windows are open now, or whose windows all open at the same later time.
#[derive(Default)]
struct Level {
    shared: bool,
    /// The directories with queues of their own: those that send the oldest file first, and those with another order.
    by_time: Vec<DirectoryName>,
    ordered: Vec<DirectoryName>,
}

impl Sending {
    /// Returns the stages of a vessel's queue at the time `at`, in milliseconds since 1970. First come the deliveries
    /// that are due, by priority; then the deliveries that wait for their next attempt; then the deliveries that wait
    /// for a window, in the order in which the windows open.
    pub(super) fn stages(&self, name: &VesselName, at: i64) -> Vec<QueueStage> {
        // The key is the time at which the windows open (0: they are open), then the priority.
        let mut levels: BTreeMap<(i64, Priority), Level> = BTreeMap::new();
        let opens = |schedules: &[&Schedule]| match schedules.iter().all(|schedule| schedule.is_open(at)) {
            true => 0,
            false => Schedule::next_open(schedules, at).unwrap_or(i64::MAX),
        };
        let vessel = self.vessel(name);
        let own = Vec::from_iter(vessel.and_then(|vessel| vessel.own_schedule(Priority::Normal)));
        levels.entry((opens(&own), Priority::Normal)).or_default().shared = true;
        for directory in vessel.into_iter().flat_map(|vessel| self.taken_by(vessel)) {
            if !directory.has_own_queue() {
                continue;
            }
            let schedules = vessel.map(|vessel| vessel.schedules(directory)).unwrap_or_default();
            let level = levels.entry((opens(&schedules), directory.priority)).or_default();
            let queues = if directory.order == Order::Oldest { &mut level.by_time } else { &mut level.ordered };
            queues.push(directory.name.clone());
        }
        let open = levels.iter().filter(|((opens, _), _)| *opens == 0);
        let mut stages: Vec<QueueStage> = open.clone().map(|(_, level)| level.stage(at)).collect();
        let later = QueueLane {
            shared: open.clone().any(|(_, level)| level.shared),
            queues: open.flat_map(|(_, level)| level.by_time.iter().chain(&level.ordered)).cloned().collect(),
            ranked: false,
        };
        if later.shared || !later.queues.is_empty() {
            stages.push(QueueStage { lanes: vec![later], due_after: at, due_until: i64::MAX });
        }
        stages.extend(levels.iter().filter(|((opens, _), _)| *opens > 0).map(|(_, level)| level.stage(i64::MAX)));
        stages
    }
}

impl Level {
    fn stage(&self, due_until: i64) -> QueueStage {
        let one = |queue: &DirectoryName| QueueLane { shared: false, queues: vec![queue.clone()], ranked: true };
        let mut lanes: Vec<QueueLane> = self.ordered.iter().map(one).collect();
        if self.shared || !self.by_time.is_empty() {
            lanes.push(QueueLane { shared: self.shared, queues: self.by_time.clone(), ranked: false });
        }
        QueueStage { lanes, due_after: i64::MIN, due_until }
    }
}

/// Returns a hash of the stages' queues and their order, which shows whether the order has changed.
pub(super) fn fingerprint(stages: &[QueueStage]) -> u32 {
    let mut hasher = DefaultHasher::new();
    stages.iter().for_each(|stage| stage.lanes.hash(&mut hasher));
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::{Environment, Settings};

    #[test]
    fn priorities_come_one_after_the_other_and_closed_windows_last() {
        let text = "[Directory a]\nLocation = /a\n[Directory b]\nLocation = /b\nPriority = urgent\n[Directory c]\nLocation = /c\n\
                    Order = newest\n[Directory d]\nLocation = /d\nPriority = bulk\n[Directory e]\nLocation = /e\nExpire = 1d\n\
                    [Directory f]\nLocation = /f\nPriority = urgent\nSchedule = 00:00-00:01\nSchedule.tz = UTC\n\
                    [Vessel tern]\nAddress = tern\nUsername = u\n";
        let settings = Settings::parse(text, Path::new("/settings.ini"), &Environment::default()).unwrap();
        // Noon: the window of `f` is closed.
        let stages = Sending::of(&settings).stages(&VesselName::new("tern"), 12 * 3_600_000);
        let said: Vec<String> = stages
            .iter()
            .map(|stage| {
                let lane = |lane: &QueueLane| {
                    let queues: Vec<&str> = lane.queues.iter().map(DirectoryName::as_str).collect();
                    format!("{}{}", if lane.shared { "shared " } else { "" }, queues.join(" "))
                };
                stage.lanes.iter().map(lane).collect::<Vec<_>>().join(" | ")
            })
            .collect();
        assert_eq!(said, ["b", "c | shared e", "d", "shared b e c d", "f"]);
        assert_eq!((stages[3].due_after, stages[0].due_until, stages[4].due_until), (43_200_000, 43_200_000, i64::MAX));
    }
}
