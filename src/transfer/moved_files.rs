//! Files that take each other's names, such as two swapped files: a file gets its new name only after the deliveries of the
//! other files have opened or copied the content that it replaces.

use std::time::{Duration, Instant};

use super::transfers::Transfers;
use crate::fault::Fault;
use crate::records::Delivery;

/// How long a delivery that replaces a file waits for another delivery that copies the file: while the other one is not
/// running yet, and while it is running; and the interval of the checks. Without the copy, the other file is sent.
const NOT_RUNNING: Duration = Duration::from_secs(3);
const RUNNING: Duration = Duration::from_secs(600);
const OFTEN: Duration = Duration::from_millis(20);

/// Waits until no other delivery still needs the file that a delivery of a moved file is about to replace.
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
