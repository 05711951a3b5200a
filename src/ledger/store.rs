//! The workflows' interface to the ledger, independent of the database behind it.

use std::sync::Arc;

use async_trait::async_trait;

use super::{LedgerError, MountMemory, Outbox, Places, Reports, Upkeep};
use crate::digest::Digest;
use crate::names::{DirectoryName, InstanceId, RelPath, VesselName};
use crate::outline::Outline;
use crate::records::{
    Backlog, Delivery, DeliveryId, DeliveryState, FileStamp, HeldVersion, NewVersion, Remains, Traits, Verified,
    Version, VersionId,
};

type Result<T> = std::result::Result<T, LedgerError>;

/// The version that a path holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentVersion {
    /// Its path.
    pub path: RelPath,
    /// The traits of its source.
    pub traits: Traits,
}

/// The version of a path that was last delivered to a vessel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastDelivered {
    /// The stamp of its source.
    pub stamp: FileStamp,
    /// Its outline.
    pub outline: Outline,
}

/// A parked delivery, for summaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The vessel that lacks the file.
    pub vessel: VesselName,
    /// The file's directory.
    pub directory: DirectoryName,
    /// The file.
    pub path: RelPath,
    /// The reason.
    pub reason: String,
}

/// The ledger's queries and updates.
///
/// Every method is one transaction, or part of one shared with concurrent calls, and every update is idempotent. A
/// cancelled call is either applied or not, and affects no other call.
#[async_trait]
pub trait Store: Outbox + Places + Upkeep + MountMemory + Send + Sync {
    /// Returns the shore's id.
    fn instance(&self) -> InstanceId;

    /// Returns the interface for people's queries.
    fn reports(&self) -> Arc<dyn Reports>;

    /// Records file versions, and a delivery of each to every one of `vessels`.
    ///
    /// Supersedes the versions that the paths held before, unless they are the same (same kind, stamp, mode and owner,
    /// and same digest where both are known); those stay. Of several versions of one path, only the last is recorded. A
    /// `Gone` version is recorded only where the path holds a version, and ends once every vessel has acknowledged it.
    /// A `Skipped` version is also recorded only where the path holds a version; it stays, and is sent to no vessel.
    async fn admit(&self, directory: &DirectoryName, versions: &[NewVersion], vessels: &[VesselName]) -> Result<()>;

    /// Adjusts the open deliveries of a directory to the vessels that take it now, and to their places: adds missing
    /// deliveries and supersedes those of other vessels. The delivery of a vessel that returns resumes with the bytes
    /// sent before. A version that is left with acknowledged deliveries only becomes complete; one that no vessel
    /// acknowledged never does.
    ///
    /// Runs in steps, so that other writers get their turn. Each step is atomic; the next call repeats an interrupted
    /// one.
    async fn reconcile(&self, directory: &DirectoryName, vessels: &[VesselName]) -> Result<()>;

    /// Returns the versions that a directory holds now (admitted and not retired), ordered by path.
    async fn current(&self, directory: &DirectoryName) -> Result<Vec<CurrentVersion>>;

    /// Returns the versions that these paths hold now, in no particular order.
    async fn current_at(&self, directory: &DirectoryName, paths: &[RelPath]) -> Result<Vec<CurrentVersion>>;

    /// Returns the versions that the paths below these hold now, each once, ordered by path.
    async fn current_below(&self, directory: &DirectoryName, above: &[RelPath]) -> Result<Vec<CurrentVersion>>;

    /// Returns the number of paths of a directory that hold a version now.
    async fn count_current(&self, directory: &DirectoryName) -> Result<u64>;

    /// Returns the earlier versions that a vessel may hold of this version's path: those that were sent to the place on
    /// the vessel where this version goes now, newest first, at most 64.
    async fn held_before(&self, version: VersionId, vessel: &VesselName) -> Result<Vec<HeldVersion>>;

    /// Returns whether a delivery to a vessel is open for any path below `above`.
    async fn is_open_below(&self, vessel: &VesselName, directory: &DirectoryName, above: &RelPath) -> Result<bool>;

    /// Records that the sources of these paths are gone and supersedes their open deliveries. A version that every
    /// vessel had acknowledged counts as retired. Returns the paths of the other versions.
    async fn vanished(&self, directory: &DirectoryName, paths: &[RelPath]) -> Result<Vec<RelPath>>;

    /// Returns files of a directory that every vessel that takes them has acknowledged: those after `after`, at most
    /// `limit`.
    async fn retirable(&self, directory: &DirectoryName, after: VersionId, limit: u32) -> Result<Vec<Version>>;

    /// Records that the sources of versions were retired. A version that is no longer complete, because a vessel was
    /// added meanwhile, stays until its source is recorded as vanished, so that the loss is reported.
    async fn retired(&self, versions: &[VersionId]) -> Result<()>;

    /// Returns the due deliveries to a vessel, longest due first, at most `limit`: those of files of more than one
    /// chunk (`large`), or those of the others.
    ///
    /// A clock that is set back delays nothing: deliveries that never failed are due at once, and the remaining waits
    /// keep their length.
    async fn next_due(&self, vessel: &VesselName, large: bool, limit: u32) -> Result<Vec<Delivery>> {
        self.next_due_beside(vessel, large, limit, &[]).await
    }

    /// Returns the same as [`Store::next_due`], without the deliveries of `held_back`.
    async fn next_due_beside(
        &self,
        vessel: &VesselName,
        large: bool,
        limit: u32,
        held_back: &[DirectoryName],
    ) -> Result<Vec<Delivery>>;

    /// Returns when the next delivery to a vessel is due, in milliseconds since 1970; `None` when none is open.
    async fn next_due_at(&self, vessel: &VesselName) -> Result<Option<i64>> {
        self.next_due_at_beside(vessel, &[]).await
    }

    /// Returns the same as [`Store::next_due_at`], without the deliveries of `held_back`.
    async fn next_due_at_beside(&self, vessel: &VesselName, held_back: &[DirectoryName]) -> Result<Option<i64>>;

    /// Records the digest of a version that was admitted without one.
    async fn hashed(&self, version: VersionId, digest: &Digest) -> Result<()>;

    /// Records the outline of a version that is about to be acknowledged. Outlines of earlier versions of its path are
    /// kept only while they belong to the last version that some vessel received.
    async fn outlined(&self, version: &Version, outline: &Outline) -> Result<()>;

    /// Returns the outline of a version; `None` where none was recorded.
    async fn outline(&self, version: &Version) -> Result<Option<Outline>>;

    /// Returns, of the versions of the same path that have an outline, the one that a vessel acknowledged last.
    async fn last_delivered(&self, vessel: &VesselName, version: &Version) -> Result<Option<LastDelivered>>;

    /// Records that a delivery enters `state`. Returns `false` when the delivery was superseded and must be abandoned.
    async fn enter(&self, delivery: DeliveryId, state: DeliveryState) -> Result<bool>;

    /// Records that the vessel holds the version. Returns `false` when the delivery was superseded meanwhile.
    async fn acknowledge(&self, delivery: DeliveryId, verified: Verified) -> Result<bool>;

    /// Records that an attempt failed and when the next one is due (milliseconds since 1970). With `parked`, the
    /// delivery counts as parked until the next attempt.
    async fn put_off(&self, delivery: DeliveryId, reason: &str, due_at: i64, parked: bool) -> Result<()>;

    /// Makes all postponed deliveries to a vessel due at once.
    async fn hurry(&self, vessel: &VesselName) -> Result<()>;

    /// Makes postponed deliveries due at once and resets their failures.
    async fn retry(&self, deliveries: &[DeliveryId]) -> Result<()>;

    /// Marks a version as forgotten: its path still holds it, but it is sent to no vessel and never retires, until the
    /// file changes. Returns `false` when the version has ended or every vessel has it.
    async fn forget(&self, version: VersionId) -> Result<bool>;

    /// Marks all versions of a directory, configured or not, as forgotten; see [`Store::forget`]. Returns their number.
    async fn forget_all(&self, directory: &DirectoryName) -> Result<u64>;

    /// Records that a vessel is paused, or no longer is.
    async fn pause(&self, vessel: &VesselName, paused: bool) -> Result<()>;

    /// Returns the paused vessels.
    async fn paused(&self) -> Result<Vec<VesselName>>;

    /// Records why a vessel can't be served; `None`: it can.
    async fn away(&self, vessel: &VesselName, reason: Option<&str>) -> Result<()>;

    /// Returns the files that superseded deliveries may have left on a vessel: those of deliveries after `after`, at
    /// most `limit`.
    async fn remains(&self, vessel: &VesselName, after: DeliveryId, limit: u32) -> Result<Vec<Remains>>;

    /// Sends one no-op through the reader and the writer, as a liveness check of both.
    async fn beat(&self) -> Result<()>;

    /// Records that nothing of a delivery is left on its vessel.
    async fn swept(&self, delivery: DeliveryId) -> Result<()>;

    /// Returns whether a delivery is open, so that its parts on the vessel are still needed.
    async fn is_open(&self, delivery: DeliveryId) -> Result<bool>;

    /// Returns the outstanding deliveries of every vessel that the ledger knows.
    async fn backlog(&self) -> Result<Vec<Backlog>>;

    /// Returns all parked deliveries, at most `limit`.
    async fn parked(&self, limit: u32) -> Result<Vec<Parked>>;
}
