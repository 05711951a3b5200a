//! What is sent first: the priority of a directory, and the order of its files.

use std::time::Duration;

use super::problems::Diagnostic;
use super::values::list;
use super::view::{View, Written};

/// The priority of a directory's files; the highest comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Before everything else.
    Urgent,
    /// Before normal.
    High,
    /// The default.
    #[default]
    Normal,
    /// After normal.
    Low,
    /// After everything else.
    Bulk,
}

impl Priority {
    /// All priorities, the highest first.
    pub const ALL: [Self; 5] = [Self::Urgent, Self::High, Self::Normal, Self::Low, Self::Bulk];

    /// Returns the word of the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
            Self::Bulk => "bulk",
        }
    }

    pub(super) fn parse(written: &Written<'_>) -> Result<Self, Diagnostic> {
        written.accept(named)
    }

    /// Parses priorities, separated by commas.
    pub(super) fn parse_list(written: &Written<'_>) -> Result<Vec<Self>, Diagnostic> {
        written.accept(|text| list(text).map(named).collect())
    }
}

fn named(word: &str) -> Option<Priority> {
    Priority::ALL.into_iter().find(|priority| priority.as_str() == word)
}

/// The order in which the files of a directory are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// The file that waits longest first.
    #[default]
    Oldest,
    /// The file that was changed last first.
    Newest,
    /// The smallest file first.
    Smallest,
    /// By path.
    Name,
}

impl Order {
    /// Returns the word of the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oldest => "oldest",
            Self::Newest => "newest",
            Self::Smallest => "smallest",
            Self::Name => "name",
        }
    }
}

/// Parses a duration, or `none`.
pub(super) fn expire(written: &Written<'_>) -> Result<Option<Duration>, Diagnostic> {
    if written.text == "none" { Ok(None) } else { written.duration().map(Some) }
}

/// Warns of keys that have no effect without `Schedule`.
pub(super) fn check_schedule(view: &View<'_>) {
    if view.sets("Schedule") {
        return;
    }
    for key in ["Schedule.tz", "ScheduleExempt"] {
        if view.own.is_some_and(|own| own.entry(key).is_some()) {
            let diagnostic = Diagnostic::new("has no effect without Schedule", "add a Schedule, or remove the line");
            view.problems.warn(view.place_of(key), diagnostic);
        }
    }
}
