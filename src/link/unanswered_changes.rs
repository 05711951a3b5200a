//! Tracks the deliveries that have requested a change of a final name on the vessel and have no answer yet.
//!
//! Such a request may still take effect after its connection was given up, even after a newer version was published
//! over another connection. As long as that is possible, no other delivery may use the paths of the delivery that sent
//! the request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::records::DeliveryId;

/// The number of unanswered changes of each delivery that has any.
#[derive(Default)]
pub(crate) struct UnansweredChanges {
    deliveries: Mutex<HashMap<DeliveryId, usize>>,
    answered: Notify,
}

/// A requested change. It counts as unanswered until [`Change::answered`] is called, even if this value is dropped.
#[must_use]
pub(crate) struct Change<'a> {
    changes: &'a UnansweredChanges,
    delivery: DeliveryId,
}

impl UnansweredChanges {
    fn deliveries(&self) -> MutexGuard<'_, HashMap<DeliveryId, usize>> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a change that is about to be requested.
    pub(crate) fn begin(&self, delivery: DeliveryId) -> Change<'_> {
        *self.deliveries().entry(delivery).or_default() += 1;
        Change { changes: self, delivery }
    }

    /// Returns whether a delivery has an unanswered change.
    pub(crate) fn has(&self, delivery: DeliveryId) -> bool {
        self.deliveries().contains_key(&delivery)
    }

    /// Forgets the unanswered changes of a delivery that has ended. Returns whether it had any.
    pub(crate) fn forget(&self, delivery: DeliveryId) -> bool {
        self.deliveries().remove(&delivery).is_some()
    }

    /// Waits until a delivery has no unanswered change.
    pub(crate) async fn all_answered(&self, delivery: DeliveryId) {
        loop {
            let answered = self.answered.notified();
            let mut answered = std::pin::pin!(answered);
            answered.as_mut().enable();
            if !self.has(delivery) {
                return;
            }
            answered.await;
        }
    }
}

impl Change<'_> {
    /// Removes the change, because the vessel has answered.
    pub(crate) fn answered(self) {
        let mut deliveries = self.changes.deliveries();
        if let Some(count) = deliveries.get_mut(&self.delivery) {
            *count -= 1;
            if *count == 0 {
                deliveries.remove(&self.delivery);
            }
        }
        drop(deliveries);
        self.changes.answered.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_unanswered_until_the_vessel_has_answered() {
        let changes = UnansweredChanges::default();
        let (one, two) = (changes.begin(DeliveryId(1)), changes.begin(DeliveryId(1)));
        one.answered();
        assert!(changes.has(DeliveryId(1)) && !changes.has(DeliveryId(2)));
        changes.all_answered(DeliveryId(2)).await;
        tokio::join!(changes.all_answered(DeliveryId(1)), async {
            tokio::task::yield_now().await;
            two.answered();
        });
        assert!(!changes.has(DeliveryId(1)));
        let _unanswered = changes.begin(DeliveryId(3));
        assert!(changes.forget(DeliveryId(3)) && !changes.has(DeliveryId(3)));
    }
}
