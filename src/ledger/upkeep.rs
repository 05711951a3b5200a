//! Limits the growth of the ledger and of the files that it records. Everything is done in steps that delay the
//! deliveries by some milliseconds each.

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
    /// Its path below `processed/`.
    pub processed: RelPath,
    /// Its stamp.
    pub stamp: FileStamp,
    /// When it was retired, in milliseconds since 1970; `None`: not yet.
    pub retired_at: Option<i64>,
}

/// The result of one step of an operation that runs in several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<T> {
    /// The step's result.
    pub found: T,
    /// Where the next step begins; `None`: this was the last.
    pub next: Option<VersionId>,
}

/// The ledger's housekeeping.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Records why a vessel's shell can't be used; `None`: it can.
    async fn shell_refused(&self, vessel: &VesselName, why: Option<&str>) -> Result<()>;

    /// Returns since when (milliseconds since 1970) and why a vessel's shell can't be used; `None` without a recorded
    /// refusal.
    async fn shell_refusal(&self, vessel: &VesselName) -> Result<Option<(i64, String)>>;

    /// Records the paths of sources below `processed/`, where they differ from the original ones.
    async fn moved_to(&self, names: &[(VersionId, RelPath)]) -> Result<()>;

    /// Returns the files of a directory that were retired, or may be in future, among the versions after `after`.
    async fn retirees(&self, directory: &DirectoryName, after: VersionId) -> Result<Step<Vec<Retiree>>>;

    /// Removes, among the versions after `after`, those that ended before `ended_before` (milliseconds since 1970), and
    /// the receipts of their deliveries; returns their number. Keeps the record of the vessels' current content: a
    /// version that a vessel acknowledged stays until the vessel has acknowledged the one that the path holds now.
    async fn prune(&self, ended_before: i64, after: VersionId) -> Result<Step<u64>>;

    /// Releases some of the free space in the ledger's file. Returns `false` when nothing is left to do for now. A file
    /// of an older program is rewritten once for this, when no delivery is open.
    async fn compact(&self) -> Result<bool>;

    /// Checkpoints everything into the ledger's file and closes it. No query or update is possible afterwards.
    async fn close(&self) -> Result<()>;

    /// Writes to the ledger, as a check that it is writable.
    async fn probe(&self) -> Result<()>;
}
