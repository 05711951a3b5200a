//! `BudgetReserve`: the last part of a budget, which is kept for files of high priority.

use std::fmt;

use super::budget::Limit;
use super::priorities::Priorities;
use super::priority::Priority;
use super::problems::Diagnostic;

/// The last part of each limit of a budget, and the priorities of the files that may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reserve {
    /// The part of each limit in percent, from 1 to 99.
    percent: u8,
    /// The lowest priority that may use the reserve.
    lowest: Priority,
}

impl Reserve {
    /// Returns the priorities that may use the reserve.
    pub fn priorities(self) -> Priorities {
        Priorities::from(self.lowest)
    }

    /// Returns the part of a limit, in bytes, that files of any priority may use.
    pub fn leaves(self, limit: &Limit) -> u64 {
        limit.bytes - limit.bytes / 100 * u64::from(self.percent)
    }
}

impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}% {}", self.percent, self.lowest.as_str())
    }
}

/// Parses `20% high`, or `none`.
pub(super) fn reserve(text: &str) -> Result<Option<Reserve>, Diagnostic> {
    if text == "none" {
        return Ok(None);
    }
    let diagnostic = || {
        let remedy = "expected a part from 1% to 99% and a priority, such as 20% high, or none";
        Diagnostic::new(format!("invalid reserve `{text}`"), remedy)
    };
    let (percent, word) = text.split_once('%').ok_or_else(diagnostic)?;
    let percent = percent.trim_end();
    let is_number = !percent.is_empty() && percent.bytes().all(|b| b.is_ascii_digit());
    let percent = is_number.then(|| percent.parse::<u8>().ok()).flatten().filter(|part| (1..100).contains(part));
    let lowest = Priority::named(word.trim());
    let (Some(percent), Some(lowest)) = (percent, lowest) else { return Err(diagnostic()) };
    if lowest == Priority::Bulk {
        let message = format!("`{text}` has no effect: files of every priority may use this reserve");
        return Err(Diagnostic::new(message, "name a higher priority, such as high, or remove the line"));
    }
    Ok(Some(Reserve { percent, lowest }))
}

#[cfg(test)]
mod tests {
    use super::super::budget::budget;
    use super::*;

    #[test]
    fn a_reserve_is_the_last_part_of_each_limit() {
        let kept = reserve("20% high").unwrap().unwrap();
        let budget = budget("50 MB/day, 1 GB/month").unwrap();
        let leaves: Vec<_> = budget.limits().iter().map(|limit| kept.leaves(limit)).collect();
        assert_eq!((leaves, kept.to_string().as_str()), (vec![40_000_000, 800_000_000], "20% high"));
        assert_eq!(kept.priorities(), Priorities::from(Priority::High));
        assert_eq!(reserve("none").unwrap(), None);
        for bad in ["", "20 high", "0% high", "100% high", "20%", "20% highest", "-1% low", "300% high", "5% bulk"] {
            assert!(reserve(bad).is_err(), "{bad}");
        }
    }
}
