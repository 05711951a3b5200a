//! Forecasts when queues are sent, from the rates of the ways, the windows and the budgets. A pure function: it uses
//! neither the clock nor any state.

use std::ops::Range;

use crate::settings::{Limit, Priorities, Priority, Reserve, Schedule};

/// Number of bytes on the link per byte of a file.
const PERCENT: f64 = 1.07;
/// Number of bytes of each budget that the files don't use, because logins and the closing of connections need them.
const LEFT: u64 = 48 << 10;

/// The ways to a vessel and the budgets that a forecast uses.
pub(super) struct Course<'a> {
    /// The time that the forecast covers, in milliseconds since 1970.
    pub(super) during: Range<i64>,
    /// The ways that may be used, the best one first.
    pub(super) ways: Vec<Way<'a>>,
    pub(super) budgets: Vec<BudgetLeft>,
}

/// One way.
pub(super) struct Way<'a> {
    pub(super) name: String,
    /// Rate in bytes per second; `None` if it was not measured.
    pub(super) rate: Option<u64>,
    pub(super) priorities: Priorities,
    pub(super) schedule: Option<&'a Schedule>,
    /// The positions in [`Course::budgets`] of the budgets that apply to this way.
    pub(super) budgets: Vec<usize>,
}

/// One limit of a budget, with the number of bytes already used.
#[derive(Clone, Copy)]
pub(super) struct BudgetLeft {
    pub(super) limit: Limit,
    pub(super) reserve: Option<Reserve>,
    pub(super) used: u64,
}

impl BudgetLeft {
    /// Returns how many more bytes of files with this priority the budget allows.
    fn room(&self, priority: Priority) -> f64 {
        let reserve = self.reserve.filter(|reserve| !reserve.priorities().contains(priority));
        let all = reserve.map_or(self.limit.bytes, |reserve| reserve.leaves(&self.limit));
        all.saturating_sub(self.used).saturating_sub(LEFT) as f64 / PERCENT
    }
}

/// Files that are sent one after another.
pub(super) struct Lane<'a> {
    pub(super) priority: Priority,
    /// The schedules that must all be open.
    pub(super) schedules: Vec<&'a Schedule>,
    pub(super) bytes: u64,
}

/// When the files of a lane are expected to be sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Expected {
    /// Intervals in which bytes are sent at one rate: the start in milliseconds since 1970, the offset of the first
    /// byte, and the bytes per millisecond.
    pieces: Vec<(f64, f64, f64)>,
    bytes: f64,
    end: Option<f64>,
}

impl Expected {
    /// Returns when the first byte is sent, in milliseconds since 1970; `None` if that is not known.
    pub(super) fn begins(&self) -> Option<i64> {
        self.pieces.first().map(|(at, ..)| at.round() as i64)
    }

    /// Returns when the last byte is sent; `None` if that is not known.
    pub(super) fn ends(&self) -> Option<i64> {
        self.end.map(|end| end.ceil() as i64)
    }

    /// Returns when this many bytes are sent; `None` if that is not known.
    pub(super) fn sent(&self, bytes: u64) -> Option<i64> {
        let bytes = bytes as f64;
        if bytes >= self.bytes {
            return self.ends();
        }
        let piece = self.pieces.iter().rev().find(|(_, offset, _)| *offset <= bytes);
        let (at, offset, rate) = piece?;
        let sent_until = self.pieces.iter().find(|(_, next, _)| *next > *offset).map(|(_, next, _)| *next);
        // The end of the last piece is known only if the piece completes the lane.
        let is_known = sent_until.or(self.end.map(|_| self.bytes)).is_some_and(|until| bytes <= until);
        is_known.then(|| (at + (bytes - offset) / rate).ceil() as i64)
    }
}

/// Forecasts when the lanes are sent; earlier lanes go first. If the forecast ends early because the rate of a way is
/// not known, also returns the name of that way.
pub(super) fn forecast(course: &Course<'_>, lanes: &[Lane<'_>]) -> (Vec<Expected>, Option<String>) {
    let Course { during, ways, budgets } = course;
    let mut budgets = budgets.clone();
    let open = |schedules: &[&Schedule]| Schedule::open_times(schedules, during.clone());
    let lane_windows: Vec<Vec<Range<i64>>> = lanes.iter().map(|lane| open(&lane.schedules)).collect();
    let way_windows: Vec<Vec<Range<i64>>> =
        ways.iter().map(|way| open(&way.schedule.into_iter().collect::<Vec<_>>())).collect();
    let mut expected: Vec<Expected> =
        lanes.iter().map(|lane| Expected { bytes: lane.bytes as f64, ..Expected::default() }).collect();
    let mut left: Vec<f64> = lanes.iter().map(|lane| lane.bytes as f64).collect();
    let mut period_ends: Vec<i64> = budgets.iter().map(|budget| budget.limit.period.ends(during.start)).collect();
    let mut at = during.start as f64;
    while at < during.end as f64 {
        let now = at as i64;
        for (budget, end) in budgets.iter_mut().zip(&mut period_ends) {
            if *end <= now {
                (budget.used, *end) = (0, budget.limit.period.ends(now));
            }
        }
        let is_open = |windows: &[Range<i64>]| windows.iter().any(|window| window.contains(&now));
        let carries = |way: usize, priority: Priority| {
            let has_room = |at: &usize| budgets[*at].room(priority) >= 1.0;
            let Way { priorities, budgets, .. } = &ways[way];
            is_open(&way_windows[way]) && priorities.contains(priority) && budgets.iter().all(has_room)
        };
        let next =
            (0..lanes.len()).filter(|lane| left[*lane] > 0.0 && is_open(&lane_windows[*lane])).find_map(|lane| {
                let way = (0..ways.len()).find(|way| carries(*way, lanes[lane].priority))?;
                Some((lane, way))
            });
        let windows = lane_windows.iter().chain(&way_windows).flatten();
        let edges = windows.flat_map(|window| [window.start, window.end]).chain(period_ends.iter().copied());
        let edge = edges.filter(|edge| *edge > now).min().unwrap_or(during.end).min(during.end) as f64;
        let Some((lane, way)) = next else {
            at = edge;
            continue;
        };
        let Some(rate) = ways[way].rate.filter(|rate| *rate > 0) else {
            return (expected, Some(ways[way].name.clone()));
        };
        let rate = rate as f64 / 1000.0;
        let rooms = ways[way].budgets.iter().map(|at| budgets[*at].room(lanes[lane].priority));
        let bytes = rooms.fold(left[lane], f64::min).min((edge - at) * rate);
        let sent = lanes[lane].bytes as f64 - left[lane];
        expected[lane].pieces.push((at, sent, rate));
        at += bytes / rate;
        // Skips to the edge if it is less than a microsecond away: rounding might keep that rest above 0 forever.
        at = if edge - at < 0.001 { edge } else { at };
        left[lane] -= bytes;
        ways[way].budgets.iter().for_each(|at| budgets[*at].used += (bytes * PERCENT).ceil() as u64);
        if left[lane] < 1.0 {
            (left[lane], expected[lane].end) = (0.0, Some(at));
        }
        if left.iter().all(|left| *left == 0.0) {
            break;
        }
    }
    (expected, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Environment, Settings};

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    fn lane(priority: Priority, bytes: u64) -> Lane<'static> {
        Lane { priority, schedules: Vec::new(), bytes }
    }

    fn way(name: &str, rate: Option<u64>, budgets: &[usize]) -> Way<'static> {
        let priorities = Priorities::default();
        Way { name: name.to_owned(), rate, priorities, schedule: None, budgets: budgets.to_vec() }
    }

    fn settings(link: &str) -> Settings {
        let text = format!(
            "[MONSTER]\nChunkSize = 1 MiB\n[Directory d]\nLocation = /srv/d\nSchedule = 02:00-04:00, 06:00-24:00\nSchedule.tz = UTC\n\
             [Link l]\n{link}\n[Vessel v]\nUsername = u\nAddress.l = v\n"
        );
        Settings::parse(&text, std::path::Path::new("/settings.ini"), &Environment::default()).unwrap()
    }

    fn hours(at: Option<i64>) -> Option<f64> {
        at.map(|at| at as f64 / HOUR as f64)
    }

    #[test]
    fn a_closed_lane_lets_the_others_pass_and_continues_in_its_window() {
        let settings = settings("Preference = 1");
        let schedule = &settings.directories[0].schedule;
        let course = Course { during: 0..DAY, ways: vec![way("w", Some(1000), &[])], budgets: Vec::new() };
        let first = Lane { priority: Priority::High, schedules: vec![schedule], bytes: 3 * 3_600_000 };
        let lanes = [first, lane(Priority::Normal, 2 * 3_600_000 + 1_800_000), lane(Priority::Low, 0)];
        let (expected, unknown) = forecast(&course, &lanes);
        assert_eq!((hours(expected[0].begins()), hours(expected[0].ends())), (Some(2.0), Some(7.0)));
        assert_eq!((hours(expected[1].begins()), hours(expected[1].ends())), (Some(0.0), Some(4.5)));
        assert_eq!((expected[2].begins(), unknown), (None, None));
        assert_eq!(hours(expected[0].sent(3_600_000)), Some(3.0));
        assert_eq!(hours(expected[0].sent(2 * 3_600_000 + 1_800_000)), Some(6.5));
    }

    #[test]
    fn a_budget_ends_the_day_and_its_reserve_is_for_high_priorities() {
        let settings = settings("Budget = 20 MB/day\nBudgetReserve = 50% high");
        let link = &settings.links[0];
        let left = BudgetLeft { limit: link.budget.limits()[0], reserve: link.reserve, used: 0 };
        let course = Course { during: 0..3 * DAY, ways: vec![way("l", Some(1_000_000), &[0])], budgets: vec![left] };
        let (expected, _) = forecast(&course, &[lane(Priority::High, 1_000_000), lane(Priority::Low, 12_000_000)]);
        assert_eq!(expected[0].ends(), Some(1000));
        // All priorities share 10 MB on the link today. After the first lane, these are enough for about 8.3 MB of
        // files; the rest follows tomorrow.
        let ends = expected[1].ends().unwrap();
        assert!((DAY + 3000..DAY + 5000).contains(&ends), "{ends}");
        assert!(expected[1].sent(8_000_000).unwrap() < 10_000 && expected[1].sent(9_000_000).unwrap() > DAY);
    }

    #[test]
    fn a_way_whose_rate_is_missing_is_named_and_what_comes_before_it_is_known() {
        let settings = settings("Budget = 2 MB/day");
        let left = BudgetLeft { limit: settings.links[0].budget.limits()[0], reserve: None, used: 0 };
        let ways = vec![way("l", Some(1_000_000), &[0]), way("sat", None, &[])];
        let course = Course { during: 0..DAY, ways, budgets: vec![left] };
        let (expected, unknown) = forecast(&course, &[lane(Priority::High, 1_000_000), lane(Priority::Low, 2_000_000)]);
        assert_eq!((expected[0].ends(), unknown.as_deref()), (Some(1000), Some("sat")));
        assert_eq!((expected[1].begins(), expected[1].ends()), (Some(1000), None));
        assert_eq!(expected[1].sent(1_999_999), None);
    }
}
