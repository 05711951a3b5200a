//! Sends hints to the other shores, to wake tasks there as a bell wakes tasks in this process.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::bell::Bell;
use crate::ledger::{Hint, Ledger};

/// How long hints are collected before they are sent.
const COLLECT: Duration = Duration::from_millis(10);

/// Hints that are to be sent.
#[derive(Default)]
pub(super) struct Relay {
    hints: Mutex<BTreeSet<Hint>>,
    bell: Bell,
}

impl Relay {
    fn locked(&self) -> MutexGuard<'_, BTreeSet<Hint>> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, hint: Hint) {
        self.locked().insert(hint);
        self.bell.ring();
    }

    /// Sends hints as they are added; never returns. Drops hints that can't be sent, because the other shores also
    /// check for work regularly.
    pub(super) async fn send(self: Arc<Self>, ledger: Ledger) {
        loop {
            self.bell.rung().await;
            tokio::time::sleep(COLLECT).await;
            let hints: Vec<Hint> = std::mem::take(&mut *self.locked()).into_iter().collect();
            if let Err(e) = ledger.send_hints(&hints).await {
                tracing::debug!("Cannot send hints to other shores: {e}");
            }
        }
    }

    /// Sends a hint whenever a bell rings.
    pub(super) fn attach(self: &Arc<Self>, bell: Bell, hint: Hint) -> AbortOnDropHandle<()> {
        let relay = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                bell.rung().await;
                relay.add(hint.clone());
            }
        }))
    }
}
