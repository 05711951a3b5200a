//! A bell: one task rings it to wake another task that may have work.
//!
//! Bells carry no data. The listener queries the ledger, so a ring that was not needed costs only one query.

use std::sync::Arc;

use tokio::sync::Notify;

/// A bell with one listener; cheap to clone. A ring without a waiting listener is remembered; several such rings count
/// as one.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// Creates a bell that has not rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rings the bell.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Waits for the next ring, or returns at once if the bell has rung since the last call.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}
