//! A bell: tells a task that there may be something to do.
//!
//! Bells carry no data. Whoever hears one asks the ledger, so a bell that rings twice or for nothing costs one look.

use std::sync::Arc;

use tokio::sync::Notify;

/// A cheap-to-clone bell with one listener. A ring that nobody waits for is remembered; several are one.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// A new, silent bell.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rings it.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Waits for the next ring, or returns at once for one that was missed.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}
