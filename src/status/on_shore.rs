//! The part of a file's history that the shore's disk shows: why the file was not taken in, and what a person can do.

use std::sync::Arc;

use jiff::Timestamp;

use super::reporter::{MOMENT, Reporter, awaits_deletion, local, quoted};
use crate::ledger::VersionHistory;
use crate::local::{self, DiskError, Found, Kind, PathState, Rules};
use crate::names::{DirectoryName, RelPath};
use crate::records::FileStamp;
use crate::settings::Directory;
use crate::text::duration;

/// Returns the state of a path on the shore; `None` when the disk doesn't respond.
pub(super) fn look(directory: &Directory, path: &RelPath) -> Option<Result<PathState, DiskError>> {
    let (directory, path) = (Arc::new(directory.clone()), path.clone());
    local::within(MOMENT, move || local::classify(&Rules::new(&directory), &path))
}

impl Reporter<'_> {
    /// Explains that a waiting file is not delivered because its directory is no longer in the settings, and lists
    /// possible actions; returns `None` when the file doesn't wait.
    pub(super) fn not_configured(
        &self,
        name: &DirectoryName,
        versions: &[VersionHistory],
    ) -> Option<(String, Vec<String>)> {
        let waits =
            |history: &VersionHistory| history.ended.is_none() && !history.complete && history.forgotten_at.is_none();
        versions.iter().any(waits).then(|| {
            let why = format!("[Directory {name}] is no longer in the settings, so its undelivered files wait");
            let file = self.settings.file.display();
            let you_can = vec![
                format!("add [Directory {name}] to {file} again, under this name"),
                format!("{} forget {}     (stop delivering this file)", self.command, self.file),
                format!(
                    "{} forget --all {}     (stop delivering all waiting files of the directory)",
                    self.command,
                    quoted(name.as_str())
                ),
            ];
            (why, you_can)
        })
    }

    /// Describes the file's state on the disk, and possible actions; returns `None` when the ledger already shows the
    /// state.
    pub(super) fn disk(
        &self,
        (directory, state): (&Directory, Option<Result<PathState, DiskError>>),
        versions: &[VersionHistory],
    ) -> Option<(String, Vec<String>)> {
        let current = versions.last().filter(|version| version.ended.is_none());
        let trouble = self.document.directories.iter().find(|one| one.name == directory.name.as_str());
        let trouble = trouble.and_then(|one| one.trouble.clone());
        let rules = Rules::new(&Arc::new(directory.clone()));
        let state = match state {
            Some(Ok(state)) => state,
            Some(Err(e)) => return Some((e.fault().to_string(), Vec::new())),
            None => {
                let location = directory.location.display();
                let why = format!("{location} does not answer: its file system hangs");
                return Some((why, vec!["restore its server, or unmount it (umount -l)".to_owned()]));
            }
        };
        match (state, current) {
            (PathState::Taken(found) | PathState::Directory(found), Some(current)) => {
                if found.traits.stamp == current.version.stamp {
                    trouble.filter(|_| current.complete).map(|trouble| (trouble, Vec::new()))
                } else {
                    Some(self.not_taken_in("the file changed after it was taken in", directory, found.traits.stamp))
                }
            }
            (PathState::Directory(_), None) if !rules.takes_directories() => {
                let why = "this is a directory; the files in it are delivered only with `Recursive = yes`";
                Some((why.to_owned(), Vec::new()))
            }
            (PathState::Taken(found) | PathState::Directory(found), None) => {
                Some(self.left_or_awaited(directory, &rules, &found, trouble))
            }
            (PathState::Skipped(Kind::Own), _) => {
                Some(("skipped: it is one of contentmonster's own files, which are never sent".to_owned(), Vec::new()))
            }
            (PathState::Skipped(kind @ Kind::Unreadable(_)), _) => {
                Some((format!("skipped: {}", kind.why_skipped()), Vec::new()))
            }
            (PathState::Skipped(kind), _) => {
                Some((format!("skipped: {}; only regular files are delivered", kind.why_skipped()), Vec::new()))
            }
            (PathState::Gone, Some(current)) if awaits_deletion(current, directory) => Some(match trouble {
                Some(trouble) => (
                    format!("the source no longer exists; its deletion on the vessels is held back: {trouble}"),
                    Vec::new(),
                ),
                None if self.document.daemon.is_none() => (
                    "the source no longer exists; the vessels' copies are deleted when contentmonster runs again"
                        .to_owned(),
                    self.start(),
                ),
                None => {
                    ("the source no longer exists; the vessels' copies are about to be deleted".to_owned(), Vec::new())
                }
            }),
            (PathState::Gone, Some(current)) if !current.complete => Some((
                "the source no longer exists; the remaining deliveries are dropped once contentmonster detects this"
                    .to_owned(),
                Vec::new(),
            )),
            (PathState::Gone, _) => None,
        }
    }

    /// Explains why a file on the disk has not been admitted.
    fn left_or_awaited(
        &self,
        directory: &Directory,
        rules: &Rules,
        found: &Found,
        trouble: Option<String>,
    ) -> (String, Vec<String>) {
        let name = &directory.name;
        let stamp = found.traits.stamp;
        if !rules.may_take(&found.path) {
            let why =
                format!("skipped: IgnoreNames, Include, Exclude or Recursive of [Directory {name}] excludes this path");
            (why, vec!["rename the file, or change these keys in the settings".to_owned()])
        } else if !rules.takes_size(stamp.size) {
            let why = format!("skipped: MinSize or MaxSize of [Directory {name}] excludes this file");
            (why, vec!["change these keys in the settings".to_owned()])
        } else if self.settings.vessels_of(name).is_empty() {
            let why = format!("skipped: no vessel receives [Directory {name}]");
            (why, vec!["remove the directory from the vessels' IgnoreDirs, or add it to their Dirs".to_owned()])
        } else if let Some(trouble) = trouble {
            (format!("not taken in yet: {trouble}"), Vec::new())
        } else {
            self.not_taken_in("not taken in yet", directory, stamp)
        }
    }

    fn not_taken_in(&self, what: &str, directory: &Directory, stamp: FileStamp) -> (String, Vec<String>) {
        if self.document.daemon.is_none() {
            return (format!("{what}: contentmonster is not running"), self.start());
        }
        let changed = Timestamp::new(stamp.mtime, 0).unwrap_or(Timestamp::MIN);
        let age = self.document.at.duration_since(changed);
        let least = directory.min_age;
        if i128::try_from(least.as_nanos()).is_ok_and(|least| age.as_nanos() < least) {
            let (changed, least) = (local(changed), duration(least));
            return (format!("{what} (last change {changed}): waiting until its age is MinAge ({least})"), Vec::new());
        }
        let (changed, quiet) = (local(changed), duration(directory.settle_time));
        let interval = match directory.interval.is_zero() {
            true => String::new(),
            false => format!(", and then for the next Interval (every {})", duration(directory.interval)),
        };
        let why = format!(
            "{what} (last change {changed}): waiting until the file is closed, or has not changed for \
             {quiet}{interval}"
        );
        let advice = "finish writing the file; a file that was written elsewhere and is moved here is taken in at once";
        (why, vec![advice.to_owned()])
    }
}
