//! The waits before retries: of a connection, of a place on the vessel, of a delivery.

use std::time::Duration;

use crate::backoff::{Backoff, LONGEST_WAIT};

/// The waits between connections, by the reason why the last connection ended. `AWAY`: the vessel can't be reached. It is
/// tried again within 3 s, so that a restored link is used at once; an attempt costs only one packet. `SOON`: the vessel
/// responds, but the connection fails. This is the first wait; `ReconnectWait` is the longest. `UNHURRIED`: a person must
/// fix the cause, such as an untrusted host key. `SLOW`: the vessel refused the login, where more attempts may lock the
/// account, or it offers no SFTP.
pub(super) const AWAY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
pub(super) const SOON: Duration = Duration::from_secs(1);
pub(super) const UNHURRIED: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));
pub(super) const SLOW: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(900));

/// The waits for a vessel that dials in, while nothing accepts connections at its port or socket: an attempt stays on
/// this host.
pub(super) const DIALLED_IN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_millis(250));

/// The longest wait for a vessel that dials in, after its tunnel broke during a handshake.
pub(super) const DIALLED_IN_SOON: Duration = Duration::from_secs(3);

/// Waits between attempts of one delivery, before it is parked.
pub(super) const ATTEMPT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// Waits between attempts of a delivery that depends on other running deliveries.
pub(super) const EARLY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
/// Waits between attempts of a delivery whose source is on a disk that does not respond. A single run (`--once`) ends
/// when these waits get long.
pub(super) const SILENT: Backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(60));
pub(super) const PARKED: Backoff = Backoff::new(Duration::from_secs(600), LONGEST_WAIT);
