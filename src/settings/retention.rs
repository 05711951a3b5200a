//! Retention of delivered sources and of the history.

use std::time::Duration;

use super::problems::Diagnostic;
use super::written_value::Written;

/// `KeepProcessed`: what happens to a source that every vessel has received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepProcessed {
    /// The source moves to `processed/` and stays there.
    #[default]
    Forever,
    /// The source moves to `processed/` and is deleted there after this time.
    For(Duration),
    /// The source is deleted at once.
    No,
}

/// Parses `forever`, `no` or a duration.
pub(super) fn keep_processed(written: &Written<'_>) -> Result<KeepProcessed, Diagnostic> {
    match written.text {
        "forever" => Ok(KeepProcessed::Forever),
        "no" => Ok(KeepProcessed::No),
        _ => written.duration().map(KeepProcessed::For),
    }
}

/// Parses `forever` or a duration.
pub(super) fn keep_history(written: &Written<'_>) -> Result<Option<Duration>, Diagnostic> {
    if written.text == "forever" { Ok(None) } else { written.duration().map(Some) }
}
