//! Single files that can't be read, or are skipped: each is said once, and an unreadable one is tried again less and less
//! often.

use std::collections::HashMap;
use std::time::Duration;

use super::Directory;
use super::troubles::Concern;
use crate::local::{DiskError, Kind};
use crate::names::RelPath;

/// The first and the longest pause before a file that couldn't be read is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct FileProblems {
    /// How often each file couldn't be read in a row.
    unreadable: HashMap<RelPath, u32>,
    skipped: HashMap<RelPath, Kind>,
}

impl FileProblems {
    /// A file can't be read. Says so, and returns how soon it is to be tried again.
    pub(super) fn unreadable(&mut self, directory: &Directory, path: &RelPath, error: &DiskError) -> Duration {
        directory.trouble_with(Concern::File(path.clone()), &error.fault().to_string());
        let failures = self.unreadable.entry(path.clone()).or_default();
        *failures = failures.saturating_add(1);
        LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(*failures - 1))
    }

    /// A file could be read, or is not there any more.
    pub(super) fn solved(&mut self, directory: &Directory, path: &RelPath) {
        if self.unreadable.remove(path).is_some() {
            directory.mended(|concern| matches!(concern, Concern::File(mended) if mended == path));
        }
    }

    /// Says, once, that what has this name is skipped.
    pub(super) fn skipped(&mut self, directory: &Directory, path: &RelPath, kind: Kind) {
        // The settings' own check has named the program's own files.
        if self.skipped.insert(path.clone(), kind) == Some(kind) || kind == Kind::Own {
            return;
        }
        if directory.settings.only.as_ref() == Some(path) {
            self.only_is_skipped(directory, path, kind);
        } else {
            tracing::warn!(directory = %directory.settings.name, file = %path, "Skipped: it is a {kind}");
        }
    }

    /// Nothing has this name any more.
    pub(super) fn gone(&mut self, directory: &Directory, path: &RelPath) {
        self.skipped.remove(path);
        self.solved(directory, path);
    }

    /// Says that the one file that is `Location` can't be sent.
    fn only_is_skipped(&mut self, directory: &Directory, path: &RelPath, kind: Kind) {
        let location = directory.settings.location.join(path.as_path());
        let links = if directory.settings.is_mirror() { ", or set Links = follow" } else { "" };
        let remedy = format!("set Location to the file itself{links}");
        let text = format!("cannot send {}: it is a {kind}; {remedy}", location.display());
        directory.trouble_with(Concern::File(path.clone()), &text);
        // So that it is taken back when the file can be sent, or is not there any more.
        self.unreadable.entry(path.clone()).or_default();
    }
}
