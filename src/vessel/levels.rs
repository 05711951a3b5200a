//! The queues that may be sent to a vessel now, by priority, without those whose schedule is closed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::fault::Fault;
use crate::ledger::{Ledger, QueueEnd};
use crate::link::SendRules;
use crate::names::DirectoryName;
use crate::records::Delivery;
use crate::settings::{self, Order, Priorities, Priority, Schedule};
use crate::transfer::Directories;

/// If a queue has an order, about one in this many deliveries is the delivery that the order would send last.
const SHARE: usize = 20;

/// The queues of one priority.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) priority: Priority,
    /// Whether the shared queue, that of all directories without a queue of their own, belongs to this priority.
    shared: bool,
    own: Vec<(DirectoryName, Order)>,
}

/// The priorities that a way may carry now. The default is all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) priorities: Priorities,
    /// When the way may carry more priorities, in milliseconds since 1970, if that is known.
    pub(super) until: Option<i64>,
}

/// The queues that may be sent to a vessel now, and the time span for which that holds.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// The levels with an open queue, the highest first.
    pub(super) levels: Vec<Level>,
    pub(super) rules: SendRules,
    /// The directories that an operator paused.
    paused: Arc<BTreeSet<DirectoryName>>,
    /// The priorities of the files that the way may carry.
    allowed: Priorities,
    /// The time span for which the levels hold, in milliseconds since 1970. `until` is `None` if no schedule opens or
    /// closes later.
    since: i64,
    until: Option<i64>,
    generation: u64,
}

impl Levels {
    /// Determines the levels at the time `now`, in milliseconds since 1970, on a way that may carry these priorities.
    pub(super) fn at(now: i64, vessel: &settings::Vessel, directories: &Directories, allowed: Allowed) -> Self {
        let generation = directories.generation();
        let Allowed { priorities: allowed, until } = allowed;
        let paused = directories.paused();
        let mut levels = Self { since: now, until, allowed, generation, paused, ..Self::default() };
        let mut all: Vec<Level> =
            Priority::ALL.map(|priority| Level { priority, shared: false, own: Vec::new() }).into();
        // The shared queue also has the files of directories that were removed from the settings. These files are
        // started like the others, and then parked with the reason. The vessel's own schedule decides when they start.
        let shared = levels.is_open(now, &Vec::from_iter(vessel.own_schedule(Priority::Normal)));
        let shared = shared && allowed.contains(Priority::Normal);
        all[Priority::Normal as usize].shared = shared;
        for directory in directories.settings() {
            if !vessel.takes(&directory.name) {
                continue;
            }
            if directory.priority != Priority::default() {
                levels.rules.priorities.insert(directory.name.clone(), directory.priority);
            }
            let is_open = levels.is_open(now, &vessel.schedules(&directory)) && allowed.contains(directory.priority);
            if levels.paused.contains(&directory.name) || !is_open {
                levels.rules.closed.insert(directory.name.clone());
            } else if directory.has_own_queue() {
                all[directory.priority as usize].own.push((directory.name.clone(), directory.order));
            }
        }
        all.iter_mut().for_each(|level| level.own.sort_unstable_by(|a, b| a.0.cmp(&b.0)));
        levels.levels = all.into_iter().filter(|level| level.shared || !level.own.is_empty()).collect();
        levels
    }

    /// Returns whether all of `schedules` are open, and limits `until` to their next change.
    fn is_open(&mut self, now: i64, schedules: &[&Schedule]) -> bool {
        let change = Schedule::next_change_of(schedules, now);
        self.until = self.until.into_iter().chain(change).min();
        schedules.iter().all(|schedule| schedule.is_open(now))
    }

    /// Returns whether the levels still hold at the time `now`. If the clock was set back, `now` may be before `since`.
    pub(super) fn are_current(&self, now: i64, directories: &Directories, allowed: Priorities) -> bool {
        let is_in_time = self.until.is_none_or(|until| (self.since..until).contains(&now));
        is_in_time && self.generation == directories.generation() && self.allowed == allowed
    }

    /// Returns whether the way may carry all priorities.
    pub(super) fn are_all_allowed(&self) -> bool {
        self.allowed.is_all()
    }

    /// Returns the paused directories in addition to `others`, which are held back for another reason.
    pub(super) fn held_back(&self, mut others: Vec<DirectoryName>) -> Vec<DirectoryName> {
        others.extend(self.paused.iter().cloned());
        others
    }

    /// Returns when a schedule opens or closes next, or the way may carry more priorities, in milliseconds since 1970.
    pub(super) fn until(&self) -> Option<i64> {
        self.until
    }

    /// Returns the priorities for which an open queue has a delivery that is due at the time `now`.
    pub(super) async fn due_priorities(
        &self,
        ledger: &Ledger,
        vessel: &settings::Vessel,
        now: i64,
    ) -> Result<Priorities, Fault> {
        let held_back = self.held_back(Vec::new());
        let mut priorities = Priorities::NONE;
        for level in &self.levels {
            let due = level.next_due_at(ledger, vessel, &held_back).await?;
            if due.is_some_and(|due| due <= now) {
                priorities.add(level.priority);
            }
        }
        Ok(priorities)
    }

    /// Returns when the next delivery of an open queue is due, in milliseconds since 1970; `None` if there is none.
    pub(super) async fn next_due_at(
        &self,
        ledger: &Ledger,
        vessel: &settings::Vessel,
        held_back: &[DirectoryName],
    ) -> Result<Option<i64>, Fault> {
        let held_back = &self.held_back(held_back.to_vec())[..];
        let mut next = None;
        for level in &self.levels {
            next = next.into_iter().chain(level.next_due_at(ledger, vessel, held_back).await?).min();
        }
        Ok(next)
    }
}

impl Level {
    /// Returns when the next delivery of the level is due, in milliseconds since 1970; `None` if there is none.
    async fn next_due_at(
        &self,
        ledger: &Ledger,
        vessel: &settings::Vessel,
        held_back: &[DirectoryName],
    ) -> Result<Option<i64>, Fault> {
        let mut next = None;
        if self.shared {
            next = ledger.next_due_at_beside(&vessel.name, held_back).await.map_err(|e| e.fault())?;
        }
        for (queue, _) in self.own.iter().filter(|(queue, _)| !held_back.contains(queue)) {
            let due = ledger.next_due_at_in(&vessel.name, queue).await.map_err(|e| e.fault())?;
            next = next.into_iter().chain(due).min();
        }
        Ok(next)
    }

    /// Returns whether one of the queues has another order than oldest first, so that a new file may be sent next.
    pub(super) fn has_order(&self) -> bool {
        self.own.iter().any(|(_, order)| *order != Order::Oldest)
    }

    /// Returns due deliveries of the level, at most `limit` from each queue. With `back`, queues with an order start
    /// with the delivery that they would send last.
    pub(super) async fn due(
        &self,
        ledger: &Ledger,
        vessel: &settings::Vessel,
        (large, limit): (bool, usize),
        held_back: &[DirectoryName],
        back: bool,
    ) -> Result<Vec<Delivery>, Fault> {
        let most = u32::try_from(limit).unwrap_or(u32::MAX);
        let (mut by_age, mut in_turn) = (Vec::new(), Vec::new());
        if self.shared {
            let due = ledger.next_due_beside(&vessel.name, large, most, held_back).await;
            by_age.push(due.map_err(|e| e.fault())?);
        }
        for (queue, order) in self.own.iter().filter(|(queue, _)| !held_back.contains(queue)) {
            let next = async |end, most| {
                let due = ledger.next_due_in(&vessel.name, queue, large, most, end).await;
                due.map_err(|e| e.fault())
            };
            let front = next(QueueEnd::Front, most).await?;
            if *order == Order::Oldest {
                by_age.push(front);
            } else if front.len() < limit {
                in_turn.push(front);
            } else {
                let last = next(QueueEnd::Back, most.div_ceil(SHARE as u32)).await?;
                in_turn.push(with_share(front, last, back));
            }
        }
        in_turn.push(merged(by_age));
        Ok(alternating(in_turn))
    }
}

/// Inserts the deliveries of `last` into `front`, one for every [`SHARE`] deliveries. With `first`, the result begins
/// with a delivery of `last`.
fn with_share(front: Vec<Delivery>, mut last: Vec<Delivery>, first: bool) -> Vec<Delivery> {
    last.retain(|delivery| !front.iter().any(|other| other.id == delivery.id));
    let (mut mixed, mut last) = (Vec::with_capacity(front.len() + last.len()), last.into_iter());
    if first {
        mixed.extend(last.next());
    }
    for (at, delivery) in front.into_iter().enumerate() {
        mixed.push(delivery);
        if (at + 2) % SHARE == 0 {
            mixed.extend(last.next());
        }
    }
    mixed
}

/// Merges deliveries of several queues by age.
fn merged(mut queues: Vec<Vec<Delivery>>) -> Vec<Delivery> {
    if queues.len() <= 1 {
        return queues.pop().unwrap_or_default();
    }
    let mut all: Vec<Delivery> = queues.into_iter().flatten().collect();
    all.sort_by_key(|delivery| (delivery.due_at, delivery.id));
    all
}

/// Takes one delivery from each queue in turn.
fn alternating(mut queues: Vec<Vec<Delivery>>) -> Vec<Delivery> {
    queues.retain(|queue| !queue.is_empty());
    if queues.len() <= 1 {
        return queues.pop().unwrap_or_default();
    }
    let mut queues: VecDeque<_> = queues.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    while let Some(mut queue) = queues.pop_front() {
        if let Some(delivery) = queue.next() {
            all.push(delivery);
            queues.push_back(queue);
        }
    }
    all
}
