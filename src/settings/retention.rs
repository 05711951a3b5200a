//! What is kept, and for how long.

use std::time::Duration;

use super::problems::Diagnostic;
use super::units::duration;

/// `KeepProcessed`: what becomes of a source that every vessel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepProcessed {
    /// It moves to `processed/` and stays there.
    #[default]
    Forever,
    /// It moves to `processed/`, and is deleted there when it was there for so long.
    For(Duration),
    /// It is deleted.
    No,
}

/// `forever`, `no` or a duration.
pub(super) fn keep_processed(text: &str) -> Result<KeepProcessed, Diagnostic> {
    match text {
        "forever" => Ok(KeepProcessed::Forever),
        "no" => Ok(KeepProcessed::No),
        text => time(text, "give forever, no, or a time from 1s, such as 30d").map(KeepProcessed::For),
    }
}

/// `forever` or a duration.
pub(super) fn keep_history(text: &str) -> Result<Option<Duration>, Diagnostic> {
    if text == "forever" { Ok(None) } else { time(text, "give forever, or a time from 1s, such as 90d").map(Some) }
}

fn time(text: &str, remedy: &str) -> Result<Duration, Diagnostic> {
    duration("1s", "36500d")(text).map_err(|diagnostic| Diagnostic::new(diagnostic.message, remedy))
}
