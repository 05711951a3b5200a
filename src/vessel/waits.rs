//! The waits before something is tried again: a connection, a place on the vessel, a delivery.

use std::time::Duration;

use crate::backoff::{Backoff, LONGEST_WAIT};

/// The waits between connections, by what ended the last one. A vessel that can't be reached is looked for all the time,
/// which costs a packet: a link that returns is used within seconds. Where it answers and the connection still fails,
/// `ReconnectWait` is the longest wait. A refused login may lock an account.
pub(super) const AWAY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
pub(super) const SOON: Duration = Duration::from_secs(1);
pub(super) const UNHURRIED: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));
pub(super) const SLOW: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(900));

/// The waits between attempts of one delivery, and of one that is parked.
pub(super) const ATTEMPT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// The waits of one that comes before its turn: for others that are under way.
pub(super) const EARLY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
/// The waits of one whose source is on a disk that does not answer: a single run ends when they get long.
pub(super) const SILENT: Backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(60));
pub(super) const PARKED: Backoff = Backoff::new(Duration::from_secs(600), LONGEST_WAIT);
