//! Why the files of a directory may not be sent to a vessel now, although they are due: a schedule, a budget or a link.

use jiff::Timestamp;

use super::convert::moment;
use super::document::Held;
use super::routes::Budgets;
use crate::settings::{Directory, Priority, Schedule, Vessel, Way};

/// The state of a vessel that determines why its files may not be sent.
pub(super) struct Situation<'a> {
    pub(super) vessel: &'a Vessel,
    pub(super) budgets: &'a Budgets,
    /// The name of the way in use; `None` if the vessel is not connected, or has only one way.
    pub(super) carries: Option<&'a str>,
    /// Milliseconds since 1970.
    pub(super) now: i64,
}

impl Situation<'_> {
    /// Returns why the files of a directory may not be sent; `None` if they may. `directory` is `None` for the files of
    /// a directory that is not configured any more.
    pub(super) fn held(&self, directory: Option<&Directory>) -> Option<Held> {
        let priority = directory.map(|directory| directory.priority).unwrap_or_default();
        self.by_schedule(directory, priority).or_else(|| self.by_ways(priority))
    }

    fn by_schedule(&self, directory: Option<&Directory>, priority: Priority) -> Option<Held> {
        let own = self.vessel.own_schedule(priority);
        let schedules: Vec<&Schedule> = own.into_iter().chain(directory.and_then(Directory::own_schedule)).collect();
        let until = opens(&schedules, self.now)?;
        let of = match (own.is_some_and(|schedule| !schedule.is_open(self.now)), directory) {
            (false, Some(directory)) => format!("[Directory {}]", directory.name),
            _ => format!("[Vessel {}]", self.vessel.name),
        };
        Some(Held { by: "schedule".into(), why: format!("the Schedule of {of} is closed"), until: Some(until) })
    }

    /// Returns why the way in use may not carry files of a priority or, if no single way is in use, why none of the
    /// ways may carry them.
    fn by_ways(&self, priority: Priority) -> Option<Held> {
        let mut ways = self.vessel.ways.iter();
        if let Some(name) = self.carries.filter(|_| !self.vessel.together && self.vessel.ways.len() > 1) {
            return ways.find(|way| way.name() == name).and_then(|way| self.on(way, priority));
        }
        let mut first: Option<Held> = None;
        for way in ways {
            let held = self.on(way, priority)?;
            let is_sooner = |first: &Held| match (held.until, first.until) {
                (Some(at), Some(first)) => at < first,
                (at, first) => at.is_some() && first.is_none(),
            };
            if first.as_ref().is_none_or(is_sooner) {
                first = Some(held);
            }
        }
        first
    }

    fn on(&self, way: &Way, priority: Priority) -> Option<Held> {
        if let Some(link) = &way.link {
            if !link.priorities.contains(priority) {
                let why = format!("only files of priority {} may use the link {}", link.priorities.either(), link.name);
                return Some(Held { by: "link".into(), why, until: None });
            }
            if let Some(until) = opens(&[&link.schedule], self.now) {
                let why = format!("the Schedule of the link {} is closed", link.name);
                return Some(Held { by: "schedule".into(), why, until: Some(until) });
            }
        }
        let spent = self.budgets.spent_for(&self.vessel.name, way.link.as_ref().map(|link| &link.name), priority)?;
        Some(Held { by: "budget".into(), why: spent.0, until: Some(moment(spent.1)) })
    }
}

impl Held {
    /// Returns the reason as a phrase, with the time from which the files may be sent, formatted by `time`.
    pub fn phrase(&self, time: impl Fn(Timestamp) -> String) -> String {
        match self.until {
            Some(until) => format!("{}; continues at {}", self.why, time(until)),
            None => self.why.clone(),
        }
    }
}

/// Returns when all of `schedules` are first open together; `None` if they are open at the time `at` (milliseconds
/// since 1970), or are never open together.
pub(super) fn opens(schedules: &[&Schedule], at: i64) -> Option<Timestamp> {
    let opens = Schedule::next_open(schedules, at)?;
    (opens > at).then(|| Timestamp::from_millisecond(opens).unwrap_or(Timestamp::MAX))
}
