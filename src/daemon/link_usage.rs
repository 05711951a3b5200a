//! Records the bytes on the links in the ledger, by vessel, way and day.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::link::LinkUsage;

/// Interval at which the meters are read. A crash loses the bytes counted since the last record.
const LOOK: Duration = Duration::from_secs(5);
/// Interval at which the meters are read while there is a budget. It is short, so that a crash loses few of the bytes
/// that count towards the budget.
const LOOK_AT_BUDGET: Duration = Duration::from_millis(500);
/// Fewer bytes than this, such as the keepalives of idle connections, are recorded only after [`PATIENCE`], because
/// each record writes to the disk.
const WORTH_RECORDING: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// The task that writes the byte counts of the link meters to the ledger.
pub(super) struct LinkRecords {
    usage: LinkUsage,
    ledger: Ledger,
    /// Whether other shores may use the same links.
    is_shared: bool,
    last: Instant,
}

impl LinkRecords {
    pub(super) fn new(usage: LinkUsage, ledger: Ledger, is_shared: bool) -> Self {
        Self { usage, ledger, is_shared, last: Instant::now() }
    }

    /// Records regularly until `stop` is cancelled, and then once more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let look = |usage: &LinkUsage| if usage.is_limited() { LOOK_AT_BUDGET } else { LOOK };
        while stop.run_until_cancelled(tokio::time::sleep(look(&self.usage))).await.is_some() {
            if self.usage.unrecorded() >= WORTH_RECORDING || self.last.elapsed() >= PATIENCE {
                self.record().await;
            }
        }
        self.record().await;
        if self.usage.is_limited()
            && self.usage.unrecorded() == 0
            && let Err(e) = self.usage.settle_ceilings(self.is_shared).await
        {
            tracing::debug!("Cannot record the final use of budgets: {e}");
        }
    }

    async fn record(&mut self) {
        for (day, ways) in self.usage.take_unrecorded() {
            if let Err(e) = self.ledger.add_link_bytes(day, &ways).await {
                // Logged at debug level only, because the workflows also report errors of the ledger. The bytes are
                // recorded with the next ones.
                tracing::debug!("Cannot record the bytes on the link: {e}");
                self.usage.put_back(day, ways);
            }
        }
        self.last = Instant::now();
    }
}
