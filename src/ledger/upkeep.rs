//! Housekeeping of the ledger: limits its size, and finds retired files that may be removed from `processed/`. The work
//! is done in steps, each of which delays the deliveries by some milliseconds.

use async_trait::async_trait;

use super::LedgerError;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{FileStamp, PathRate, VersionId};

type Result<T> = std::result::Result<T, LedgerError>;

/// A source file that was retired, or may be retired later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retiree {
    /// The file's version.
    pub version: VersionId,
    /// The file's path below `processed/`, or where it would be if it is not retired yet.
    pub processed: RelPath,
    /// The file's stamp.
    pub stamp: FileStamp,
    /// When the file was retired, in milliseconds since 1970; `None` when it is not retired yet.
    pub retired_at: Option<i64>,
}

/// The result of one step of an operation that runs in several steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<T> {
    /// The step's result.
    pub found: T,
    /// The version after which the next step begins; `None` after the last step.
    pub next: Option<VersionId>,
}

/// The ledger's interface for housekeeping.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Records why a vessel's shell can't be used, or with `None` that it can be used.
    async fn shell_refused(&self, vessel: &VesselName, why: Option<&str>) -> Result<()>;

    /// Returns since when (milliseconds since 1970) and why a vessel's shell can't be used; `None` when no refusal is
    /// recorded.
    async fn shell_refusal(&self, vessel: &VesselName) -> Result<Option<(i64, String)>>;

    /// Records the measured rate of the network path to a vessel.
    async fn path_carried(&self, vessel: &VesselName, path: PathRate) -> Result<()>;

    /// Returns the last recorded rate of the network path to a vessel, and when it was recorded (milliseconds since
    /// 1970).
    async fn path(&self, vessel: &VesselName) -> Result<Option<(i64, PathRate)>>;

    /// Records the paths below `processed/` to which sources were moved. Sources that kept their version's path need no
    /// record.
    async fn moved_to(&self, names: &[(VersionId, RelPath)]) -> Result<()>;

    /// Returns the files of a directory that are retired already or can still be retired. Each call examines a limited
    /// number of versions, beginning after `after`.
    async fn retirees(&self, directory: &DirectoryName, after: VersionId) -> Result<Step<Vec<Retiree>>>;

    /// Removes versions that ended before `ended_before` (milliseconds since 1970), with the receipts of their
    /// deliveries, and returns the number of removed versions. One call covers one step of the versions after `after`.
    /// Keeps a version that a vessel still holds: the vessel acknowledged it, but has not yet acknowledged the current
    /// version of the path.
    async fn prune(&self, ended_before: i64, after: VersionId) -> Result<Step<u64>>;

    /// Releases some of the free space in the ledger's file. Returns `false` when there is nothing more to release for
    /// now. A file that an older program created can't release space in steps, so the whole file is rewritten a single
    /// time, when no delivery is open and much of the file is free.
    async fn compact(&self) -> Result<bool>;

    /// Writes everything to the ledger's file (a checkpoint) and closes the ledger. No query or update is possible
    /// afterwards.
    async fn close(&self) -> Result<()>;

    /// Writes to the ledger, to check that the ledger is writable.
    async fn probe(&self) -> Result<()>;
}
