//! Remembers between which directories a vessel can't clone files.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::names::RemotePath;

/// Maximum number of pairs of directories that are remembered. Beyond it, all are forgotten.
const MOST: usize = 1024;

/// The directory of a file, and the directory of its clone.
pub(super) type Pair = (RemotePath, RemotePath);

/// Pairs of directories between which the vessel can't clone files.
#[derive(Default)]
pub(super) struct NoClones(Mutex<HashSet<Pair>>);

impl NoClones {
    fn pairs(&self) -> MutexGuard<'_, HashSet<Pair>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn contains(&self, pair: &Pair) -> bool {
        self.pairs().contains(pair)
    }

    pub(super) fn add(&self, pair: Pair) {
        let mut pairs = self.pairs();
        if pairs.len() >= MOST {
            pairs.clear();
        }
        pairs.insert(pair);
    }
}
