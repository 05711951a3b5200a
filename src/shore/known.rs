//! The current versions of a directory in the ledger, each as a hash of 16 bytes. A scan skips entries that match their
//! version, so it takes little memory even if the directory has many files. Only the other entries are compared path by
//! path.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::Directory;
use crate::fault::Fault;
use crate::ledger::CurrentVersion;
use crate::names::RelPath;
use crate::records::{Traits, VersionKind};

/// Number of versions that are read from the ledger at a time.
const PAGE: u32 = 4096;

/// The current versions of a directory, as read from the ledger.
pub(super) struct Known {
    minds_owners: bool,
    /// The keys of the hashes. They are random, so that nobody can choose paths with equal hashes.
    keys: [RandomState; 2],
    /// Hashes of path and traits, sorted.
    prints: Vec<u128>,
    /// For each hash, whether the scan has found its entry on the disk.
    seen: Vec<bool>,
}

impl Known {
    /// Reads the current versions of a directory. `minds_owners` says whether another owner counts as a difference.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub(super) async fn read(directory: &Directory, minds_owners: bool) -> Result<Self, Fault> {
        let count = directory.ledger.count_current(&directory.settings.name).await.map_err(|e| e.fault())?;
        let mut known = Self::nothing(minds_owners);
        known.prints.reserve(usize::try_from(count).unwrap_or(0));
        for_each_version(directory, |version| known.add(&version)).await?;
        known.sort();
        Ok(known)
    }

    /// Creates an empty value, which matches no entry.
    pub(super) fn nothing(minds_owners: bool) -> Self {
        Self { minds_owners, keys: [RandomState::new(), RandomState::new()], prints: Vec::new(), seen: Vec::new() }
    }

    fn add(&mut self, version: &CurrentVersion) {
        // A version of the kind `Gone` records a deletion, so the disk has no entry for it.
        if version.traits.kind != VersionKind::Gone {
            self.prints.push(self.print(&version.path, &version.traits));
        }
    }

    fn sort(&mut self) {
        self.prints.sort_unstable();
        self.seen = vec![false; self.prints.len()];
    }

    fn print(&self, path: &RelPath, traits: &Traits) -> u128 {
        let Traits { kind, stamp, mode, owner } = traits;
        let whole = (path, kind, stamp, mode, owner.filter(|_| self.minds_owners));
        let [high, low] = self.keys.each_ref().map(|key| u128::from(key.hash_one(whole)));
        high << 64 | low
    }

    /// Records that the scan has found an entry. Returns whether the entry equals its version in the ledger.
    pub(super) fn see(&mut self, path: &RelPath, traits: &Traits) -> bool {
        let Ok(at) = self.prints.binary_search(&self.print(path, traits)) else { return false };
        self.seen[at] = true;
        true
    }

    /// Returns whether the scan has found all versions of the ledger unchanged on the disk.
    pub(super) fn is_all_seen(&self) -> bool {
        self.seen.iter().all(|seen| *seen)
    }

    /// Returns the current versions, sorted by path, except those that the scan has found unchanged on the disk.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub(super) async fn unseen(&self, directory: &Directory) -> Result<Vec<CurrentVersion>, Fault> {
        let mut unseen = Vec::new();
        for_each_version(directory, |version| {
            let at = self.prints.binary_search(&self.print(&version.path, &version.traits));
            if !at.is_ok_and(|at| self.seen[at]) {
                unseen.push(version);
            }
        })
        .await?;
        unseen.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(unseen)
    }
}

/// Calls `act` for each current version of a directory.
async fn for_each_version(directory: &Directory, mut act: impl FnMut(CurrentVersion)) -> Result<(), Fault> {
    let (name, mut after) = (&directory.settings.name, None);
    loop {
        let page = directory.ledger.current_after(name, after.as_ref(), PAGE).await.map_err(|e| e.fault())?;
        let is_last = page.len() < PAGE as usize;
        after = page.last().map(|version| version.path.clone());
        page.into_iter().for_each(&mut act);
        if is_last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::FileStamp;

    fn version(path: &str, kind: VersionKind, size: u64, owner: Option<(u32, u32)>) -> CurrentVersion {
        let stamp = FileStamp { size, mtime: 5, mtime_nanos: 6, inode: 7 };
        CurrentVersion { path: RelPath::new(path).unwrap(), traits: Traits { kind, stamp, mode: 0o644, owner } }
    }

    fn known(minds_owners: bool, versions: &[CurrentVersion]) -> Known {
        let mut known = Known::nothing(minds_owners);
        versions.iter().for_each(|version| known.add(version));
        known.sort();
        known
    }

    fn sees(known: &mut Known, version: &CurrentVersion) -> bool {
        known.see(&version.path, &version.traits)
    }

    #[test]
    fn only_what_is_as_it_was_is_known() {
        let [a, b, gone] = [("a", VersionKind::File), ("b", VersionKind::Directory), ("gone", VersionKind::Gone)]
            .map(|(path, kind)| version(path, kind, 1, None));
        let mut known = known(false, &[a.clone(), b.clone(), gone.clone()]);
        for other in [version("a", VersionKind::File, 2, None), version("a", VersionKind::Link, 1, None), gone] {
            assert!(!sees(&mut known, &other), "{other:?}");
        }
        assert!(!sees(&mut known, &version("c", VersionKind::File, 1, None)));
        assert!(sees(&mut known, &a) && !known.is_all_seen());
        assert!(sees(&mut known, &a) && !known.is_all_seen(), "twice");
        assert!(sees(&mut known, &b) && known.is_all_seen());
    }

    #[test]
    fn an_owner_counts_only_where_it_is_minded() {
        let [one, other] = [1, 2].map(|owner| version("a", VersionKind::File, 1, Some((owner, 0))));
        assert!(sees(&mut known(false, std::slice::from_ref(&one)), &other));
        assert!(!sees(&mut known(true, std::slice::from_ref(&one)), &other));
        assert!(sees(&mut known(true, std::slice::from_ref(&one)), &one));
    }
}
