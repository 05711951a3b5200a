//! Paths that retirement wants ingest to check again, because their source files are no longer the delivered versions.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::bell::Bell;
use crate::names::RelPath;

/// Queue of paths that ingest must check again. Clones share the queue.
#[derive(Clone, Debug, Default)]
pub struct Recheck {
    paths: Arc<Mutex<BTreeSet<RelPath>>>,
    bell: Bell,
}

impl Recheck {
    /// Requests a check of a path.
    pub(super) fn at(&self, path: RelPath) {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
        self.bell.ring();
    }

    /// Waits until checks are requested, and takes the paths.
    pub(super) async fn asked(&self) -> Vec<RelPath> {
        self.bell.rung().await;
        std::mem::take(&mut *self.paths.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}
