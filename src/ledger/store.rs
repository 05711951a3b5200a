//! The workflows' interface to the ledger, independent of the database.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    DirectoryPauses, IncidentMemory, LedgerError, LinkUsage, MountMemory, Moves, Outage, Outbox, Places, Queues,
    Reports, Shores, Upkeep, Work,
};
use crate::digest::Digest;
use crate::names::{DirectoryName, InstanceId, RelPath, VesselName};
use crate::records::{
    Backlog, Delivery, DeliveryId, DeliveryState, FileStamp, HeldVersion, NewVersion, Remains, Traits, Verified,
    Version, VersionId,
};
use crate::signature::Signature;

type Result<T> = std::result::Result<T, LedgerError>;

/// The version that a path holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentVersion {
    /// The path.
    pub path: RelPath,
    /// The traits of the version's source.
    pub traits: Traits,
}

/// A pause of a vessel or of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// When the pause ends, in milliseconds since 1970; `None` if it lasts until a person ends it.
    pub until: Option<i64>,
    /// The note of the person who paused the vessel or the directory.
    pub note: Option<String>,
}

/// The version of a path that was last delivered to a vessel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastDelivered {
    /// The stamp of the version's source.
    pub stamp: FileStamp,
    /// The version's signature.
    pub signature: Signature,
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
    /// The reason of the last failure.
    pub reason: String,
}

/// The ledger's queries and updates.
///
/// A method runs in one transaction, which concurrent calls may share, unless its documentation mentions steps. A
/// cancelled call, or a cancelled step of a call, is applied either completely or not at all, and affects no other
/// call. Every update is idempotent, with these exceptions: [`Store::put_off`] counts failures, and
/// [`Places::acknowledge_there`] and [`LinkUsage`] add up bytes.
#[async_trait]
pub trait Store:
    DirectoryPauses
    + IncidentMemory
    + Outbox
    + Places
    + Moves
    + Queues
    + Upkeep
    + MountMemory
    + LinkUsage
    + Shores
    + Send
    + Sync
{
    /// Returns the shore's id, which is generated with the ledger and never changes.
    fn instance(&self) -> InstanceId;

    /// Returns why the ledger can't be used at the moment; `None` when it can. During an outage, queries and updates
    /// wait for its end, except those of [`Reports`], [`Self::beat`], [`Upkeep::probe`] and [`Shores::send_hints`].
    fn outage(&self) -> Option<Arc<Outage>> {
        None
    }

    /// Waits until it is certain that no other process can use the ledger instead of this process, and that no other
    /// process can do this handle's work. Must be called right before a step that can't be undone: publishing,
    /// deleting, retiring.
    ///
    /// # Errors
    /// [`LedgerError::TakenOver`] when another process has taken over the ledger; [`LedgerError::NotOurs`] when this
    /// shore has lost the handle's work.
    async fn surely_ours(&self) -> Result<()> {
        Ok(())
    }

    /// Returns how long the guarantee of [`Self::surely_ours`] lasts.
    fn sure_for(&self) -> Duration {
        Duration::MAX
    }

    /// Returns a handle to the ledger for the tasks of one piece of work; `None` if this shore uses the ledger alone.
    /// Once this shore has lost the work, the ledger rejects the updates of this handle, even if the shore acquires the
    /// work again.
    fn for_work(&self, _work: &Work) -> Option<Arc<dyn Store>> {
        None
    }

    /// Returns the interface for people's queries to the ledger.
    fn reports(&self) -> Arc<dyn Reports>;

    /// Records file versions, and one delivery of each version to each of `vessels`.
    ///
    /// Supersedes the version that a path held before, unless the new version equals it: same kind, stamp, mode and
    /// owner, and same digest if both digests are known. An equal version is not recorded. Of several versions of one
    /// path, only the last is recorded.
    ///
    /// `Gone` and `Skipped` versions are recorded only if the path holds a version. If a `Gone` version has an
    /// `origin`, the path must hold that version. A `Gone` version gets deliveries too, and ends when every vessel has
    /// acknowledged it. A `Skipped` version gets no deliveries, and remains the version that the path holds.
    async fn admit(&self, directory: &DirectoryName, versions: &[NewVersion], vessels: &[VesselName]) -> Result<()>;

    /// Adjusts the open deliveries of a directory to the vessels that take the directory now (`vessels`), and to the
    /// current places. Adds missing deliveries and supersedes deliveries to other vessels. When a vessel takes the
    /// directory again, the superseded deliveries to the vessel are opened again and resume after the bytes sent
    /// before. A version becomes complete when none of its deliveries is open and at least one was acknowledged or has
    /// expired.
    ///
    /// Runs in steps, so that other writers get their turn. Each step is atomic; when a call is interrupted, the next
    /// call repeats the missing steps.
    async fn reconcile(&self, directory: &DirectoryName, vessels: &[VesselName]) -> Result<()>;

    /// Returns the versions that a directory holds now (admitted and not retired), ordered by path.
    async fn current(&self, directory: &DirectoryName) -> Result<Vec<CurrentVersion>>;

    /// Returns the versions that a directory holds now, at most `limit`, beginning after the path `after`, or with the
    /// first path if `after` is `None`. The versions are ordered by path, except that the store may order long paths
    /// with the same beginning differently. To continue, pass the path of the last version as `after`.
    async fn current_after(
        &self,
        directory: &DirectoryName,
        after: Option<&RelPath>,
        limit: u32,
    ) -> Result<Vec<CurrentVersion>>;

    /// Returns the versions that `paths` hold now, in no particular order.
    async fn current_at(&self, directory: &DirectoryName, paths: &[RelPath]) -> Result<Vec<CurrentVersion>>;

    /// Returns the versions that are current below any of the paths `above`, each version once, ordered by path.
    async fn current_below(&self, directory: &DirectoryName, above: &[RelPath]) -> Result<Vec<CurrentVersion>>;

    /// Returns the number of paths of a directory that hold a version now.
    async fn count_current(&self, directory: &DirectoryName) -> Result<u64>;

    /// Returns the predecessors of `version` that a vessel may hold, newest first, at most 64. These are earlier
    /// versions of the same path with a delivery to the place to which `version` would be delivered now.
    async fn held_before(&self, version: VersionId, vessel: &VesselName) -> Result<Vec<HeldVersion>>;

    /// Returns whether a delivery to the vessel is open for any path below `above`.
    async fn is_open_below(&self, vessel: &VesselName, directory: &DirectoryName, above: &RelPath) -> Result<bool>;

    /// Records that the sources of `paths` no longer exist, ends their versions and supersedes the open deliveries. A
    /// complete version counts as retired, or as expired if no vessel acknowledged it. Returns the paths of the
    /// versions that were not complete.
    async fn vanished(&self, directory: &DirectoryName, paths: &[RelPath]) -> Result<Vec<RelPath>>;

    /// Returns complete files of a directory with version numbers above `after`, at most `limit`. A file is complete
    /// when its delivery to each vessel that takes the file was acknowledged or has expired.
    async fn retirable(&self, directory: &DirectoryName, after: VersionId, limit: u32) -> Result<Vec<Version>>;

    /// Records that the sources of `versions` were retired, or that the versions have expired if no vessel acknowledged
    /// them. A version that is no longer complete, because a vessel was added meanwhile, remains current until
    /// [`Store::vanished`] ends it and returns its path, so that the loss is reported.
    async fn retired(&self, versions: &[VersionId]) -> Result<()>;

    /// Returns the due deliveries to a vessel in the shared queue (see [`Queues`]), at most `limit`, beginning with
    /// those that have been due longest. With `large`, returns only deliveries of files of more than one chunk,
    /// otherwise only the others. Leaves out deliveries that must wait for the delivery of a moved entry.
    ///
    /// Setting the clock back delays no delivery: deliveries that never failed are due at once, and for the other
    /// deliveries the remaining wait stays the same.
    async fn next_due(&self, vessel: &VesselName, large: bool, limit: u32) -> Result<Vec<Delivery>> {
        self.next_due_beside(vessel, large, limit, &[]).await
    }

    /// Returns the deliveries of [`Store::next_due`], without those from the directories `held_back`.
    async fn next_due_beside(
        &self,
        vessel: &VesselName,
        large: bool,
        limit: u32,
        held_back: &[DirectoryName],
    ) -> Result<Vec<Delivery>>;

    /// Returns when the next delivery to a vessel in the shared queue is due, in milliseconds since 1970; `None` when
    /// no delivery in this queue is open.
    async fn next_due_at(&self, vessel: &VesselName) -> Result<Option<i64>> {
        self.next_due_at_beside(vessel, &[]).await
    }

    /// Returns the time of [`Store::next_due_at`], ignoring deliveries from the directories `held_back`.
    async fn next_due_at_beside(&self, vessel: &VesselName, held_back: &[DirectoryName]) -> Result<Option<i64>>;

    /// Records the digest of a version that was admitted without a digest.
    async fn hashed(&self, version: VersionId, digest: &Digest) -> Result<()>;

    /// Records the signature of a version that is about to be acknowledged. Deletes the signature of an earlier version
    /// of the path unless that version is the last one that some vessel received.
    async fn keep_signature_of(&self, version: &Version, signature: &Signature) -> Result<()>;

    /// Returns the signature of a version; `None` when no signature was recorded.
    async fn signature(&self, version: &Version) -> Result<Option<Signature>>;

    /// Returns the version of the same path that the vessel acknowledged last. Ignores versions without a signature.
    async fn last_delivered(&self, vessel: &VesselName, version: &Version) -> Result<Option<LastDelivered>>;

    /// Records that a delivery enters `state`. Returns `false` when the delivery was superseded and must be abandoned.
    async fn enter(&self, delivery: DeliveryId, state: DeliveryState) -> Result<bool>;

    /// Records that the vessel holds the delivery's version. Returns `false` when the delivery was superseded
    /// meanwhile. A delivery that expired meanwhile counts as acknowledged.
    async fn acknowledge(&self, delivery: DeliveryId, verified: Verified) -> Result<bool>;

    /// Records that an attempt failed, and when the next attempt is due (milliseconds since 1970). If `parked`, the
    /// delivery counts as parked until the next attempt.
    async fn put_off(&self, delivery: DeliveryId, reason: &str, due_at: i64, parked: bool) -> Result<()>;

    /// Makes all postponed deliveries to a vessel due at once.
    async fn hurry(&self, vessel: &VesselName) -> Result<()>;

    /// Makes postponed deliveries due at once and resets their counts of failures.
    async fn retry(&self, deliveries: &[DeliveryId]) -> Result<()>;

    /// Marks a version as forgotten: its path still holds the version, but the version is sent to no vessel and never
    /// retires, until the file changes. Returns `false` when the version has ended, is complete or was already
    /// forgotten.
    async fn forget(&self, version: VersionId) -> Result<bool>;

    /// Marks all incomplete versions that a directory holds now as forgotten (see [`Store::forget`]), even if the
    /// directory is not configured. Returns the number of marked versions.
    async fn forget_all(&self, directory: &DirectoryName) -> Result<u64>;

    /// Records that a vessel is paused, or with `None` that it is no longer paused.
    async fn pause(&self, vessel: &VesselName, pause: Option<&Pause>) -> Result<()>;

    /// Returns the vessels whose recorded pauses have ended, and when the next of the other pauses ends, in
    /// milliseconds since 1970.
    async fn ended_pauses(&self) -> Result<(Vec<VesselName>, Option<i64>)>;

    /// Returns the paused vessels, without those whose pauses have ended.
    async fn paused(&self) -> Result<Vec<VesselName>>;

    /// Records why a vessel can't be served, or with `None` that it can be served.
    async fn away(&self, vessel: &VesselName, reason: Option<&str>) -> Result<()>;

    /// Returns the temporary files that superseded deliveries may have left on a vessel. Covers deliveries with numbers
    /// above `after`, at most `limit`.
    async fn remains(&self, vessel: &VesselName, after: DeliveryId, limit: u32) -> Result<Vec<Remains>>;

    /// Sends a no-op through the reading and the writing connection, as a liveness check of both.
    async fn beat(&self) -> Result<()>;

    /// Records that no parts of a superseded delivery are left on its vessel.
    async fn swept(&self, delivery: DeliveryId) -> Result<()>;

    /// Returns whether a delivery is open, so that its parts on the vessel are still needed.
    async fn is_open(&self, delivery: DeliveryId) -> Result<bool>;

    /// Returns the numbers of open and acknowledged deliveries for every vessel that has deliveries in the ledger.
    async fn backlog(&self) -> Result<Vec<Backlog>>;

    /// Returns parked deliveries, at most `limit`.
    async fn parked(&self, limit: u32) -> Result<Vec<Parked>>;
}
