//! What keeps the ledger, and what it knows of, from growing for ever. All of it is done in steps that hold up the
//! deliveries for some milliseconds each.

use async_trait::async_trait;

use super::LedgerError;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{FileStamp, VersionId};

type Result<T> = std::result::Result<T, LedgerError>;

/// A source that was retired, or will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retiree {
    /// The version.
    pub version: VersionId,
    /// What it is called in `processed/`.
    pub processed: RelPath,
    /// What it looked like.
    pub stamp: FileStamp,
    /// When it was retired, in milliseconds since 1970; `None`: not yet.
    pub retired_at: Option<i64>,
}

/// A stretch of something that is gone through step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<T> {
    /// What was found, or done, in it.
    pub found: T,
    /// Where the next one begins; `None`: this was the last.
    pub next: Option<VersionId>,
}

/// The ledger's housekeeping.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Enters why a vessel's shell can't be used; `None`: it can.
    async fn shell_refused(&self, vessel: &VesselName, why: Option<&str>) -> Result<()>;

    /// Since when (milliseconds since 1970) and why a vessel's shell can't be used; `None` where nothing is known of that.
    async fn shell_refusal(&self, vessel: &VesselName) -> Result<Option<(i64, String)>>;

    /// Enters what sources are called in `processed/`, where it is not what they were called before.
    async fn moved_to(&self, names: &[(VersionId, RelPath)]) -> Result<()>;

    /// The files of a directory that were retired, or may be some day, among the versions after `after`.
    async fn retirees(&self, directory: &DirectoryName, after: VersionId) -> Result<Step<Vec<Retiree>>>;

    /// Removes, among the versions after `after`, those that ended before a moment (milliseconds since 1970), and the
    /// receipts of their deliveries; returns how many. What tells what a vessel holds stays: a version that a vessel
    /// acknowledged, until it acknowledged the one that the path holds now.
    async fn prune(&self, ended_before: i64, after: VersionId) -> Result<Step<u64>>;

    /// Gives back some of the room that the ledger's file takes and doesn't need. `false`: there is nothing more to do for
    /// now. A file of an older program is written anew for that, once, when nothing waits to be delivered.
    async fn compact(&self) -> Result<bool>;

    /// Brings everything into the ledger's file and closes it; nothing can be asked or entered any more.
    async fn close(&self) -> Result<()>;

    /// Writes to the ledger, to see whether it can be written to.
    async fn probe(&self) -> Result<()>;
}
