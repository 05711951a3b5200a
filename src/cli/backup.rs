//! `backup`: copies the ledger.

use std::path::Path;

use super::shore::on_shore;
use super::{Exit, say};
use crate::ledger;

/// Copies the ledger to a new file.
pub(super) fn backup(settings: &Path, to: &Path) -> Exit {
    on_shore(settings, async |shore| {
        ledger::backup(&shore.settings.monster.database, to).await?;
        say(format_args!("copied the ledger {} to {}", shore.settings.monster.database, to.display()));
        Ok(Exit::Good)
    })
}
