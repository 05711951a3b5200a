//! Moved files that take each other's names, such as two swapped files: a file gets its new name only after the other
//! deliveries have opened or copied the content that it replaces.

use std::time::{Duration, Instant};

use super::transfers::Transfers;
use crate::fault::Fault;
use crate::records::Delivery;

/// Maximum time for which a delivery waits before it replaces a file that other deliveries must copy first, if none of
/// those deliveries is running. After that time, they send the content instead of copying it.
const NOT_RUNNING: Duration = Duration::from_secs(3);
/// The same maximum if at least one of those deliveries is running.
const RUNNING: Duration = Duration::from_secs(600);
/// Interval of the checks.
const OFTEN: Duration = Duration::from_millis(20);

/// Waits, for a limited time, until no other delivery needs the file that a delivery of a moved file is about to
/// replace.
pub(super) async fn wait_for_copies(transfers: &Transfers, delivery: &Delivery) -> Result<(), Fault> {
    let (vessel, since) = (&transfers.session.link.settings.name, Instant::now());
    loop {
        let wanting = transfers.ledger.wanting(vessel, delivery.version.id).await.map_err(|e| e.fault())?;
        let states: Vec<_> = wanting.into_iter().map(|other| transfers.moved_files.is_secured(other)).collect();
        let longest = if states.contains(&Some(false)) { RUNNING } else { NOT_RUNNING };
        if states.iter().all(|state| *state == Some(true)) || since.elapsed() > longest {
            return Ok(());
        }
        tokio::time::sleep(OFTEN).await;
    }
}
