//! Ends deliveries of versions that are older than `Expire`.

use std::time::Duration;

use super::Directory;
use crate::clock::{WaryClock, wait_between};
use crate::fault::Fault;

/// Shortest and longest wait between two checks. The longest wait is short, because the clock may be set meanwhile.
const LEAST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// Maximum number of deliveries that end in one step.
const STEP: u32 = 500;

/// Ends expired deliveries of a directory until it is stopped. Does nothing if its files don't expire.
///
/// # Errors
/// Returns a daemon-wide [`Fault`] if the ledger can't be used.
pub async fn expire(directory: Directory) -> Result<(), Fault> {
    if directory.settings.expire.is_none() {
        return Ok(());
    }
    let stop = directory.stop.clone();
    // A clock that jumps forward must not expire all files at once.
    let wary = WaryClock::new(directory.clock.clone());
    let expiring = async {
        loop {
            let now = wary.now_ms();
            let next = expire_until(&directory, now).await?;
            let wait = next.map_or(LONGEST, |next| wait_between(now, next).clamp(LEAST, LONGEST));
            tokio::time::sleep(wait).await;
        }
    };
    stop.run_until_cancelled(expiring).await.unwrap_or(Ok(()))
}

/// Ends all deliveries of a directory that have expired by now.
///
/// # Errors
/// Fails like [`expire`].
pub async fn expire_now(directory: &Directory) -> Result<(), Fault> {
    expire_until(directory, directory.clock.now_ms()).await.map(|_| ())
}

/// Ends all deliveries of a directory that expire at or before `until`, in milliseconds since 1970. Returns the time at
/// which the next delivery expires.
async fn expire_until(directory: &Directory, until: i64) -> Result<Option<i64>, Fault> {
    let name = &directory.settings.name;
    loop {
        let expired = directory.ledger.expire(name, until, STEP).await.map_err(|e| e.fault())?;
        for delivery in &expired {
            tracing::warn!(
                vessel = %delivery.vessel, directory = %name, file = %delivery.path,
                "Expired: the vessel did not receive the file within Expire, so it is not sent any more"
            );
        }
        if !expired.is_empty() {
            // Wakes the vessels' tasks, which end running deliveries of these versions, and the task that retires
            // sources that no vessel awaits any more.
            directory.ring_vessels();
            directory.retire_bell.ring();
        }
        if expired.len() < STEP as usize {
            return directory.ledger.next_expiry(name).await.map_err(|e| e.fault());
        }
    }
}
