//! The running deliveries of moved files, and whether each has secured its content. The content is secured once the
//! vessel's file at the earlier path was opened or copied; then that file may be replaced.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::records::DeliveryId;

/// The running deliveries of moved files of one session.
#[derive(Default)]
pub(super) struct SecuredFiles(Mutex<HashMap<DeliveryId, bool>>);

/// A running delivery; it has ended when this value is dropped.
pub(super) struct Running<'a>(&'a SecuredFiles, DeliveryId);

impl SecuredFiles {
    fn change<T>(&self, change: impl FnOnce(&mut HashMap<DeliveryId, bool>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a delivery, whose content is not secured yet.
    pub(super) fn begin(&self, delivery: DeliveryId) -> Running<'_> {
        self.change(|running| running.insert(delivery, false));
        Running(self, delivery)
    }

    /// Records that the content of a delivery is secured, or is not needed. Ignored for deliveries of files that were
    /// not moved.
    pub(super) fn secured(&self, delivery: DeliveryId) {
        self.change(|running| running.get_mut(&delivery).into_iter().for_each(|secured| *secured = true));
    }

    /// Returns whether the content of a delivery is secured; `None` if it is not running.
    pub(super) fn is_secured(&self, delivery: DeliveryId) -> Option<bool> {
        self.change(|running| running.get(&delivery).copied())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.change(|running| running.remove(&self.1));
    }
}
