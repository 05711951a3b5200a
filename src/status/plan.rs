//! The plan: the windows and queues of the next 24 hours, as the scheduler sees them.

use jiff::Timestamp;
use serde::Serialize;

use super::document::{Amount, Document, VesselStatus};
use crate::names::{DirectoryName, VesselName};
use crate::settings::{Schedule, Settings};

/// What the plan covers, in milliseconds.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// The plan. Times are RFC 3339 in UTC, sizes are bytes, rates are bytes per second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// When the plan was made.
    pub at: Timestamp,
    /// The vessels, in the order of the settings.
    pub vessels: Vec<VesselPlan>,
}

/// The plan of one vessel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VesselPlan {
    /// The vessel.
    pub vessel: String,
    /// The state of its connection.
    pub link: &'static str,
    /// The rate that the plan assumes; `null` if no rate was measured within 24 h, and there is no rate limit.
    pub rate: Option<u64>,
    /// The directories that the vessel takes, in the order in which their files are sent.
    pub queues: Vec<QueuePlan>,
}

/// The plan of one directory for one vessel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QueuePlan {
    /// The directory.
    pub directory: String,
    /// Its `Priority`.
    pub priority: &'static str,
    /// Its `Order`.
    pub order: &'static str,
    /// Its files that wait for the vessel.
    pub waiting: Amount,
    /// When its files may be sent, within the next 24 hours.
    pub windows: Vec<Window>,
    /// When its first and its last waiting byte is expected to be sent; `null` without waiting files, if the rate is not
    /// known, if the vessel is not connected, or if that is later than the plan.
    pub begins: Option<Timestamp>,
    /// See `begins`.
    pub ends: Option<Timestamp>,
}

/// A time in which files may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub until: Timestamp,
}

/// Makes the plan of all vessels, or of one.
pub fn plan(settings: &Settings, document: &Document, only: Option<&VesselName>) -> Plan {
    let vessels = document.vessels.iter().filter(|vessel| only.is_none_or(|only| only.as_str() == vessel.name));
    Plan { at: document.at, vessels: vessels.map(|vessel| of_vessel(settings, vessel, document.at)).collect() }
}

fn of_vessel(settings: &Settings, status: &VesselStatus, at: Timestamp) -> VesselPlan {
    let start = at.as_millisecond();
    let mut queues = Vec::new();
    let vessel = settings.vessels.iter().find(|vessel| vessel.name.as_str() == status.name);
    let taken = settings.directories.iter().filter_map(|one| Some((vessel.filter(|v| v.takes(&one.name))?, one)));
    for (vessel, directory) in taken {
        let schedules = vessel.schedules(directory);
        let windows = Schedule::open_times(&schedules, start..start.saturating_add(DAY));
        let waiting = status.queues.iter().find(|queue| DirectoryName::new(&queue.directory) == directory.name);
        let queue = QueuePlan {
            directory: directory.name.to_string(),
            priority: directory.priority.as_str(),
            order: directory.order.as_str(),
            waiting: waiting.map(|queue| queue.waiting).unwrap_or_default(),
            windows: windows
                .iter()
                .map(|window| Window { from: moment(window.start), until: moment(window.end) })
                .collect(),
            begins: None,
            ends: None,
        };
        queues.push((directory.priority, queue));
    }
    // A stable sort: directories of one priority take turns, and stay in the order of the settings.
    queues.sort_by_key(|(priority, queue)| (*priority, queue.windows.first().map(|window| window.from)));
    let mut queues: Vec<_> = queues.into_iter().map(|(_, queue)| queue).collect();
    let state = status.link.state;
    if let Some(rate) = status.carries.filter(|rate| *rate > 0) {
        expect(&mut queues, rate, start);
    }
    VesselPlan { vessel: status.name.clone(), link: state.as_str(), rate: status.carries, queues }
}

/// Works out when each queue begins and ends, if the vessel is reached and no more files come.
fn expect(queues: &mut [QueuePlan], rate: u64, start: i64) {
    let mut left: Vec<f64> = queues.iter().map(|queue| queue.waiting.bytes as f64).collect();
    let (mut at, end, rate) = (start, start.saturating_add(DAY), rate as f64 / 1000.0);
    let is_open = |queue: &QueuePlan, at: i64| {
        queue.windows.iter().any(|window| window.from.as_millisecond() <= at && at < window.until.as_millisecond())
    };
    while at < end {
        let edges = queues.iter().flat_map(|queue| &queue.windows).flat_map(|window| [window.from, window.until]);
        let edge = edges.map(Timestamp::as_millisecond).filter(|edge| *edge > at).min().unwrap_or(end);
        let next = (0..queues.len()).find(|number| left[*number] > 0.0 && is_open(&queues[*number], at));
        let Some(next) = next else {
            at = edge;
            continue;
        };
        queues[next].begins.get_or_insert(moment(at));
        let done = at.saturating_add((left[next] / rate).ceil() as i64);
        if done <= edge {
            (left[next], queues[next].ends) = (0.0, Some(moment(done)));
        } else {
            left[next] -= (edge - at) as f64 * rate;
        }
        at = done.min(edge);
    }
}

fn moment(at: i64) -> Timestamp {
    Timestamp::from_millisecond(at).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn queue(name: &str, bytes: u64, windows: &[(i64, i64)]) -> QueuePlan {
        let window = |(from, until): &(i64, i64)| Window { from: moment(from * HOUR), until: moment(until * HOUR) };
        QueuePlan {
            directory: name.to_owned(),
            priority: "normal",
            order: "oldest",
            waiting: Amount { files: 1, bytes },
            windows: windows.iter().map(window).collect(),
            begins: None,
            ends: None,
        }
    }

    #[test]
    fn a_higher_queue_goes_first_and_a_closed_one_lets_the_others_pass() {
        // 1000 bytes per hour.
        let mut queues = [
            queue("first", 3000, &[(2, 4), (6, 24)]),
            queue("second", 2500, &[(0, 24)]),
            queue("empty", 0, &[(0, 24)]),
            queue("never", 10, &[]),
        ];
        for queue in &mut queues {
            queue.waiting.bytes *= 3600;
        }
        expect(&mut queues, 1000, 0);
        let hours = |at: Option<Timestamp>| at.map(|at| at.as_millisecond() as f64 / HOUR as f64);
        assert_eq!((hours(queues[0].begins), hours(queues[0].ends)), (Some(2.0), Some(7.0)));
        assert_eq!((hours(queues[1].begins), hours(queues[1].ends)), (Some(0.0), Some(4.5)));
        assert_eq!((queues[2].begins, queues[3].begins), (None, None));
    }
}
