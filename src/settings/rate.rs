//! `RateLimit`: the limit in bytes per second, depending on the time of day.

use super::daily_hours::DailyHours;
use super::problems::Diagnostic;
use super::units;
use super::values::{list, not_empty};

/// Rate limits by the local time of day. The default is no limit at any time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateSchedule {
    /// The time spans with their rates; the first span that contains the time applies.
    spans: Vec<(DailyHours, Rate)>,
    /// The rate at all other times.
    otherwise: Rate,
}

/// Bytes per second; `None`: no limit.
type Rate = Option<u64>;

impl RateSchedule {
    /// Returns the limit in bytes per second at a minute of the day, counted from local midnight; `None`: no limit.
    pub fn at(&self, minute: u16) -> Option<u64> {
        self.spans.iter().find(|(span, _)| span.holds(minute)).map_or(self.otherwise, |(_, rate)| *rate)
    }

    /// Returns whether there is no limit at any time.
    pub fn is_unlimited(&self) -> bool {
        self.otherwise.is_none() && self.spans.iter().all(|(_, rate)| rate.is_none())
    }

    /// Parses a rate schedule, for unit tests.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        schedule(text).expect("the schedule of a test is valid")
    }
}

/// Parses a text such as `08:00-18:00 2 MiB/s, 10 MiB/s`: rates with a time span, and at most one rate without.
pub(super) fn schedule(text: &str) -> Result<RateSchedule, Diagnostic> {
    not_empty(text.trim_matches([',', ' ']))?;
    let mut schedule = RateSchedule::default();
    let mut otherwise = None;
    for entry in list(text) {
        let (first, rest) = entry.split_once(char::is_whitespace).unwrap_or((entry, ""));
        if first.contains([':', '-']) {
            let span = DailyHours::parse(first)?;
            if rest.is_empty() {
                let remedy = format!("write one, such as `{first} 2 MiB/s`");
                return Err(Diagnostic::new(format!("no rate follows `{first}`"), remedy));
            }
            schedule.spans.push((span, rate(rest.trim_start())?));
        } else if otherwise.replace(rate(entry)?).is_some() {
            let message = format!("`{entry}` is a second rate without a time of day");
            return Err(Diagnostic::new(message, "put a time before it, such as 08:00-18:00, or keep one of the two"));
        }
    }
    schedule.otherwise = otherwise.flatten();
    Ok(schedule)
}

fn rate(text: &str) -> Result<Rate, Diagnostic> {
    let found = units::rate(text).filter(|rate| (1 << 10..=1 << 40).contains(rate)).map(Some);
    let rate = if text == "none" { Some(None) } else { found };
    let remedy = "expected 1 KiB/s to 1 TiB/s, such as 10 MiB/s or 8 Mbit/s, or none";
    rate.ok_or_else(|| Diagnostic::new(format!("invalid rate `{text}`"), remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(hour: u16, minute: u16) -> u16 {
        hour * 60 + minute
    }

    #[test]
    fn the_first_span_that_holds_the_time_counts_and_what_has_no_span_otherwise() {
        let schedule = RateSchedule::of("08:00-18:00 2 KiB/s, 10 KiB/s, 12:00-20:00 none");
        for (minute, rate) in [
            (at(0, 0), Some(10 << 10)),
            (at(7, 59), Some(10 << 10)),
            (at(8, 0), Some(2 << 10)),
            (at(17, 59), Some(2 << 10)),
            (at(18, 0), None),
            (at(20, 0), Some(10 << 10)),
        ] {
            assert_eq!(schedule.at(minute), rate, "{minute}");
        }
        assert!(!schedule.is_unlimited());
    }

    #[test]
    fn a_span_may_cross_midnight_and_end_with_the_day() {
        let schedule = RateSchedule::of("22:00-6:00 none, 12:00-24:00 2 KiB/s, 1 KiB/s");
        for (minute, rate) in [
            (at(23, 59), None),
            (at(0, 0), None),
            (at(5, 59), None),
            (at(6, 0), Some(1 << 10)),
            (at(12, 0), Some(2 << 10)),
            (at(21, 59), Some(2 << 10)),
        ] {
            assert_eq!(schedule.at(minute), rate, "{minute}");
        }
    }

    #[test]
    fn without_a_match_there_is_no_limit() {
        let schedule = RateSchedule::of("08:00-18:00 8 Mbit/s");
        assert_eq!((schedule.at(at(12, 0)), schedule.at(at(18, 0))), (Some(1_000_000), None));
        assert!(RateSchedule::of("none").is_unlimited() && RateSchedule::of("22:00-06:00 none").is_unlimited());
        assert_eq!(RateSchedule::of("none"), RateSchedule::default());
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for bad in [
            "",
            ",",
            "fast",
            "08:00-18:00",
            "08:00-18:00 fast",
            "08:00-08:00 none",
            "24:00-08:00 none",
            "08:00-24:01 none",
            "08:60-09:00 none",
            "8-18 none",
            "08:00 none",
            "08:00 - 18:00 none",
            "+8:00-18:00 none",
            "1 MiB/s, 2 MiB/s",
            "none, none",
        ] {
            assert!(schedule(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_schedule_panic(any: String, near in "[0-9:-]{0,12} ?[0-9a-zA-Z/ ,]{0,12}") {
            let _ = (schedule(&any), schedule(&near));
        }
    }
}
