//! The queues of the vessels by priority, with the reasons why they are held back and the times at which they are
//! expected to be sent.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::convert::moment;
use super::document::{Amount, Held, QueueStatus};
use super::forecast::{Course, Expected, Lane, Way, forecast};
use super::holds::{Situation, opens};
use super::live::LiveVessel;
use super::routes::Budgets;
use crate::ledger::Tally;
use crate::names::{DirectoryName, VesselName};
use crate::settings::{self, Directory, Order, Priorities, Priority, RateSchedule, Schedule, Settings, Vessel};

/// Period that a forecast covers, in milliseconds.
const REACH: i64 = 31 * 24 * 60 * 60 * 1000;
/// The reason why there is no forecast if the rate was not measured.
pub const NO_RATE: &str = "the rate was not measured in the last 24 h";

/// The settings that decide the order and the times of sending.
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

    /// Returns the rate limit of a vessel over a way at a time in milliseconds since 1970, in bytes per second.
    pub(super) fn rate_limit(&self, name: &VesselName, way: Option<&str>, at: i64) -> Option<u64> {
        let time = Timestamp::from_millisecond(at).unwrap_or_default().to_zoned(TimeZone::system()).time();
        let minute = u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs());
        let own = self.vessel(name).and_then(|vessel| vessel.rate_limit.at(minute));
        let ways = self.vessel(name).into_iter().flat_map(|vessel| &vessel.ways);
        let link = ways.filter_map(|way| way.link.as_ref()).find(|link| Some(link.name.as_str()) == way);
        let of_link = link.and_then(|link| link.rate_limit.at(minute));
        own.into_iter().chain(of_link).chain(self.rate_limit.at(minute)).min()
    }

    /// Returns whether all files are sent to a vessel by age alone, at any time, over one way and without a budget.
    pub(super) fn is_plain(&self, name: &VesselName) -> bool {
        let of_vessel =
            |vessel: &Vessel| vessel.schedule.is_always_open() && vessel.budget.is_unlimited() && !vessel.has_ways();
        self.vessel(name).is_none_or(of_vessel) && !self.directories.iter().any(Directory::has_own_queue)
    }

    /// Returns, for each directory whose files may not be sent to a vessel now, the reason.
    pub(super) fn held(&self, outlook: &Outlook<'_>) -> HashMap<DirectoryName, Held> {
        let Some(vessel) = outlook.vessel else { return HashMap::new() };
        let (budgets, carries, now) = (outlook.budgets, outlook.carries, outlook.now);
        let situation = Situation { vessel, budgets, carries, now };
        let taken = self.directories.iter().filter(|directory| vessel.takes(&directory.name));
        taken.filter_map(|one| Some((one.name.clone(), situation.held(Some(one))?))).collect()
    }

    /// Returns the queues with files for a vessel, in the order in which they are sent, and why the end of the last
    /// queue is not known; `None` if it is known.
    pub(super) fn queues(&self, outlook: &Outlook<'_>, tallies: &[Tally]) -> (Vec<QueueStatus>, Option<String>) {
        let mut waiting: Vec<&Tally> =
            tallies.iter().filter(|tally| tally.vessel == *outlook.name && tally.waiting > 0).collect();
        let priority = |tally: &Tally| self.directory(&tally.directory).map(|one| one.priority).unwrap_or_default();
        let schedules = |tally: &Tally| self.schedules(outlook, self.directory(&tally.directory));
        waiting.sort_by_cached_key(|tally| {
            (priority(tally), opens(&schedules(tally), outlook.now), tally.directory.clone())
        });
        let lane = |tally: &&Tally| Lane {
            priority: priority(tally),
            schedules: schedules(tally),
            bytes: tally.waiting_bytes.saturating_sub(outlook.taken(&tally.directory)),
        };
        let lanes: Vec<Lane<'_>> = waiting.iter().map(lane).collect();
        let (expected, unknown) = self.forecast(outlook, &lanes);
        let queues = waiting.iter().zip(&expected).map(|(tally, expected)| {
            let directory = self.directory(&tally.directory);
            let held = outlook.vessel.and_then(|vessel| {
                let (budgets, carries, now) = (outlook.budgets, outlook.carries, outlook.now);
                Situation { vessel, budgets, carries, now }.held(directory)
            });
            QueueStatus {
                directory: tally.directory.to_string(),
                priority: priority(tally).as_str().to_owned(),
                order: directory.map(|directory| directory.order).unwrap_or_default().as_str().to_owned(),
                waiting: Amount { files: tally.waiting, bytes: tally.waiting_bytes },
                opens: opens(&schedules(tally), outlook.now),
                held,
                begins: expected.begins().map(moment),
                ends: expected.ends().map(moment),
            }
        });
        (queues.collect(), unknown)
    }

    /// Returns when the bytes of each priority are expected to be sent. The result covers only directories whose files
    /// are sent by age, not directories with a window or an order of their own.
    pub(super) fn levels(&self, outlook: &Outlook<'_>, tallies: &[Tally]) -> Vec<(Priority, Expected)> {
        let mine = || tallies.iter().filter(|tally| tally.vessel == *outlook.name && tally.waiting > 0);
        let mut lanes: Vec<Lane<'_>> = Vec::new();
        let mut shared: Vec<Option<Priority>> = Vec::new();
        for priority in Priority::ALL {
            let level = mine().map(|tally| (tally, self.directory(&tally.directory)));
            let level =
                level.filter(|(_, directory)| directory.map(|one| one.priority).unwrap_or_default() == priority);
            let (by_age, own): (Vec<_>, Vec<_>) =
                level.partition(|(_, directory)| directory.is_none_or(Self::is_sent_by_age));
            let left = |tally: &Tally| tally.waiting_bytes.saturating_sub(outlook.taken(&tally.directory));
            let schedules = self.schedules(outlook, by_age.first().and_then(|(_, directory)| *directory));
            lanes.push(Lane { priority, schedules, bytes: by_age.iter().map(|(tally, _)| left(tally)).sum() });
            shared.push(Some(priority));
            for (tally, directory) in own {
                lanes.push(Lane { priority, schedules: self.schedules(outlook, directory), bytes: left(tally) });
                shared.push(None);
            }
        }
        let (expected, _) = self.forecast(outlook, &lanes);
        shared.into_iter().zip(expected).filter_map(|(priority, expected)| Some((priority?, expected))).collect()
    }

    fn is_sent_by_age(directory: &Directory) -> bool {
        directory.order == Order::Oldest && directory.own_schedule().is_none()
    }

    /// Returns the priority of a directory if its files are sent by age, together with other files of the same
    /// priority; otherwise `None`.
    pub(super) fn level_of(&self, name: &DirectoryName) -> Option<Priority> {
        match self.directory(name) {
            Some(directory) => Self::is_sent_by_age(directory).then_some(directory.priority),
            None => Some(Priority::default()),
        }
    }

    fn schedules<'a>(&'a self, outlook: &Outlook<'a>, directory: Option<&'a Directory>) -> Vec<&'a Schedule> {
        match (outlook.vessel, directory) {
            (Some(vessel), Some(directory)) => vessel.schedules(directory),
            (Some(vessel), None) => vessel.own_schedule(Priority::default()).into_iter().collect(),
            (None, _) => Vec::new(),
        }
    }

    fn forecast(&self, outlook: &Outlook<'_>, lanes: &[Lane<'_>]) -> (Vec<Expected>, Option<String>) {
        let during = outlook.now..outlook.now.saturating_add(REACH);
        let course = Course { during, ways: outlook.ways(), budgets: outlook.budgets.left() };
        let (expected, missing) = forecast(&course, lanes);
        let is_unknown =
            lanes.iter().zip(&expected).any(|(lane, expected)| lane.bytes > 0 && expected.ends().is_none());
        let only_one = course.ways.len() <= 1;
        let why = match missing {
            Some(_) if only_one => NO_RATE.to_owned(),
            Some(way) => format!("the rate over {way} was not measured in the last 24 h"),
            None if is_unknown => "the files will not all be sent within 31 days".to_owned(),
            None => return (expected, None),
        };
        (expected, Some(why))
    }
}

/// The state of a vessel, as input for a forecast.
pub(super) struct Outlook<'a> {
    pub(super) name: &'a VesselName,
    pub(super) vessel: Option<&'a Vessel>,
    pub(super) budgets: &'a Budgets,
    /// The name of the way in use; `None` if the vessel is not connected, or has only one way.
    pub(super) carries: Option<&'a str>,
    /// Returns the rate over a way in bytes per second, if it is known.
    pub(super) rate: &'a dyn Fn(Option<&str>) -> Option<u64>,
    /// The running transfers of the vessel.
    pub(super) live: Option<&'a LiveVessel>,
    /// Milliseconds since 1970.
    pub(super) now: i64,
}

impl Outlook<'_> {
    /// Returns how many bytes of a directory's waiting files the vessel already has.
    fn taken(&self, directory: &DirectoryName) -> u64 {
        let transfers = self.live.into_iter().flat_map(|live| live.transfers.values());
        transfers.filter(|transfer| transfer.directory == *directory).map(|transfer| transfer.taken).sum()
    }

    fn way<'b>(&self, way: &'b settings::Way, several: bool) -> Way<'b> {
        let (name, link) = (way.name(), way.link.as_deref());
        Way {
            rate: (self.rate)(several.then_some(&name)),
            name,
            priorities: way.priorities(),
            schedule: link.map(|link| &link.schedule),
            budgets: self.budgets.positions(self.name, link.map(|link| &link.name)),
        }
    }

    /// Returns the ways that a forecast may use, in the order of preference: the way in use, all less preferred ways,
    /// and those more preferred ways whose schedule is closed now. Other more preferred ways are presumably down.
    fn ways(&self) -> Vec<Way<'_>> {
        let Some(vessel) = self.vessel.filter(|vessel| !vessel.ways.is_empty()) else {
            let (priorities, rate) = (Priorities::default(), (self.rate)(None));
            return vec![Way { name: String::new(), rate, priorities, schedule: None, budgets: Vec::new() }];
        };
        let several = vessel.has_ways();
        let current = vessel.ways.iter().position(|way| self.carries.is_some_and(|name| way.name() == name));
        let is_closed = |way: &settings::Way| way.link.as_ref().is_some_and(|link| !link.schedule.is_open(self.now));
        let usable = vessel.ways.iter().enumerate();
        let usable = usable.filter(|(at, way)| current.is_none_or(|current| *at >= current) || is_closed(way));
        usable.map(|(_, way)| self.way(way, several)).collect()
    }
}
