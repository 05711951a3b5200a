//! The plan: the windows and queues of the next 24 hours, as the scheduler sees them.

use jiff::Timestamp;
use serde::Serialize;

use super::document::{Amount, Document, Held, VesselStatus};
use crate::names::{DirectoryName, VesselName};
use crate::settings::{Schedule, Settings};

/// The period of the plan, in milliseconds.
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
    /// The state of the vessel's connection.
    pub link: &'static str,
    /// The rate that the plan assumes; `null` if no rate was measured within 24 h, and there is no rate limit.
    pub rate: Option<u64>,
    /// Why the end of the queues is not known; otherwise `null`.
    pub eta_unknown: Option<String>,
    /// The directories that the vessel takes, in the order in which their files are sent.
    pub queues: Vec<QueuePlan>,
}

/// The plan of one directory for one vessel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QueuePlan {
    /// The directory.
    pub directory: String,
    /// The directory's `Priority`.
    pub priority: &'static str,
    /// The directory's `Order`.
    pub order: &'static str,
    /// The directory's files that wait for the vessel.
    pub waiting: Amount,
    /// The times within the next 24 hours in which the directory's files may be sent.
    pub windows: Vec<Window>,
    /// Why the directory's files may not be sent now; `null` if they may, or if no files wait.
    pub held: Option<Held>,
    /// When the first waiting byte is expected to be sent, given the windows and the budgets; `null` if no files wait,
    /// or if the time is not known or not within the next 24 hours.
    pub begins: Option<Timestamp>,
    /// When the last waiting byte is expected to be sent; see `begins`.
    pub ends: Option<Timestamp>,
}

/// A time in which files may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Beginning of the window.
    pub from: Timestamp,
    /// End of the window.
    pub until: Timestamp,
}

/// Makes the plan of all vessels, or only of the vessel `only`.
pub fn plan(settings: &Settings, document: &Document, only: Option<&VesselName>) -> Plan {
    let vessels = document.vessels.iter().filter(|vessel| only.is_none_or(|only| only.as_str() == vessel.name));
    Plan { at: document.at, vessels: vessels.map(|vessel| of_vessel(settings, vessel, document.at)).collect() }
}

fn of_vessel(settings: &Settings, status: &VesselStatus, at: Timestamp) -> VesselPlan {
    let start = at.as_millisecond();
    let end = moment(start.saturating_add(DAY));
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
            begins: waiting.and_then(|queue| queue.begins).filter(|begins| *begins < end),
            ends: waiting.and_then(|queue| queue.ends).filter(|ends| *ends <= end),
            held: waiting.and_then(|queue| queue.held.clone()),
        };
        queues.push((directory.priority, queue));
    }
    // Sorts by priority, then by the start of the first window. The sort is stable, so directories that are equal in
    // both stay in the order of the settings; they take turns.
    queues.sort_by_key(|(priority, queue)| (*priority, queue.windows.first().map(|window| window.from)));
    let queues: Vec<_> = queues.into_iter().map(|(_, queue)| queue).collect();
    let (link, rate) = (status.link.state.as_str(), status.carries);
    VesselPlan { vessel: status.name.clone(), link, rate, eta_unknown: status.eta_unknown.clone(), queues }
}

fn moment(at: i64) -> Timestamp {
    Timestamp::from_millisecond(at).unwrap_or(Timestamp::MAX)
}
