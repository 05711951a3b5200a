//! The last lines of the log that concern each vessel, in memory, for the page.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

/// Maximum number of lines that are kept for a vessel, and of characters of a line.
const LINES: usize = 40;
const LONGEST: usize = 400;
/// Maximum number of vessels with lines, which bounds the memory.
const VESSELS: usize = 4096;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// When the line was logged.
    pub at: Timestamp,
    /// The level: `error`, `warn` or `info`.
    pub level: &'static str,
    /// The text and its fields, without the vessel.
    pub text: String,
}

/// The last lines of all vessels. Cheap to clone; clones share the lines.
#[derive(Clone, Debug, Default)]
pub struct LogLines(Arc<Mutex<HashMap<String, VecDeque<LogLine>>>>);

impl LogLines {
    /// Keeps a line that concerns a vessel.
    pub fn keep(&self, vessel: &str, level: &'static str, text: &str) {
        let mut all = self.all();
        if !all.contains_key(vessel) {
            if all.len() >= VESSELS {
                return;
            }
            all.insert(vessel.to_owned(), VecDeque::new());
        }
        let Some(lines) = all.get_mut(vessel) else { return };
        if lines.len() >= LINES {
            lines.pop_front();
        }
        lines.push_back(LogLine { at: Timestamp::now(), level, text: text.chars().take(LONGEST).collect() });
    }

    /// Returns the lines of a vessel, newest first.
    pub(super) fn of(&self, vessel: &str) -> Vec<LogLine> {
        self.all().get(vessel).map(|lines| lines.iter().rev().cloned().collect()).unwrap_or_default()
    }

    /// Returns the texts of the lines of a vessel, newest first.
    #[cfg(test)]
    pub(crate) fn texts(&self, vessel: &str) -> Vec<String> {
        self.of(vessel).into_iter().map(|line| line.text).collect()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, VecDeque<LogLine>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_each_vessel_are_kept_newest_first_and_short() {
        let lines = LogLines::default();
        for number in 0..100 {
            lines.keep("tern", "info", &format!("{number} {}", "x".repeat(1000)));
        }
        lines.keep("gull", "warn", "one");
        let of = lines.of("tern");
        assert!(of.len() == LINES && of[0].text.starts_with("99 ") && of[0].text.len() == LONGEST, "{}", of.len());
        assert_eq!((lines.of("gull").len(), lines.of("nobody").len()), (1, 0));
    }
}
