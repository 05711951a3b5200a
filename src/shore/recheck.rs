//! Paths that retirement wants to be looked at again: their sources are not what was delivered any more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::bell::Bell;
use crate::names::RelPath;

/// Paths for the watch to look at. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Recheck {
    paths: Arc<Mutex<BTreeSet<RelPath>>>,
    bell: Bell,
}

impl Recheck {
    /// Asks for a look at a path.
    pub(super) fn at(&self, path: RelPath) {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
        self.bell.ring();
    }

    /// Waits until some are asked for, and takes them.
    pub(super) async fn asked(&self) -> Vec<RelPath> {
        self.bell.rung().await;
        std::mem::take(&mut *self.paths.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}
