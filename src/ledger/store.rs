//! What the workflows can ask of the ledger, whatever database keeps it.

use async_trait::async_trait;

use super::LedgerError;
use crate::digest::Digest;
use crate::names::{DirectoryName, InstanceId, RelPath, VesselName};
use crate::records::{
    Backlog, Delivery, DeliveryId, DeliveryState, FileStamp, NewVersion, Remains, Verified, Version, VersionId,
};

type Result<T> = std::result::Result<T, LedgerError>;

/// The version that a path holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentVersion {
    /// Its path.
    pub path: RelPath,
    /// What its source looked like.
    pub stamp: FileStamp,
}

/// A parked delivery, for summaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The vessel that doesn't get it.
    pub vessel: VesselName,
    /// The file's directory.
    pub directory: DirectoryName,
    /// The file.
    pub path: RelPath,
    /// Why.
    pub reason: String,
}

/// The ledger's questions and entries. Every method is one transaction; every entry may be repeated.
#[async_trait]
pub trait Store: Send + Sync {
    /// The shore's id.
    fn instance(&self) -> InstanceId;

    /// Enters file versions, and a delivery of each to every one of `vessels`.
    ///
    /// What the paths held before is superseded, unless it is the same version (same stamp and digest), which stays.
    async fn admit(&self, directory: &DirectoryName, versions: &[NewVersion], vessels: &[VesselName]) -> Result<()>;

    /// Fits the open deliveries of a directory to the vessels that take it now: missing ones are entered, those of other
    /// vessels are superseded. A version that this leaves with acknowledged deliveries only is complete; one that nobody
    /// acknowledged never is.
    async fn reconcile(&self, directory: &DirectoryName, vessels: &[VesselName]) -> Result<()>;

    /// What a directory holds now, as far as it was admitted and not retired.
    async fn current(&self, directory: &DirectoryName) -> Result<Vec<CurrentVersion>>;

    /// What one path holds now.
    async fn current_at(&self, directory: &DirectoryName, path: &RelPath) -> Result<Option<CurrentVersion>>;

    /// Enters that the sources of these paths are gone: open deliveries are superseded. A version that every vessel had
    /// acknowledged counts as retired. Returns how many were not.
    async fn vanished(&self, directory: &DirectoryName, paths: &[RelPath]) -> Result<u64>;

    /// Versions of a directory that every vessel that takes them has acknowledged, those after `after`, at most `limit`.
    async fn retirable(&self, directory: &DirectoryName, after: VersionId, limit: u32) -> Result<Vec<Version>>;

    /// Enters that the source of a version was retired. One that is not complete any more, because a vessel was added
    /// meanwhile, stays until its source is entered as vanished: that is noticed, and nothing is dropped in silence.
    async fn retired(&self, version: VersionId) -> Result<()>;

    /// Deliveries to a vessel that are due, longest due first, at most `limit`: those of files of more than one chunk
    /// (`large`) or those of the others.
    async fn next_due(&self, vessel: &VesselName, large: bool, limit: u32) -> Result<Vec<Delivery>>;

    /// When the next delivery to a vessel is due, in milliseconds since 1970; `None` when none is open.
    async fn next_due_at(&self, vessel: &VesselName) -> Result<Option<i64>>;

    /// The digests of a version's chunks.
    async fn chunk_digests(&self, version: VersionId) -> Result<Vec<Digest>>;

    /// Enters that a delivery is about to do what `state` stands for. `false`: it was superseded, leave it.
    async fn enter(&self, delivery: DeliveryId, state: DeliveryState) -> Result<bool>;

    /// Enters that the vessel holds the version. `false`: it was superseded meanwhile.
    async fn acknowledge(&self, delivery: DeliveryId, verified: Verified) -> Result<bool>;

    /// Enters that an attempt failed and when the next one is due (milliseconds since 1970). With `parked`, the delivery
    /// counts as set aside until it is tried again.
    async fn put_off(&self, delivery: DeliveryId, reason: &str, due_at: i64, parked: bool) -> Result<()>;

    /// Makes everything that was put off for a vessel due at once.
    async fn hurry(&self, vessel: &VesselName) -> Result<()>;

    /// What may still lie on a vessel of deliveries that are no longer wanted, at most `limit`.
    async fn remains(&self, vessel: &VesselName, limit: u32) -> Result<Vec<Remains>>;

    /// Enters that nothing of a delivery lies on its vessel any more.
    async fn swept(&self, delivery: DeliveryId) -> Result<()>;

    /// Whether a delivery is open: its parts on the vessel are still wanted.
    async fn is_open(&self, delivery: DeliveryId) -> Result<bool>;

    /// What every vessel that the ledger knows still has to get.
    async fn backlog(&self) -> Result<Vec<Backlog>>;

    /// All parked deliveries, at most `limit`.
    async fn parked(&self, limit: u32) -> Result<Vec<Parked>>;
}
