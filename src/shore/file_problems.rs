//! Tracks single files that can't be read or are skipped. Each of these files is reported once; unreadable files are
//! retried at growing intervals.

use std::collections::HashMap;
use std::time::Duration;

use super::Directory;
use super::troubles::Concern;
use crate::local::{DiskError, Kind};
use crate::names::RelPath;

/// The shortest and the longest wait before an unreadable file is retried.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct FileProblems {
    /// Number of consecutive failures to read each file.
    unreadable: HashMap<RelPath, u32>,
    skipped: HashMap<RelPath, Kind>,
}

impl FileProblems {
    /// Reports a file that can't be read, and returns the wait before the next attempt.
    pub(super) fn unreadable(&mut self, directory: &Directory, path: &RelPath, error: &DiskError) -> Duration {
        directory.trouble_with(Concern::File(path.clone()), &error.fault().to_string());
        let failures = self.unreadable.entry(path.clone()).or_default();
        *failures = failures.saturating_add(1);
        LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(*failures - 1))
    }

    /// Clears the trouble of a file that could be read or no longer exists.
    pub(super) fn solved(&mut self, directory: &Directory, path: &RelPath) {
        if self.unreadable.remove(path).is_some() {
            directory.mended(|concern| matches!(concern, Concern::File(mended) if mended == path));
        }
    }

    /// Reports once that the entry at a path is skipped.
    pub(super) fn skipped(&mut self, directory: &Directory, path: &RelPath, kind: Kind) {
        // The program's own files (`Kind::Own`) are already reported when the settings are checked.
        if self.skipped.insert(path.clone(), kind) == Some(kind) || kind == Kind::Own {
            return;
        }
        if directory.settings.only.as_ref() == Some(path) {
            self.only_is_skipped(directory, path, kind);
        } else {
            let why = kind.why_skipped();
            tracing::warn!(directory = %directory.settings.name, file = %path, "Skipped: {why}");
        }
    }

    /// Forgets a path that no longer exists.
    pub(super) fn gone(&mut self, directory: &Directory, path: &RelPath) {
        self.skipped.remove(path);
        self.solved(directory, path);
    }

    /// Reports that the single file named by `Location` can't be sent.
    fn only_is_skipped(&mut self, directory: &Directory, path: &RelPath, kind: Kind) {
        let location = directory.settings.location.join(path.as_path());
        let links = if directory.settings.is_mirror() { ", or set Links = follow" } else { "" };
        let remedy = match kind {
            Kind::Unreadable(_) => "check its permissions and its disk".to_owned(),
            Kind::Symlink => format!("set Location to the file itself{links}"),
            _ => "set Location to a regular file or a directory".to_owned(),
        };
        let text = format!("cannot send {}: {}; {remedy}", location.display(), kind.why_skipped());
        directory.trouble_with(Concern::File(path.clone()), &text);
        // This entry lets `solved` clear the trouble when the file can be sent or no longer exists.
        self.unreadable.entry(path.clone()).or_default();
    }
}
