//! What the workflows can ask of the ledger, whatever database keeps it.

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
    /// What its source looked like.
    pub traits: Traits,
}

/// What a vessel was given of a path before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastDelivered {
    /// What its source looked like.
    pub stamp: FileStamp,
    /// Its outline.
    pub outline: Outline,
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

/// The ledger's questions and entries. Every method is one transaction, or part of one that it shares with calls made at
/// the same time; every entry may be repeated. A call that is dropped half-way is made or not made, and harms no other.
#[async_trait]
pub trait Store: Outbox + Places + Upkeep + MountMemory + Send + Sync {
    /// The shore's id.
    fn instance(&self) -> InstanceId;

    /// The questions that people ask.
    fn reports(&self) -> Arc<dyn Reports>;

    /// Enters file versions, and a delivery of each to every one of `vessels`.
    ///
    /// What the paths held before is superseded, unless it is the same version (same kind, stamp, mode and owner, and same
    /// digest where both are known), which stays. Of several versions of one path, only the last is entered. One that is
    /// gone is entered only where the path holds something, and ends by itself once every vessel has acknowledged. One that
    /// is skipped, too, and it stays, sent to nobody, whatever vessels are named.
    async fn admit(&self, directory: &DirectoryName, versions: &[NewVersion], vessels: &[VesselName]) -> Result<()>;

    /// Fits the open deliveries of a directory to the vessels that take it now, and to their places: missing ones are
    /// entered, those of other vessels are superseded. One of a vessel that returns goes on with what was sent of it. A
    /// version that this leaves with acknowledged deliveries only is complete; one that nobody acknowledged never is.
    ///
    /// Done in steps, between which others get their turn. Each step is whole; one that was cut off is made whole by the
    /// next call.
    async fn reconcile(&self, directory: &DirectoryName, vessels: &[VesselName]) -> Result<()>;

    /// What a directory holds now, as far as it was admitted and not retired, in the order of the paths.
    async fn current(&self, directory: &DirectoryName) -> Result<Vec<CurrentVersion>>;

    /// What these paths hold now, those that hold anything, in no order.
    async fn current_at(&self, directory: &DirectoryName, paths: &[RelPath]) -> Result<Vec<CurrentVersion>>;

    /// What the paths below these hold now, each once and in the order of the paths.
    async fn current_below(&self, directory: &DirectoryName, above: &[RelPath]) -> Result<Vec<CurrentVersion>>;

    /// How many paths of a directory hold something now.
    async fn count_current(&self, directory: &DirectoryName) -> Result<u64>;

    /// What a vessel may hold of a path from before this version: the versions before it that were on their way to the
    /// place on that vessel where it goes now, the last one first, at most 64.
    async fn held_before(&self, version: VersionId, vessel: &VesselName) -> Result<Vec<HeldVersion>>;

    /// Whether anything below a path of a directory is still on its way to a vessel.
    async fn is_open_below(&self, vessel: &VesselName, directory: &DirectoryName, above: &RelPath) -> Result<bool>;

    /// Enters that the sources of these paths are gone: open deliveries are superseded. A version that every vessel had
    /// acknowledged counts as retired. Returns the paths of those that were not.
    async fn vanished(&self, directory: &DirectoryName, paths: &[RelPath]) -> Result<Vec<RelPath>>;

    /// Files of a directory that every vessel that takes them has acknowledged, those after `after`, at most `limit`.
    async fn retirable(&self, directory: &DirectoryName, after: VersionId, limit: u32) -> Result<Vec<Version>>;

    /// Enters that the sources of versions were retired. One that is not complete any more, because a vessel was added
    /// meanwhile, stays until its source is entered as vanished: that is noticed, and nothing is dropped in silence.
    async fn retired(&self, versions: &[VersionId]) -> Result<()>;

    /// Deliveries to a vessel that are due, longest due first, at most `limit`: those of files of more than one chunk
    /// (`large`) or those of the others.
    ///
    /// A clock that was put back makes nobody wait longer: what never failed is due, and waits end as long from now as they
    /// would have before.
    async fn next_due(&self, vessel: &VesselName, large: bool, limit: u32) -> Result<Vec<Delivery>> {
        self.next_due_beside(vessel, large, limit, &[]).await
    }

    /// The same without those of some directories, which can't be delivered for now.
    async fn next_due_beside(
        &self,
        vessel: &VesselName,
        large: bool,
        limit: u32,
        held_back: &[DirectoryName],
    ) -> Result<Vec<Delivery>>;

    /// When the next delivery to a vessel is due, in milliseconds since 1970; `None` when none is open.
    async fn next_due_at(&self, vessel: &VesselName) -> Result<Option<i64>> {
        self.next_due_at_beside(vessel, &[]).await
    }

    /// The same without those of some directories.
    async fn next_due_at_beside(&self, vessel: &VesselName, held_back: &[DirectoryName]) -> Result<Option<i64>>;

    /// Enters the digest of a version that was admitted without one.
    async fn hashed(&self, version: VersionId, digest: &Digest) -> Result<()>;

    /// Enters the outline of a version that is about to be acknowledged. Those of earlier versions of its path are kept
    /// only as long as they are the last that a vessel got.
    async fn outlined(&self, version: &Version, outline: &Outline) -> Result<()>;

    /// The outline of a version; `None` where none was entered.
    async fn outline(&self, version: &Version) -> Result<Option<Outline>>;

    /// Of the versions of the same path that have an outline, the one that a vessel acknowledged last.
    async fn last_delivered(&self, vessel: &VesselName, version: &Version) -> Result<Option<LastDelivered>>;

    /// Enters that a delivery is about to do what `state` stands for. `false`: it was superseded, leave it.
    async fn enter(&self, delivery: DeliveryId, state: DeliveryState) -> Result<bool>;

    /// Enters that the vessel holds the version. `false`: it was superseded meanwhile.
    async fn acknowledge(&self, delivery: DeliveryId, verified: Verified) -> Result<bool>;

    /// Enters that an attempt failed and when the next one is due (milliseconds since 1970). With `parked`, the delivery
    /// counts as set aside until it is tried again.
    async fn put_off(&self, delivery: DeliveryId, reason: &str, due_at: i64, parked: bool) -> Result<()>;

    /// Makes everything that was put off for a vessel due at once.
    async fn hurry(&self, vessel: &VesselName) -> Result<()>;

    /// Makes deliveries due at once that were put off, as if they had never failed.
    async fn retry(&self, deliveries: &[DeliveryId]) -> Result<()>;

    /// Has a version forgotten: it stays what its path holds, is sent to nobody any more and never retires, until the file
    /// changes. `false`: it has ended, or every vessel has it.
    async fn forget(&self, version: VersionId) -> Result<bool>;

    /// As [`Store::forget`], all versions of a directory, configured or not; gives how many there were.
    async fn forget_all(&self, directory: &DirectoryName) -> Result<u64>;

    /// Enters that a vessel is to be left alone, or not any more.
    async fn pause(&self, vessel: &VesselName, paused: bool) -> Result<()>;

    /// The vessels that are to be left alone.
    async fn paused(&self) -> Result<Vec<VesselName>>;

    /// Enters why a vessel can't be served; `None`: it can.
    async fn away(&self, vessel: &VesselName, reason: Option<&str>) -> Result<()>;

    /// What may still lie on a vessel of deliveries that are no longer wanted, those after `after`, at most `limit`.
    async fn remains(&self, vessel: &VesselName, after: DeliveryId, limit: u32) -> Result<Vec<Remains>>;

    /// Goes once through what answers questions and what makes entries, and changes nothing: both still move.
    async fn beat(&self) -> Result<()>;

    /// Enters that nothing of a delivery lies on its vessel any more.
    async fn swept(&self, delivery: DeliveryId) -> Result<()>;

    /// Whether a delivery is open: its parts on the vessel are still wanted.
    async fn is_open(&self, delivery: DeliveryId) -> Result<bool>;

    /// What every vessel that the ledger knows still has to get.
    async fn backlog(&self) -> Result<Vec<Backlog>>;

    /// All parked deliveries, at most `limit`.
    async fn parked(&self, limit: u32) -> Result<Vec<Parked>>;
}
