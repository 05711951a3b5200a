//! `ledger copy`: copies a ledger from one store to another.

use std::path::Path;

use super::shore::Refusal;
use super::{Exit, runtime, say};
use crate::ledger::{self, CopiedTable};
use crate::settings::{Database, Settings};
use crate::text::counted;

/// Copies a ledger, and prints the number and the digest of the rows of each table.
pub(super) fn copy(settings: &Path, from: &str, to: &str) -> Exit {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let copied = runtime.block_on(copy_named(settings, from, to));
    runtime.shutdown_background();
    copied.unwrap_or_else(Refusal::say)
}

async fn copy_named(settings: &Path, from: &str, to: &str) -> Result<Exit, Refusal> {
    let place = tempfile::tempdir()
        .map_err(|e| Refusal::new(Exit::Broken, format!("cannot create a temporary directory: {e}")))?;
    // If the settings name the same ledger as an argument, the settings' `Database` is used, because it may contain the
    // password. Missing or invalid settings are ignored.
    let configured = Settings::load(settings).ok().map(|settings| settings.monster.database);
    let named = |text: &str, lock: &str| -> Result<Database, Refusal> {
        let database = Database::of_argument(text, place.path().join(lock)).map_err(Refusal::usage)?;
        let configured = configured.as_ref().filter(|configured| configured.to_string() == database.to_string());
        Ok(configured.cloned().unwrap_or(database))
    };
    let (from, to) = (named(from, "from.lock")?, named(to, "to.lock")?);
    let copied = ledger::copy(&from, &to).await?;
    for CopiedTable { name, rows, digest } in &copied {
        say(format_args!("{name}: {}, SHA-256 {digest}", counted(*rows, "row")));
    }
    say(format_args!(
        "copied the ledger {from} to {to}; both have the same rows. Set Database in [MONSTER] to use the copy"
    ));
    Ok(Exit::Good)
}
