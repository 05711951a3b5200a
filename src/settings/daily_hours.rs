//! A span of the day, such as `22:00-06:00`, for rates and schedules.

use super::problems::Diagnostic;

/// The number of minutes in a day.
const DAY: u16 = 24 * 60;

/// A span from one minute of the day (inclusive) to another (exclusive). It crosses midnight if the end is not later
/// than the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DailyHours {
    from: u16,
    until: u16,
}

impl DailyHours {
    /// The whole day.
    pub(super) const WHOLE_DAY: Self = Self { from: 0, until: DAY };

    /// Parses two times of day with a `-` between them.
    pub(super) fn parse(text: &str) -> Result<Self, Diagnostic> {
        let diagnostic = || {
            let remedy =
                "expected two times of day with a `-` and no spaces between them, such as 08:00-18:00 or 22:00-06:00";
            Diagnostic::new(format!("invalid time span `{text}`"), remedy)
        };
        let (from, until) = text.split_once('-').ok_or_else(diagnostic)?;
        let (from, until) = (minute(from).ok_or_else(diagnostic)?, minute(until).ok_or_else(diagnostic)?);
        if from == until || from == DAY {
            return Err(diagnostic());
        }
        Ok(Self { from, until })
    }

    /// Returns whether the span contains `minute` on any day.
    pub(super) fn holds(self, minute: u16) -> bool {
        self.holds_of_its_day(minute) || self.holds_of_next_day(minute)
    }

    /// Returns whether the span contains `minute` on the day on which the span begins.
    pub(super) fn holds_of_its_day(self, minute: u16) -> bool {
        minute >= self.from && (minute < self.until || self.crosses_midnight())
    }

    /// Returns whether the span contains `minute` on the day after the one on which the span begins.
    pub(super) fn holds_of_next_day(self, minute: u16) -> bool {
        self.crosses_midnight() && minute < self.until
    }

    /// Returns the minutes of the day at which the span begins and ends.
    pub(super) fn edges(self) -> [u16; 2] {
        [self.from, self.until % DAY]
    }

    fn crosses_midnight(self) -> bool {
        self.until <= self.from
    }
}

/// Parses `08:30` as minutes since midnight; `24:00` is the end of the day.
fn minute(text: &str) -> Option<u16> {
    let number = |digits: &str, lengths: &[usize]| {
        let sound = lengths.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        sound.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (number(hours, &[1, 2])?, number(minutes, &[2])?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY).then_some(minute)
}
