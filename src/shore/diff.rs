//! Compares the disk with the ledger: which paths are new or changed, and which are missing.
//!
//! This module only decides. It does not access the disk, the ledger or the clock: the caller passes in the entries on
//! the disk and in the ledger, and acts on the result.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::ledger::CurrentVersion;
use crate::local::{DiskError, Found, Kind, PathState, Rules, Scan};
use crate::names::RelPath;
use crate::records::{Traits, VersionKind};

/// Differences between a scan and the ledger.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ScanDiff {
    /// New or changed files.
    pub(super) files: Vec<Found>,
    /// New or changed directories and links. They are checked on the disk once more before they are recorded; files
    /// need no such check, because they are checked when they are read.
    pub(super) others: Vec<RelPath>,
    /// Paths that the ledger knows and that no longer exist.
    pub(super) missing: Vec<RelPath>,
}

/// Compares a scan (`found`) with the ledger (`known`), both sorted by path. Paths at and below `unread` could not be
/// checked and never count as missing. `skipped` are paths that exist but are not sent.
pub(super) fn diff_scan(
    rules: &Rules,
    found: Vec<Found>,
    skipped: &HashSet<&RelPath>,
    known: Vec<CurrentVersion>,
    unread: &[RelPath],
) -> ScanDiff {
    let mut known = known.into_iter().peekable();
    let (mut missing, mut others) = (Vec::new(), Vec::new());
    let new_file = |found: Found| {
        missing.extend(std::iter::from_fn(|| known.next_if(|v| v.path < found.path)));
        let same = known.next_if(|v| v.path == found.path).is_some_and(|v| is_same(rules, &v.traits, &found.traits));
        match found.traits.kind {
            _ if same => None,
            VersionKind::File => Some(found),
            _ => {
                others.push(found.path);
                None
            }
        }
    };
    // `collect` reuses the memory of `found`, which may contain a million new files.
    let files = found.into_iter().filter_map(new_file).collect();
    missing.extend(known);
    missing.retain(|v| v.traits.kind != VersionKind::Gone && rules.may_take(&v.path));
    missing.retain(|v| v.traits.kind != VersionKind::Skipped || !skipped.contains(&v.path));
    missing.retain(|v| !unread.iter().any(|unread| v.path.as_path().starts_with(unread.as_path())));
    ScanDiff { files, others, missing: missing.into_iter().map(|v| v.path).collect() }
}

/// Results of checking single paths on the disk, without a comparison with the ledger.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Files, directories and links that the rules accept.
    pub(super) taken: Vec<Found>,
    /// Directories that a scan may enter according to the rules. Their entries must be checked too.
    pub(super) entered: Vec<RelPath>,
    /// Directories that are not recorded themselves. If the ledger knows a file or link at such a path, that file or
    /// link no longer exists.
    pub(super) replaced: Vec<RelPath>,
    /// Paths that do not exist.
    pub(super) gone: Vec<RelPath>,
    /// Paths whose entries are skipped, with the kind of each entry.
    pub(super) skipped: Vec<(RelPath, Kind)>,
    /// Paths that could not be checked, with the error of each check.
    pub(super) failed: Vec<(RelPath, DiskError)>,
}

/// Sorts the results of checking single paths.
pub(super) fn sort_looks(rules: &Rules, looks: Vec<(RelPath, Result<PathState, DiskError>)>) -> Looks {
    let mut sorted = Looks::default();
    for (path, look) in looks {
        match look {
            Ok(PathState::Taken(one)) => sorted.taken.push(one),
            Ok(PathState::Directory(one)) => {
                let entered = rules.enters(&path);
                if entered && rules.takes_directories() {
                    sorted.taken.push(one);
                } else {
                    sorted.replaced.push(path.clone());
                }
                if entered {
                    sorted.entered.push(path);
                }
            }
            Ok(PathState::Gone) => sorted.gone.push(path),
            Ok(PathState::Skipped(kind)) => sorted.skipped.push((path, kind)),
            Err(error) => sorted.failed.push((path, error)),
        }
    }
    sorted
}

/// Returns the found entries that differ from the ledger, and the paths of the entries that don't differ.
pub(super) fn diff_found(rules: &Rules, found: Vec<Found>, known: Vec<CurrentVersion>) -> (Vec<Found>, Vec<RelPath>) {
    let known: HashMap<RelPath, Traits> = known.into_iter().map(|v| (v.path, v.traits)).collect();
    let (same, changed): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|one| known.get(&one.path).is_some_and(|known| is_same(rules, known, &one.traits)));
    (changed, same.into_iter().map(|one| one.path).collect())
}

/// Returns whether an entry has the kind, stamp and mode that the ledger knows and, if the rules require it, the same
/// owner.
pub(super) fn is_same(rules: &Rules, known: &Traits, found: &Traits) -> bool {
    (known.kind, known.stamp, known.mode) == (found.kind, found.stamp, found.mode)
        && (!rules.minds_owners() || known.owner == found.owner)
}

/// Returns the paths that a scan could not read: directories that can't be listed, and entries whose state can't be
/// read. An error (lost server, failing disk) never counts as a deletion.
pub(super) fn unread(scan: &Scan, location: &Path) -> Vec<RelPath> {
    let unlisted = scan.unread.iter().filter_map(|error| match error {
        DiskError::Io { path, .. } => RelPath::new(path.strip_prefix(location).ok()?.as_os_str().as_bytes()).ok(),
        _ => None,
    });
    let unseen = scan.skipped.iter().filter(|skipped| matches!(skipped.kind, Kind::Unreadable(_)));
    unlisted.chain(unseen.map(|skipped| skipped.path.clone())).collect()
}
