//! [`Reporter`], the input for the history of one file, and helpers for the modules that write the history: the disk
//! timeout, local times, and quoting for a shell.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::document::Document;
use crate::ledger::VersionHistory;
use crate::records::VersionKind;
use crate::settings::{Directory, Settings};

/// The data from which a history is made.
pub struct Reporter<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// The current status.
    pub document: &'a Document,
    /// The program's command line, for commands that a person can type.
    pub command: &'a str,
    /// The file as the person named it, quoted for a shell.
    pub file: &'a str,
}

impl Reporter<'_> {
    /// Returns the commands that start the program.
    pub(super) fn start(&self) -> Vec<String> {
        vec![format!("{}            (runs until it is stopped)", self.command), format!("{} --once", self.command)]
    }
}

/// Timeout for a query to a disk.
pub(super) const MOMENT: Duration = Duration::from_secs(2);

/// Returns whether a version whose source is gone must still be deleted on the vessels, because its directory is a
/// mirror with `Delete = yes`.
pub(super) fn awaits_deletion(history: &VersionHistory, directory: &Directory) -> bool {
    let stays = !directory.is_mirror() || !directory.delete || history.ended.is_some();
    !stays && history.version.kind != VersionKind::Gone
}

/// Formats a time in the local time zone.
pub(super) fn local(moment: Timestamp) -> String {
    moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Quotes a word for a shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        assert_eq!((quoted("a-b"), quoted("a b"), quoted("it's")), ("a-b".into(), "'a b'".into(), r"'it'\''s'".into()));
    }
}
