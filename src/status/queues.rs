//! The queues of the vessels as the scheduler sees them: by priority, with the time at which a closed window opens.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::document::{Amount, QueueStatus};
use crate::ledger::Tally;
use crate::names::{DirectoryName, VesselName};
use crate::settings::{Directory, Priority, RateSchedule, Schedule, Settings, Vessel};

/// The settings that decide what is sent when.
#[derive(Debug)]
pub(super) struct Sending {
    vessels: Vec<Vessel>,
    directories: Vec<Directory>,
    rate_limit: RateSchedule,
}

impl Sending {
    pub(super) fn of(settings: &Settings) -> Self {
        let rate_limit = settings.monster.rate_limit.clone();
        Self { vessels: settings.vessels.clone(), directories: settings.directories.clone(), rate_limit }
    }

    pub(super) fn vessel(&self, name: &VesselName) -> Option<&Vessel> {
        self.vessels.iter().find(|vessel| vessel.name == *name)
    }

    fn directory(&self, name: &DirectoryName) -> Option<&Directory> {
        self.directories.iter().find(|directory| directory.name == *name)
    }

    /// Returns the directories that a vessel takes.
    pub(super) fn taken_by(&self, vessel: &Vessel) -> impl Iterator<Item = &Directory> {
        self.directories.iter().filter(|directory| vessel.takes(&directory.name))
    }

    /// Returns the rate limit of a vessel at a time in milliseconds since 1970, in bytes per second.
    pub(super) fn rate_limit(&self, name: &VesselName, at: i64) -> Option<u64> {
        let time = Timestamp::from_millisecond(at).unwrap_or_default().to_zoned(TimeZone::system()).time();
        let minute = u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs());
        let own = self.vessel(name).and_then(|vessel| vessel.rate_limit.at(minute));
        own.into_iter().chain(self.rate_limit.at(minute)).min()
    }

    /// Returns the queues with files for a vessel at a time in milliseconds since 1970, those that are sent first before
    /// the others.
    pub(super) fn queues(&self, name: &VesselName, tallies: &[Tally], at: i64) -> Vec<QueueStatus> {
        let waiting = tallies.iter().filter(|tally| tally.vessel == *name && tally.waiting > 0);
        let mut queues: Vec<(Priority, QueueStatus)> = waiting.map(|tally| self.queue(name, tally, at)).collect();
        queues.sort_by(|a, b| (a.0, a.1.opens, &a.1.directory).cmp(&(b.0, b.1.opens, &b.1.directory)));
        queues.into_iter().map(|(_, queue)| queue).collect()
    }

    fn queue(&self, name: &VesselName, tally: &Tally, at: i64) -> (Priority, QueueStatus) {
        let directory = self.directory(&tally.directory);
        let priority = directory.map(|directory| directory.priority).unwrap_or_default();
        let schedules = match (self.vessel(name), directory) {
            (Some(vessel), Some(directory)) => vessel.schedules(directory),
            (Some(vessel), None) => vessel.own_schedule(priority).into_iter().collect(),
            (None, _) => Vec::new(),
        };
        let queue = QueueStatus {
            directory: tally.directory.to_string(),
            priority: priority.as_str().to_owned(),
            order: directory.map(|directory| directory.order).unwrap_or_default().as_str().to_owned(),
            waiting: Amount { files: tally.waiting, bytes: tally.waiting_bytes },
            opens: opens(&schedules, at),
        };
        (priority, queue)
    }
}

/// Returns when all of `schedules` are open together; `None` if they are at the time `at`, in milliseconds since 1970.
pub(super) fn opens(schedules: &[&Schedule], at: i64) -> Option<Timestamp> {
    let opens = Schedule::next_open(schedules, at)?;
    (opens > at).then(|| Timestamp::from_millisecond(opens).unwrap_or(Timestamp::MAX))
}
