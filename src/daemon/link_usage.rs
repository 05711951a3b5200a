//! Records the bytes on the link in the ledger, by vessel and day.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError};
use crate::names::VesselName;
use crate::records::{LinkBytes, UtcDay};
use crate::transport::LinkMeters;

/// Time between two looks at the meters. A crash loses the bytes counted since the last record.
const LOOK: Duration = Duration::from_secs(5);
/// What is less than this, such as the keepalives of idle connections, is recorded only after [`PATIENCE`], because each
/// record writes to the disk.
const WORTH_RECORDING: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// The task that records what the meters count.
pub(super) struct LinkRecords {
    meters: LinkMeters,
    ledger: Ledger,
    clock: Clock,
    /// What was recorded of each vessel since the program started.
    recorded: HashMap<VesselName, LinkBytes>,
    last: Instant,
}

impl LinkRecords {
    pub(super) fn new(meters: LinkMeters, ledger: Ledger, clock: Clock) -> Self {
        Self { meters, ledger, clock, recorded: HashMap::new(), last: Instant::now() }
    }

    /// Records regularly until `stop` is cancelled, and then once more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let new = self.unrecorded();
            let bytes: u64 = new.iter().map(|(_, bytes)| bytes.total()).sum();
            if bytes >= WORTH_RECORDING || self.last.elapsed() >= PATIENCE {
                self.try_to_record(new).await;
            }
        }
        let rest = self.unrecorded();
        self.try_to_record(rest).await;
    }

    fn unrecorded(&self) -> Vec<(VesselName, LinkBytes)> {
        let since = |(name, now): (VesselName, LinkBytes)| {
            let recorded = self.recorded.get(&name).copied().unwrap_or_default();
            (name, now.since(recorded))
        };
        self.meters.all().into_iter().map(since).filter(|(_, bytes)| bytes.total() > 0).collect()
    }

    /// After an error, the bytes are recorded with the next ones.
    async fn try_to_record(&mut self, new: Vec<(VesselName, LinkBytes)>) {
        if let Err(e) = self.record(new).await {
            // Logged at debug level only, because the workflows also report errors of the ledger.
            tracing::debug!("Cannot record the bytes on the link: {e}");
        }
    }

    async fn record(&mut self, new: Vec<(VesselName, LinkBytes)>) -> Result<(), LedgerError> {
        if !new.is_empty() {
            self.ledger.add_link_bytes(UtcDay::at(self.clock.now_ms()), &new).await?;
        }
        for (vessel, bytes) in new {
            let recorded = self.recorded.entry(vessel).or_default();
            *recorded = recorded.and(bytes);
        }
        self.last = Instant::now();
        Ok(())
    }
}
