//! The waits before retries: of a connection, of a place on the vessel, of a delivery; and when a delivery is parked.

use std::time::Duration;

use crate::backoff::{Backoff, LONGEST_WAIT};
use crate::fault::{Cause, Fault, Pace, Scope};

/// The waits before the next connection if the vessel can't be reached. They are short, so that a restored link is used
/// at once; an attempt costs only one packet.
pub(super) const AWAY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
/// The first wait before the next connection if the vessel responds, but the connection fails. The setting
/// `ReconnectWait` is the longest wait.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// The waits if a person must fix the cause, for example an untrusted host key or a full disk.
pub(super) const UNHURRIED: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));
/// The waits before the next connection if the vessel offers no SFTP, or if it refused the login, because more attempts
/// may lock the account.
pub(super) const SLOW: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(900));

/// The waits for a vessel that dials in, while nothing accepts connections at its port or socket. They are short,
/// because an attempt stays on this host.
pub(super) const DIALLED_IN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_millis(250));

/// The longest wait for a vessel that dials in, after its tunnel broke during a handshake.
pub(super) const DIALLED_IN_SOON: Duration = Duration::from_secs(3);

/// Number of failed retries after which a delivery is parked.
const PATIENCE: u32 = 8;
/// Number of failed retries after which a delivery that must wait for another delivery is parked, because the other
/// delivery may never end. The waits between them take at most 5 minutes.
const PATIENCE_EARLY: u32 = 150;

/// Waits between attempts of one delivery, before it is parked.
const ATTEMPT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// Waits between attempts of a delivery that depends on other running deliveries.
const EARLY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
/// Waits between attempts of a delivery whose source is on a disk that does not respond. A single run (`--once`) ends
/// when these waits exceed [`ONCE_WAIT`].
const SILENT: Backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(60));
pub(super) const PARKED: Backoff = Backoff::new(Duration::from_secs(600), LONGEST_WAIT);

/// In a single run (`--once`): the longest wait for a postponed delivery.
pub(super) const ONCE_WAIT: Duration = Duration::from_secs(30);

/// When a delivery is retried.
pub(super) struct Next {
    pub(super) parked: bool,
    /// Whether the source's disk does not respond. This is reported once for the whole disk, and does not park the
    /// delivery.
    pub(super) silent: bool,
    pub(super) wait: Duration,
}

/// Returns when to retry a delivery that failed with a fault of its own, after `failures` failed attempts in a row.
/// `random` is between 0 and 1.
pub(super) fn next_attempt(fault: &Fault, failures: u32, random: f64) -> Next {
    // After `patience` failures in a row, a fault counts as permanent, even if the vessel calls it temporary.
    let early = fault.scope == Scope::Attempt && fault.pace == Pace::AtOnce;
    let patience = if early { PATIENCE_EARLY } else { PATIENCE };
    let silent = fault.scope == Scope::Attempt && fault.pace == Pace::Slow && fault.cause == Cause::Source;
    let parked = fault.scope == Scope::File || (failures >= patience && !silent);
    let pause = match (parked, fault.pace) {
        (false, Pace::AtOnce) => EARLY,
        (false, _) if silent => SILENT,
        (false, _) => ATTEMPT,
        (true, Pace::Unhurried) => UNHURRIED,
        (true, _) => PARKED,
    };
    let counted = if parked && fault.scope != Scope::File { failures - patience } else { failures };
    Next { parked, silent, wait: pause.wait(counted + 1, random) }
}
