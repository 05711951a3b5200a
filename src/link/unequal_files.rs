//! Remembers which files on a vessel were compared with a version and differ, so that they are not compared again.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::records::VersionId;

/// Maximum number of pairs that are remembered. Beyond it, all are forgotten, and files are compared once more.
const MOST: usize = 4096;

/// Pairs of versions: one that is to be delivered, and a delivered one whose file on the vessel cannot be copied for
/// it.
#[derive(Default)]
pub(crate) struct UnequalFiles(Mutex<HashSet<(VersionId, VersionId)>>);

impl UnequalFiles {
    fn pairs(&self) -> MutexGuard<'_, HashSet<(VersionId, VersionId)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn contains(&self, wanted: VersionId, delivered: VersionId) -> bool {
        self.pairs().contains(&(wanted, delivered))
    }

    pub(crate) fn add(&self, wanted: VersionId, delivered: &[VersionId]) {
        let mut pairs = self.pairs();
        if pairs.len() + delivered.len() > MOST {
            pairs.clear();
        }
        pairs.extend(delivered.iter().map(|delivered| (wanted, *delivered)));
    }

    /// Takes over the pairs from an earlier connection to the same host.
    pub(crate) fn learn_from(&self, earlier: &Self) {
        let known = earlier.pairs().clone();
        self.pairs().extend(known);
    }
}
