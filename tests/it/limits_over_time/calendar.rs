//! What the wall clocks of time zones show: windows and the moments near which something may go wrong. Computed minute by
//! minute, so that it shares nothing with the program's own way.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Days after which each of the windows has been open.
const HORIZON: i64 = 16;

/// The windows of a section, as the settings name them and as the test knows them.
pub(super) struct Windows {
    /// The value of `Schedule`.
    pub(super) text: &'static str,
    /// The value of `Schedule.tz`.
    pub(super) zone: &'static str,
    spans: &'static [Span],
}

/// From one minute of the day to another, which may be on the next day.
struct Span {
    from: i16,
    until: i16,
    is_for_weekends: bool,
}

impl Span {
    const fn daily(from: i16, until: i16) -> Self {
        Self { from, until, is_for_weekends: true }
    }

    const fn on_workdays(from: i16, until: i16) -> Self {
        Self { from, until, is_for_weekends: false }
    }

    fn begins_on(&self, day: Weekday) -> bool {
        self.is_for_weekends || !matches!(day, Weekday::Saturday | Weekday::Sunday)
    }
}

/// The windows of a vessel: the nights of the time changes, across the hours that are skipped and repeated.
pub(super) const NIGHTS: Windows = Windows {
    text: "01:30-03:15, 09:00-21:00",
    zone: "Europe/Berlin",
    spans: &[Span::daily(90, 195), Span::daily(9 * 60, 21 * 60)],
};

/// Two schedules of a directory. Their time zone changes on other days than that of the vessel.
pub(super) const FILMS: [Windows; 2] = [
    Windows {
        text: "20:15-21:30, 05:00-14:00",
        zone: "America/New_York",
        spans: &[Span::daily(20 * 60 + 15, 21 * 60 + 30), Span::daily(5 * 60, 14 * 60)],
    },
    Windows {
        text: "23:00-01:45, Mon-Fri 04:30-13:30",
        zone: "America/New_York",
        spans: &[Span::daily(23 * 60, 60 + 45), Span::on_workdays(4 * 60 + 30, 13 * 60 + 30)],
    },
];

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).expect("the time zone database of this host has it (package tzdata)")
}

impl Windows {
    fn is_open_in(&self, zone: &TimeZone, at: Timestamp) -> bool {
        let shown = zone.to_datetime(at);
        let (minute, day) = (i16::from(shown.hour()) * 60 + i16::from(shown.minute()), shown.weekday());
        self.spans.iter().any(|span| match span.from < span.until {
            true => (span.from..span.until).contains(&minute) && span.begins_on(day),
            false => {
                minute >= span.from && span.begins_on(day) || minute < span.until && span.begins_on(day.previous())
            }
        })
    }
}

/// Whether all of these windows are open.
pub(super) fn are_open(windows: &[&Windows], at: Timestamp) -> bool {
    windows.iter().all(|windows| windows.is_open_in(&zone(windows.zone), at))
}

/// The first whole minute after a time at which all of these windows are open or not, as asked.
pub(super) fn next(windows: &[&Windows], after: Timestamp, open: bool) -> Timestamp {
    let zones: Vec<_> = windows.iter().map(|windows| (windows, zone(windows.zone))).collect();
    let first = after.as_second().div_euclid(60) + 1;
    (first..first + HORIZON * 24 * 60)
        .map(|minute| Timestamp::from_second(minute * 60).unwrap())
        .find(|at| zones.iter().all(|(windows, zone)| windows.is_open_in(zone, *at)) == open)
        .expect("it opens and closes within the horizon")
}

/// The next change of the time in the vessel's zone.
pub(super) fn next_time_change(after: Timestamp) -> Timestamp {
    zone(NIGHTS.zone).following(after).next().expect("the zone has summer and winter").timestamp()
}

/// The offset of the vessel's zone from UTC, in seconds.
pub(super) fn offset(at: Timestamp) -> i32 {
    zone(NIGHTS.zone).to_offset(at).seconds()
}

/// A day in UTC, counted from 1970.
pub(super) fn day(at: Timestamp) -> i64 {
    at.as_second().div_euclid(86_400)
}

/// The first day of the month in UTC that contains a time.
pub(super) fn first_of_month(at: Timestamp) -> i64 {
    let date = TimeZone::UTC.to_datetime(at).date();
    day(at) - i64::from(date.day()) + 1
}

/// When the day after that of a time begins.
pub(super) fn next_day(at: Timestamp) -> Timestamp {
    Timestamp::from_second((day(at) + 1) * 86_400).unwrap()
}

/// When the month after that of a time begins.
pub(super) fn next_month(at: Timestamp) -> Timestamp {
    let date = TimeZone::UTC.to_datetime(at).date();
    let days = i64::from(date.days_in_month()) + first_of_month(at);
    Timestamp::from_second(days * 86_400).unwrap()
}

/// A time so many seconds later.
pub(super) fn later(at: Timestamp, seconds: i64) -> Timestamp {
    at + SignedDuration::from_secs(seconds)
}
