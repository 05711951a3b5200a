//! Handles a failed delivery: postpones or parks it. If the destination accepts no data, also holds back all other
//! files for that destination.

use std::sync::Arc;

use super::Vessel;
use super::blocked_places::{BlockedPlaces, Consequence, said};
use super::retry_waits::{Next, ONCE_WAIT, next_attempt};
use crate::fault::{Cause, Fault, Pace, Scope};
use crate::monitor::Event;
use crate::records::{Delivery, VersionKind};
use crate::text::duration;
use crate::transfer::{Transfers, discard};

/// A delivery that failed.
pub(super) struct FailedDelivery<'a> {
    pub(super) vessel: &'a Vessel,
    pub(super) transfers: &'a Arc<Transfers>,
    pub(super) delivery: &'a Delivery,
}

impl FailedDelivery<'_> {
    /// Postpones or parks the delivery. If its place accepts no data, also holds back the other files for that place.
    /// Returns the fault if it affects more than the place, for example the whole vessel.
    pub(super) async fn put_off(&self, fault: Fault, blocked: &mut BlockedPlaces) -> Result<(), Fault> {
        match fault.scope {
            Scope::Place => self.hold_back(fault, blocked).await,
            _ => self.put_off_alone(fault).await,
        }
    }

    /// Handles a delivery that its place rejected: holds back all files for that place, or only this file if smaller
    /// files may fit.
    async fn hold_back(&self, fault: Fault, blocked: &mut BlockedPlaces) -> Result<(), Fault> {
        if fault.cause == Cause::Space {
            discard(self.transfers, self.delivery).await?;
        }
        let consequence = blocked.note(self.transfers, self.delivery).await?;
        if consequence == Consequence::Blocked {
            let (vessel, directories) = (&self.vessel.settings.name, said(&blocked.directories()));
            tracing::warn!(
                %vessel, %directories,
                "Files of some directories wait, because the vessel cannot store them: {fault}"
            );
        }
        let known = consequence != Consequence::TooLarge;
        self.schedule(Fault { scope: Scope::File, pace: Pace::Unhurried, ..fault }, known).await
    }

    /// Handles a fault of this delivery alone. If the vessel does not allow the file's name, the uploaded bytes are
    /// deleted.
    async fn put_off_alone(&self, fault: Fault) -> Result<(), Fault> {
        if fault.cause == Cause::Name && self.delivery.version.kind == VersionKind::File {
            discard(self.transfers, self.delivery).await?;
        }
        self.schedule(fault, false).await
    }

    /// Schedules the next attempt of a delivery. `known` means that the reason was already reported.
    async fn schedule(&self, fault: Fault, known: bool) -> Result<(), Fault> {
        if fault.scope > Scope::File {
            return Err(fault);
        }
        let Self { vessel, delivery, .. } = self;
        let Next { parked, silent, wait } = next_attempt(&fault, delivery.failures, fastrand::f64());
        // A single run (`--once`) ends without waiting for a parked delivery, because the delivery's wait is longer
        // than `ONCE_WAIT`. The next run retries the delivery when it starts.
        let wait = if parked && vessel.until_done.is_some() { wait.max(ONCE_WAIT * 2) } else { wait };
        let due_at = vessel.clock.now_ms() + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let reason = fault.to_string();
        vessel.ledger.put_off(delivery.id, &reason, due_at, parked).await.map_err(|e| e.fault())?;
        // A reload may have added the directory again, and retried its parked deliveries before this delivery was
        // parked.
        if fault.cause == Cause::Settings && vessel.directories.get(&delivery.version.directory).is_some() {
            return vessel.ledger.retry(&[delivery.id]).await.map_err(|e| e.fault());
        }
        let (name, directory, path) = (&vessel.settings.name, &delivery.version.directory, &delivery.version.path);
        let word = if parked { "Parked" } else { "Postponed" };
        let again_in = duration(wait);
        if silent {
            tracing::debug!(vessel = %name, %directory, file = %path, %again_in, "{word}: {reason}");
            return Ok(());
        }
        if known {
            tracing::debug!(vessel = %name, %directory, file = %path, %again_in, "{word}: {reason}");
        } else {
            let cause = fault.cause.as_str();
            tracing::warn!(vessel = %name, %directory, file = %path, %again_in, cause, "{word}: {reason}");
        }
        let (reason, cause) = (&reason, fault.cause);
        vessel.monitor.notice(&Event::PutOff { vessel: name, directory, path, reason, cause, parked, again_in: wait });
        Ok(())
    }
}
