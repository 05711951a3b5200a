//! The waits before retries: of a connection, of a place on the vessel, of a delivery.

use std::time::Duration;

use crate::backoff::{Backoff, LONGEST_WAIT};

/// Waits between connections, by the reason why the last one ended. An unreachable vessel is polled continuously, which
/// costs one packet each time, so a restored link is used within seconds. If it responds and the connection still
/// fails, `ReconnectWait` is the longest wait. Repeated login failures may lock an account.
pub(super) const AWAY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
pub(super) const SOON: Duration = Duration::from_secs(1);
pub(super) const UNHURRIED: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));
pub(super) const SLOW: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(900));

/// Waits between attempts of one delivery, before it is parked.
pub(super) const ATTEMPT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// Waits of a delivery that depends on others still under way.
pub(super) const EARLY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
/// Waits of a delivery whose source is on a disk that does not respond. A single run ends when they get long.
pub(super) const SILENT: Backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(60));
pub(super) const PARKED: Backoff = Backoff::new(Duration::from_secs(600), LONGEST_WAIT);
