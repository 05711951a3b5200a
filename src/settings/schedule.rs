//! `Schedule` and `Schedule.tz`: the weekly windows in which files are sent.
//!
//! A window is open whenever the wall clock of its time zone shows a time inside it. So a window in the hour that is
//! repeated at the end of daylight saving opens twice, and a window in the hour that is skipped at the beginning of
//! daylight saving does not open that day.

use std::ops::Range;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

use super::daily_hours::DailyHours;
use super::problems::Diagnostic;
use super::values::{list, not_empty};

/// Number of days to search for a change. A schedule that does not change within them never changes: a window that
/// opens once a week is skipped at most twice, at the beginning of daylight saving or when a time zone omits a day.
const HORIZON: i32 = 22;
/// Maximum number of changes that are examined in a search for a time at which several schedules are open. If none of
/// these changes opens all schedules, the schedules count as never open together.
const MOST_CHANGES: usize = 4000;

/// Weekly windows, by the wall clock of a time zone. The default is always open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The windows; empty: always open.
    pub(super) windows: Vec<Window>,
    /// The time zone; `None`: this host's current time zone, which may change.
    pub(super) zone: Option<TimeZone>,
}

/// A span of the day on some days of the week; a span across midnight belongs to the day on which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// A bit for each day, Monday first.
    days: u8,
    span: DailyHours,
}

impl Schedule {
    /// Returns whether the schedule is open at all times.
    pub fn is_always_open(&self) -> bool {
        self.windows.is_empty()
    }

    /// Returns whether the schedule is open at a time in milliseconds since 1970.
    pub fn is_open(&self, at: i64) -> bool {
        self.is_always_open() || self.is_open_in(&self.zone(), timestamp(at))
    }

    /// Returns the first time after `at` (both in milliseconds since 1970) at which the schedule opens or closes;
    /// `None` if it never does.
    pub fn next_change(&self, at: i64) -> Option<i64> {
        if self.is_always_open() {
            return None;
        }
        let (zone, now) = (self.zone(), timestamp(at));
        let is_open = self.is_open_in(&zone, now);
        let changes = self.edges(&zone, now).into_iter().filter(|edge| *edge > now);
        let changes = changes.filter(|edge| self.is_open_in(&zone, *edge) != is_open);
        changes.min().map(Timestamp::as_millisecond)
    }

    /// Returns the first time from `at` on at which all of `schedules` are open; `None` if they are never open
    /// together.
    pub fn next_open(schedules: &[&Self], at: i64) -> Option<i64> {
        let mut at = at;
        for _ in 0..MOST_CHANGES {
            let Some(closed) = schedules.iter().find(|schedule| !schedule.is_open(at)) else { return Some(at) };
            at = closed.next_change(at)?;
        }
        None
    }

    /// Returns the first time after `at` at which one of `schedules` opens or closes; `None` if none of them ever does.
    pub fn next_change_of(schedules: &[&Self], at: i64) -> Option<i64> {
        schedules.iter().filter_map(|schedule| schedule.next_change(at)).min()
    }

    /// Returns the times in `during` at which all of `schedules` are open, in order.
    pub fn open_times(schedules: &[&Self], during: Range<i64>) -> Vec<Range<i64>> {
        let (mut times, mut at) = (Vec::new(), during.start);
        while let Some(opens) = Self::next_open(schedules, at).filter(|opens| *opens < during.end) {
            let closes = schedules.iter().filter_map(|schedule| schedule.next_change(opens)).min();
            at = closes.unwrap_or(during.end).min(during.end);
            match times.last_mut() {
                // All schedules are open at the end of the last range, so that range continues.
                Some(Range { end, .. }) if *end == opens => *end = at,
                _ => times.push(opens..at),
            }
            if at == during.end {
                break;
            }
        }
        times
    }

    /// Returns whether schedules are never open together. Checks [`HORIZON`] days in winter and in summer.
    pub(super) fn never_open(schedules: &[&Self]) -> bool {
        /// The beginnings of January and of July 2026.
        const STARTS: [i64; 2] = [1_767_225_600_000, 1_782_864_000_000];
        const LONGEST: i64 = HORIZON as i64 * 86_400_000;
        let opens_soon = |start| Self::next_open(schedules, start).is_some_and(|opens| opens - start < LONGEST);
        !STARTS.into_iter().any(opens_soon)
    }

    fn zone(&self) -> TimeZone {
        self.zone.clone().unwrap_or_else(TimeZone::system)
    }

    fn is_open_in(&self, zone: &TimeZone, at: Timestamp) -> bool {
        let now = zone.to_datetime(at);
        let minute = u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs());
        let (today, yesterday) = (day(now.weekday()), day(now.weekday().previous()));
        self.windows.iter().any(|window| {
            window.days & today != 0 && window.span.holds_of_its_day(minute)
                || window.days & yesterday != 0 && window.span.holds_of_next_day(minute)
        })
    }

    /// Returns the times around `now`, up to the horizon, at which the schedule may open or close: the edges of its
    /// windows on every day, and the changes of the time zone's offset.
    fn edges(&self, zone: &TimeZone, now: Timestamp) -> Vec<Timestamp> {
        let today = zone.to_datetime(now).date();
        let end = now.checked_add(Span::new().hours(24 * HORIZON)).unwrap_or(Timestamp::MAX);
        let mut edges: Vec<Timestamp> =
            zone.following(now).map(|change| change.timestamp()).take_while(|change| *change <= end).collect();
        for date in (0..=HORIZON).filter_map(|days| today.checked_add(days.days()).ok()) {
            for minute in self.windows.iter().flat_map(|window| window.span.edges()) {
                edges.extend(times_of(zone, date, minute));
            }
        }
        edges
    }
}

/// Returns the times at which the wall clock shows a minute of a day: two times if the clock is set back over that
/// minute, otherwise the same time twice.
fn times_of(zone: &TimeZone, date: Date, minute: u16) -> impl Iterator<Item = Timestamp> + use<> {
    let time = Time::midnight().wrapping_add(i64::from(minute).minutes());
    let shown = zone.to_ambiguous_timestamp(DateTime::from_parts(date, time));
    // For a minute that the clock skips, these are two other times, at which the schedule doesn't change.
    [shown.earlier(), shown.later()].into_iter().flatten()
}

fn timestamp(at: i64) -> Timestamp {
    Timestamp::from_millisecond(at).unwrap_or(if at < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

fn day(weekday: Weekday) -> u8 {
    1 << weekday.to_monday_zero_offset()
}

/// Parses `22:00-06:00, Sat, Mon-Fri 12:00-13:00`, or `always`.
pub(super) fn windows(text: &str) -> Result<Vec<Window>, Diagnostic> {
    not_empty(text.trim_matches([',', ' ']))?;
    if text == "always" {
        return Ok(Vec::new());
    }
    let windows: Vec<_> = list(text).map(window).collect::<Result<_, _>>()?;
    // Windows that cover every minute of the week become the default, which is always open.
    let minutes = || (0..7).flat_map(|weekday| (0..24 * 60).map(move |minute| (weekday, minute)));
    let is_open = |weekday: u8, minute| {
        windows.iter().any(|window: &Window| {
            window.days & 1 << weekday != 0 && window.span.holds_of_its_day(minute)
                || window.days & 1 << ((weekday + 6) % 7) != 0 && window.span.holds_of_next_day(minute)
        })
    };
    Ok(if minutes().all(|(weekday, minute)| is_open(weekday, minute)) { Vec::new() } else { windows })
}

fn window(text: &str) -> Result<Window, Diagnostic> {
    const ALL: u8 = 0b111_1111;
    let mut words = text.split_whitespace();
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    let diagnostic = || {
        let remedy = "expected days, a time span, or both, such as Sat, 22:00-06:00 or Mon-Fri 22:00-06:00";
        Diagnostic::new(format!("invalid window `{text}`"), remedy)
    };
    if words.next().is_some() {
        return Err(diagnostic());
    }
    if first.contains(':') {
        return if second.is_some() {
            Err(diagnostic())
        } else {
            Ok(Window { days: ALL, span: DailyHours::parse(first)? })
        };
    }
    let days = days(first).ok_or_else(diagnostic)?;
    let span = second.map_or(Ok(DailyHours::WHOLE_DAY), DailyHours::parse)?;
    Ok(Window { days, span })
}

/// Parses `Sat` or `Fri-Mon`.
fn days(text: &str) -> Option<u8> {
    let Some((first, last)) = text.split_once('-') else { return weekday(text).map(day) };
    let (first, last) = (weekday(first)?, weekday(last)?);
    Some(
        first.cycle_forward().take(usize::try_from(first.until(last)).ok()? + 1).map(day).fold(0, |all, day| all | day),
    )
}

/// Parses the name of a day, or its first three letters, in any case.
fn weekday(text: &str) -> Option<Weekday> {
    const NAMES: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let text = text.to_ascii_lowercase();
    let at = NAMES.iter().position(|name| *name == text || text.len() == 3 && name.starts_with(&text))?;
    Weekday::from_monday_zero_offset(i8::try_from(at).ok()?).ok()
}

/// Parses the name of a time zone, or `local`.
pub(super) fn zone(text: &str) -> Result<Option<TimeZone>, Diagnostic> {
    if not_empty(text)? == "local" {
        return Ok(None);
    }
    let diagnostic = |_| {
        let remedy = "expected a name such as UTC, Europe/Berlin or Etc/GMT-3 that this host's time zone database \
                      (package tzdata) contains, or local";
        Diagnostic::new(format!("unknown time zone `{text}`"), remedy)
    };
    if text == "UTC" { Ok(Some(TimeZone::UTC)) } else { TimeZone::get(text).map(Some).map_err(diagnostic) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: i64 = 60_000;
    const DAY: i64 = 1440 * MINUTE;

    fn schedule(text: &str, zone: &TimeZone) -> Schedule {
        Schedule { windows: windows(text).unwrap(), zone: Some(zone.clone()) }
    }

    fn utc(text: &str) -> Schedule {
        schedule(text, &TimeZone::UTC)
    }

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn ms(time: &str) -> i64 {
        time.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn shown(at: Option<i64>) -> String {
        at.map_or_else(|| "never".to_owned(), |at| timestamp(at).to_string())
    }

    #[test]
    fn a_schedule_is_open_in_its_windows_only() {
        // 2026-08-03 is a Monday.
        let windows = utc("22:00-06:00, Sat, Sun, Wed 12:00-12:30");
        for (time, open) in [
            ("2026-08-03T21:59:59.999Z", false),
            ("2026-08-03T22:00:00Z", true),
            ("2026-08-04T05:59:59.999Z", true),
            ("2026-08-04T06:00:00Z", false),
            ("2026-08-04T12:10:00Z", false),
            ("2026-08-05T12:10:00Z", true),
            ("2026-08-05T12:30:00Z", false),
            ("2026-08-08T12:00:00Z", true),
            ("2026-08-09T21:00:00Z", true),
            ("2026-08-10T06:00:00Z", false),
        ] {
            assert_eq!(windows.is_open(ms(time)), open, "{time}");
        }
        assert_eq!(shown(windows.next_change(ms("2026-08-03T12:00:00Z"))), "2026-08-03T22:00:00Z");
        assert_eq!(shown(windows.next_change(ms("2026-08-07T22:00:00Z"))), "2026-08-10T06:00:00Z", "over the weekend");
    }

    #[test]
    fn a_window_across_midnight_belongs_to_the_day_on_which_it_begins() {
        let windows = utc("Fri 22:00-06:00");
        assert!(windows.is_open(ms("2026-08-08T05:00:00Z")), "Saturday morning");
        assert!(!windows.is_open(ms("2026-08-07T05:00:00Z")), "Friday morning");
        assert_eq!(shown(windows.next_change(ms("2026-08-08T06:00:00Z"))), "2026-08-14T22:00:00Z");
    }

    #[test]
    fn a_schedule_without_gaps_is_always_open() {
        for text in ["always", "00:00-24:00", "Mon-Sun", "fri-MON, Tuesday-Thursday", "06:00-22:00, 22:00-06:00"] {
            let windows = utc(text);
            assert!(windows.is_always_open(), "{text}");
            assert_eq!(windows.next_change(0), None, "{text}");
        }
        assert_eq!(utc("always"), Schedule { zone: Some(TimeZone::UTC), ..Schedule::default() });
    }

    #[test]
    fn daylight_saving_moves_the_edges_with_the_wall_clock() {
        let night = schedule("01:30-02:30", &berlin());
        // On 2026-03-29 the clock goes from 02:00 to 03:00, and on 2026-10-25 from 03:00 back to 02:00.
        for (after, change) in [
            ("2026-03-28T12:00:00Z", "2026-03-29T00:30:00Z"),
            ("2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"),
            ("2026-03-29T01:00:00Z", "2026-03-29T23:30:00Z"),
            ("2026-10-24T12:00:00Z", "2026-10-24T23:30:00Z"),
            ("2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z"),
            ("2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"),
            ("2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"),
            ("2026-10-25T01:30:00Z", "2026-10-26T00:30:00Z"),
        ] {
            assert_eq!(shown(night.next_change(ms(after))), change, "after {after}");
        }
        // A window in the skipped hour does not open that day.
        let skipped = schedule("Sun 02:15-02:45", &berlin());
        assert_eq!(shown(skipped.next_change(ms("2026-03-24T12:00:00Z"))), "2026-04-05T00:15:00Z");
    }

    #[test]
    fn several_schedules_are_open_together_or_never() {
        let (days, nights, east) =
            (utc("06:00-22:00"), utc("22:00-06:00"), schedule("22:00-06:00", &TimeZone::posix("<+09>-9").unwrap()));
        assert!(Schedule::never_open(&[&days, &nights]));
        assert!(Schedule::never_open(&[&utc("Mon-Fri"), &utc("Sat"), &nights]));
        assert!(!Schedule::never_open(&[&days, &east, &Schedule::default()]));
        let at = ms("2026-08-03T00:00:00Z");
        assert_eq!(Schedule::next_open(&[&days, &nights], at), None);
        assert_eq!(shown(Schedule::next_open(&[&days, &east], at)), "2026-08-03T13:00:00Z");
        assert_eq!(Schedule::next_open(&[], at), Some(at));
        assert_eq!(
            Schedule::open_times(&[&utc("00:00-02:00, 01:00-03:00, 12:00-13:00")], at..at + DAY / 2 + 10 * MINUTE),
            [at..at + 180 * MINUTE, at + DAY / 2..at + DAY / 2 + 10 * MINUTE]
        );
        assert_eq!(Schedule::open_times(&[&Schedule::default()], at..at + DAY).len(), 1);
    }

    #[test]
    fn text_that_names_no_window_is_refused() {
        for bad in [
            "",
            ",",
            "never",
            "Foo",
            "Mon-",
            "-Mon",
            "Mon-Foo",
            "M",
            "Mon 8-18",
            "22:00-06:00 Mon",
            "Mon 22:00-22:00",
            "Mon Tue",
            "Mon 22:00-06:00 Tue",
            "22:00",
            "always, Mon",
        ] {
            assert!(windows(bad).is_err(), "{bad}");
        }
        assert!(zone("Nowhere/City").is_err() && zone("").is_err() && zone("../../etc/passwd").is_err());
        assert_eq!(zone("local").unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_schedule_panic(any: String, near in "[A-Za-z]{0,4}-?[a-z]{0,3} ?[0-9:-]{0,12},?", at: i64) {
            for text in [any, near] {
                let windows = windows(&text).unwrap_or_default();
                let schedule = Schedule { windows, zone: Some(berlin()) };
                let _ = (schedule.is_open(at), schedule.next_change(at), zone(&text));
            }
        }

        /// Compares the next change with the first minute at which the state differs, found by trying every minute.
        #[test]
        fn the_next_change_is_the_first_minute_that_differs(
            text in "(Mon|Sun|Fri-Tue|Sat|Wed-Sun) (0[0-3]|2[0-3]):(00|15|30)-0[4-7]:(00|45)",
            start in prop::sample::select(vec!["2026-03-27T22:00:00Z", "2026-10-23T22:00:00Z", "2026-08-03T00:00:00Z"]),
            minutes in 0_i64..3000,
        ) {
            let schedule = schedule(&text, &berlin());
            let at = ms(start) + minutes * MINUTE;
            let first = (1..9 * 1440).map(|later| at + later * MINUTE)
                .find(|later| schedule.is_open(*later) != schedule.is_open(at));
            prop_assert_eq!(shown(schedule.next_change(at)), shown(first));
        }
    }
}
