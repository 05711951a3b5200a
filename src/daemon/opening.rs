//! Opens the ledger at the start of the daemon. Waits for a database that is unavailable, for example after a power
//! failure of both hosts.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::service;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError};
use crate::settings::Database;

/// The waits between attempts to open the ledger.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));

/// Opens the ledger, which other shores may use too; `None` if the daemon is stopped before the database is available.
///
/// # Errors
/// The errors of [`Ledger::join_at`] that an operator must fix.
pub(super) async fn join(
    database: &Database,
    clock: &Clock,
    stop: &CancellationToken,
) -> Result<Option<Ledger>, LedgerError> {
    let (mut failures, mut told) = (0, String::new());
    loop {
        let Some(joined) = stop.run_until_cancelled(Ledger::join_at(database, clock.clone())).await else {
            return Ok(None);
        };
        let error = match joined {
            Err(e) if e.may_pass() => e,
            joined => return joined.map(Some),
        };
        let why = error.to_string();
        if why != told {
            tracing::error!("{}; no file is delivered until the database is available. Retrying", error.fault());
        }
        service::starts_later(&why);
        told = why;
        failures += 1;
        let wait = RETRY.wait(failures, fastrand::f64());
        stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}
