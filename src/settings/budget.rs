//! `Budget`: the maximum number of bytes that may go over a link, or to a vessel, in a day or a month. `units` parses
//! the units of bytes.
//!
//! Days and months are those of UTC, so that no budget depends on a time zone or on daylight saving.

use std::fmt;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::problems::Diagnostic;
use super::units;
use super::values::{list, not_empty};
use crate::records::UtcDay;

/// Limits for the number of bytes on a link or to a vessel. The default is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget(Vec<Limit>);

/// The maximum number of bytes in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// The number of bytes.
    pub bytes: u64,
    /// The period.
    pub period: Period,
}

/// The period of a budget, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
}

impl Period {
    /// Returns the period's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Returns the first day of the period that contains a time in milliseconds since 1970.
    pub fn first_day(self, at: i64) -> UtcDay {
        match self {
            Self::Day => UtcDay::at(at),
            Self::Month => UtcDay::at(month(at).0),
        }
    }

    /// Returns when the period that contains `at` ends. Both times are in milliseconds since 1970.
    pub fn ends(self, at: i64) -> i64 {
        match self {
            Self::Day => UtcDay::at(at).0.saturating_add(1).saturating_mul(86_400_000),
            Self::Month => month(at).1,
        }
    }
}

/// Returns the beginning and the end of the month that contains `at`, in milliseconds since 1970.
fn month(at: i64) -> (i64, i64) {
    let now = Timestamp::from_millisecond(at).unwrap_or_default().to_zoned(TimeZone::UTC);
    let first = now.first_of_month().and_then(|first| first.start_of_day());
    let next = first.clone().and_then(|first| first.checked_add(1.month()));
    let milliseconds = |time: Result<jiff::Zoned, jiff::Error>| time.map(|time| time.timestamp().as_millisecond());
    (milliseconds(first).unwrap_or(at), milliseconds(next).unwrap_or(i64::MAX))
}

impl Budget {
    /// Returns whether there is no limit.
    pub fn is_unlimited(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the limits.
    pub fn limits(&self) -> &[Limit] {
        &self.0
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, period) = (self.bytes, self.period.word());
        let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "KB"), (1, "B")];
        let whole = units.into_iter().find(|(size, _)| bytes >= *size && bytes % size == 0);
        let (size, unit) = whole.unwrap_or((1, "B"));
        write!(f, "{} {unit}/{period}", bytes / size)
    }
}

/// Parses `50 MB/day, 1 GB/month`, or `none`.
pub(super) fn budget(text: &str) -> Result<Budget, Diagnostic> {
    not_empty(text.trim_matches([',', ' ']))?;
    if text == "none" {
        return Ok(Budget::default());
    }
    let mut limits: Vec<Limit> = Vec::new();
    for entry in list(text) {
        let limit = limit(entry)?;
        if limits.iter().any(|other| other.period == limit.period) {
            let message = format!("`{entry}` is a second limit per {}", limit.period.word());
            return Err(Diagnostic::new(message, "keep one of the two"));
        }
        limits.push(limit);
    }
    let of = |period| limits.iter().find(|limit| limit.period == period).map(|limit| limit.bytes);
    if let (Some(day), Some(month)) = (of(Period::Day), of(Period::Month))
        && day > month
    {
        let message = "the daily budget is larger than the monthly budget";
        return Err(Diagnostic::new(message, "remove the daily budget, or make it smaller"));
    }
    Ok(Budget(limits))
}

fn limit(entry: &str) -> Result<Limit, Diagnostic> {
    let diagnostic = || {
        let remedy = "expected an amount for each day or month, such as 50 MB/day or 1 GB/month, or none";
        Diagnostic::new(format!("invalid budget `{entry}`"), remedy)
    };
    let (amount, period) = entry.split_once('/').ok_or_else(diagnostic)?;
    let period = match period.trim() {
        "day" => Period::Day,
        "month" => Period::Month,
        _ => return Err(diagnostic()),
    };
    let bytes = units::size(amount.trim_end()).filter(|bytes| (1..=1 << 50).contains(bytes)).ok_or_else(diagnostic)?;
    Ok(Limit { bytes, period })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(time: &str) -> i64 {
        time.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn budgets_are_for_days_and_months_of_utc() {
        let budget = budget("50 MB/day, 1 GB/month").unwrap();
        let limits = budget.limits();
        assert_eq!((limits[0].bytes, limits[0].period), (50_000_000, Period::Day));
        assert_eq!(limits.iter().map(ToString::to_string).collect::<Vec<_>>(), ["50 MB/day", "1 GB/month"]);
        let late = at("2028-02-29T23:59:59.999Z");
        for period in [Period::Day, Period::Month] {
            assert_eq!(period.ends(late), at("2028-03-01T00:00:00Z"));
            assert!(period.ends(late + 1) > late + 1);
        }
        assert_eq!(Period::Month.first_day(late), UtcDay::at(at("2028-02-01T00:00:00Z")));
        assert_eq!(Period::Month.ends(at("2026-12-31T00:00:00Z")), at("2027-01-01T00:00:00Z"));
        assert_eq!(Period::Day.first_day(late), UtcDay::at(late));
    }

    #[test]
    fn texts_that_are_no_budget_are_refused() {
        for bad in
            ["", ",", "50 MB", "50 MB/week", "0/day", "x/day", "1 MB/day, 2 MB/day", "2 GB/day, 1 GB/month", "none/day"]
        {
            assert!(budget(bad).is_err(), "{bad}");
        }
        assert!(budget("none").unwrap().is_unlimited());
    }

    proptest! {
        #[test]
        fn no_text_and_no_time_make_a_budget_panic(any: String, near in "[0-9]{0,20} ?[MGKB]{0,3}/?(day|month|)", at: i64) {
            let _ = (budget(&any), budget(&near).map(|budget| budget.limits().iter().map(ToString::to_string).collect::<Vec<_>>()));
            for period in [Period::Day, Period::Month] {
                let _ = (period.first_day(at), period.ends(at));
            }
        }
    }
}
