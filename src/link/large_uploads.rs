//! The order in which a session uploads large files: for each priority, one file after the other, without a pause
//! between them.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::{self, Notify};

use crate::records::DeliveryId;
use crate::settings::Priority;

/// The turns of one session's large files.
#[derive(Default)]
pub(crate) struct LargeUploads {
    /// One for each priority, held by the file whose turn it is.
    turns: [sync::Mutex<()>; Priority::ALL.len()],
    /// Running deliveries of which no byte is left to send.
    sent: Mutex<HashSet<DeliveryId>>,
    has_sent: Notify,
}

/// The turn to upload a large file. It ends when it is dropped, at the latest.
pub(crate) struct UploadTurn<'a> {
    uploads: &'a LargeUploads,
    delivery: DeliveryId,
    turn: Mutex<Option<sync::MutexGuard<'a, ()>>>,
}

impl UploadTurn<'_> {
    /// Lets the next file begin, because no byte of this one is left to send. Waiting for the answers would leave the
    /// link idle for a round trip.
    pub(crate) fn pass_on(&self) {
        let turn = self.turn.lock().expect("no code panics while it holds this lock").take();
        if turn.is_some() {
            self.uploads.sent().insert(self.delivery);
            self.uploads.has_sent.notify_one();
        }
    }
}

impl Drop for UploadTurn<'_> {
    fn drop(&mut self) {
        self.pass_on();
    }
}

impl LargeUploads {
    fn sent(&self) -> MutexGuard<'_, HashSet<DeliveryId>> {
        self.sent.lock().expect("no code panics while it holds this lock")
    }

    /// Waits until no other large file of the same priority is being uploaded, and takes the turn.
    pub(super) async fn turn(&self, delivery: DeliveryId, priority: Priority) -> UploadTurn<'_> {
        let turn = self.turns[priority as usize].lock().await;
        UploadTurn { uploads: self, delivery, turn: Mutex::new(Some(turn)) }
    }

    /// Returns whether no byte of a running delivery's file is left to send.
    pub(crate) fn has_sent(&self, delivery: DeliveryId) -> bool {
        self.sent().contains(&delivery)
    }

    /// Waits until a file has passed its turn on.
    pub(crate) async fn passed_on(&self) {
        self.has_sent.notified().await;
    }

    /// Forgets a delivery that has ended.
    pub(crate) fn forget(&self, delivery: DeliveryId) {
        self.sent().remove(&delivery);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_turn_ends_when_it_is_passed_on_or_dropped() {
        let uploads = LargeUploads::default();
        let turn = |delivery| uploads.turn(DeliveryId(delivery), Priority::Normal);
        let (first, mut second) = (turn(1).await, std::pin::pin!(turn(2)));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(uploads.turn(DeliveryId(3), Priority::Urgent).now_or_never().is_some(), "another priority");
        uploads.forget(DeliveryId(3));
        first.pass_on();
        let second = second.await;
        uploads.passed_on().await;
        assert!(uploads.has_sent(DeliveryId(1)) && !uploads.has_sent(DeliveryId(2)));
        uploads.forget(DeliveryId(1));
        drop(first);
        assert!(!uploads.has_sent(DeliveryId(1)), "it has passed its turn on only once");
        drop(second);
        uploads.passed_on().await;
        assert!(uploads.has_sent(DeliveryId(2)));
        turn(4).await;
    }
}
