//! Times that people write on the command line: a date with or without a time of day, a time of day, or a duration.

use jiff::{Zoned, civil};

use crate::settings::parse_duration;

/// Parses a time in the future: `2026-05-01 08:00`, `2026-05-01`, `08:00` for the next one, or a duration from now such
/// as `2h`.
pub(super) fn in_future(text: &str, now: &Zoned) -> Result<Zoned, String> {
    let found = match parse_duration(text) {
        Some(wait) => now.checked_add(wait).map_err(|_| invalid(text))?,
        None => on_a_day(text, now, |found| if found > now { 0 } else { 1 })?,
    };
    if found <= *now {
        return Err(format!("the time `{text}` has passed; name one in the future"));
    }
    Ok(found)
}

/// Parses a time that may have passed: `2026-05-01 08:00`, `2026-05-01`, `08:00` for the last one, or a duration before
/// now such as `2h`.
pub(super) fn in_past(text: &str, now: &Zoned) -> Result<Zoned, String> {
    match parse_duration(text) {
        Some(ago) => now.checked_sub(ago).map_err(|_| invalid(text)),
        None => on_a_day(text, now, |found| if found <= now { 0 } else { -1 }),
    }
}

/// Parses a date or a time of day. `move_by` gets the time of day today, and returns by how many days to move it.
fn on_a_day(text: &str, now: &Zoned, move_by: impl Fn(&Zoned) -> i64) -> Result<Zoned, String> {
    let zone = now.time_zone().clone();
    if let Ok(date) = text.parse::<civil::DateTime>() {
        return date.to_zoned(zone).map_err(|_| invalid(text));
    }
    let time = text.parse::<civil::Time>().map_err(|_| invalid(text))?;
    let of = |date: civil::Date| date.to_datetime(time).to_zoned(zone.clone()).map_err(|_| invalid(text));
    let days = move_by(&of(now.date())?);
    of(now.date().checked_add(jiff::Span::new().days(days)).map_err(|_| invalid(text))?)
}

fn invalid(text: &str) -> String {
    format!("invalid time `{text}`; expected one such as `2026-05-01 08:00`, `08:00`, or a duration such as 2h or 3d")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, now: &str) -> Result<String, String> {
        in_future(text, &now.parse().unwrap()).map(|time| time.strftime("%Y-%m-%d %H:%M %z").to_string())
    }

    #[test]
    fn a_time_is_a_date_a_time_of_day_or_a_duration_and_lies_in_the_future() {
        let now = "2026-03-28T20:00:00+01:00[Europe/Berlin]";
        for (text, expected) in [
            ("2h", "2026-03-28 22:00 +0100"),
            ("90", "2026-03-28 20:01 +0100"),
            ("21:30", "2026-03-28 21:30 +0100"),
            ("08:00", "2026-03-29 08:00 +0200"),
            ("2026-05-01 08:00", "2026-05-01 08:00 +0200"),
            ("2026-05-01", "2026-05-01 00:00 +0200"),
            // This time does not exist: the clock is put forward from 2 to 3.
            ("02:30", "2026-03-29 03:30 +0200"),
        ] {
            assert_eq!(parsed(text, now).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["", "soon", "25:00", "2026-03-28 19:00", "0s", "2026-13-01", "99999999999d"] {
            assert!(parsed(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_that_has_passed_is_the_last_one() {
        let now = "2026-03-28T20:00:00+01:00[Europe/Berlin]";
        let past = |text| in_past(text, &now.parse().unwrap()).map(|time| time.strftime("%Y-%m-%d %H:%M").to_string());
        for (text, expected) in [
            ("2h", "2026-03-28 18:00"),
            ("21:30", "2026-03-27 21:30"),
            ("08:00", "2026-03-28 08:00"),
            ("2026-03-01", "2026-03-01 00:00"),
            ("2026-05-01 08:00", "2026-05-01 08:00"),
        ] {
            assert_eq!(past(text).as_deref(), Ok(expected), "{text}");
        }
        assert!(past("soon").is_err());
    }
}
