//! Content that a vessel has already, under another path: entries that were moved on the shore, and files with equal
//! content.

use async_trait::async_trait;

use super::LedgerError;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{Delivery, DeliveryId, HeldVersion, NewVersion, Version, VersionId};
use crate::signature::Signature;

type Result<T> = std::result::Result<T, LedgerError>;

/// A version that another path holds or held, with the inode, size and time of a new version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SameStamp {
    /// Index of the new version.
    pub at: usize,
    /// The version of the other path.
    pub version: VersionId,
    /// The other path.
    pub path: RelPath,
    /// Whether the other path still holds the version.
    pub is_current: bool,
}

/// The origin of a moved file, which a vessel acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginThere {
    /// The version of the earlier path.
    pub held: HeldVersion,
    /// Whether the vessel's entry may be renamed: nothing had the earlier path after the move, and the vessel has not
    /// acknowledged that yet.
    pub is_free: bool,
}

/// A moved entry that a vessel acknowledged at its earlier path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedEntry {
    /// The open delivery of the entry at its new path.
    pub delivery: DeliveryId,
    /// The open deletion of the earlier path.
    pub gone: Option<DeliveryId>,
    /// The new path.
    pub path: RelPath,
    /// The version of the earlier path.
    pub held: HeldVersion,
}

/// Maximum number of files of a directory that are found by blocks of their content; the oldest signatures are not.
pub const MOST_SAMPLED: i64 = 4096;

/// Reads the average lengths from the beginnings of stored signatures.
pub(super) fn averages(stored: &[Vec<u8>]) -> Vec<u32> {
    stored.iter().filter_map(|stored| Some(u32::from_le_bytes(*stored.first_chunk()?))).collect()
}

/// A delivered file that has blocks of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimilarFile {
    /// The version that the vessel acknowledged.
    pub held: HeldVersion,
    /// The version's signature.
    pub signature: Signature,
}

/// The ledger's queries and updates for content that a vessel has already.
#[async_trait]
pub trait Moves: Send + Sync {
    /// Returns the versions of other paths of a directory with the kind, inode, size and time of one of `versions`, ordered
    /// by index; of the same index, the versions that the paths hold now come first, then the newest.
    async fn same_stamp(&self, directory: &DirectoryName, versions: &[NewVersion]) -> Result<Vec<SameStamp>>;

    /// Returns, for each of `versions` by its index, the newest version of a file of at least 1 MiB in the directory with its
    /// inode, if that version has another path: a file that may have been moved and then changed.
    async fn same_inode(&self, directory: &DirectoryName, versions: &[NewVersion]) -> Result<Vec<(usize, Version)>>;

    /// Returns the versions that a path and the paths below it hold now, ordered by path, at most `limit`. `Gone`
    /// versions are left out.
    async fn versions_in(&self, directory: &DirectoryName, path: &RelPath, limit: u32) -> Result<Vec<Version>>;

    /// Returns the origin of a delivery's version, if the vessel acknowledged it at the place that the delivery goes to.
    async fn origin_there(&self, vessel: &VesselName, delivery: &Delivery) -> Result<Option<OriginThere>>;

    /// Returns the open deliveries to a vessel, which have not failed, of large files that were moved from the path of
    /// this version, so that publishing the version would replace their content.
    async fn wanting(&self, vessel: &VesselName, version: VersionId) -> Result<Vec<DeliveryId>>;

    /// Returns the moved entries at and below the path of a delivery's version, ordered by path, that the vessel
    /// acknowledged at their earlier paths.
    async fn moved_tree(&self, vessel: &VesselName, delivery: &Delivery) -> Result<Vec<MovedEntry>>;

    /// Records that the vessel holds these versions, because their entries were moved there, or that it holds them no
    /// longer (`Gone`). Runs in steps.
    async fn acknowledge_moved(&self, deliveries: &[DeliveryId]) -> Result<()>;

    /// Returns files of at least 1 MiB that have the size of a version and, if its digest is known, the same digest, and
    /// that the vessel acknowledged and no newer version has replaced there; newest first, at most 4.
    async fn copies_of(&self, vessel: &VesselName, version: &Version) -> Result<Vec<HeldVersion>>;

    /// Returns the average lengths of the blocks of the newest signatures of other paths in a version's directory.
    async fn averages_beside(&self, version: &Version) -> Result<Vec<u32>>;

    /// Returns other files of a version's directory with one of these blocks, by their keys
    /// ([`Block::key`](crate::signature::Block::key)), that the vessel acknowledged and no newer version has replaced there:
    /// those with the most of these blocks first, at most 4.
    async fn similar(&self, vessel: &VesselName, version: &Version, blocks: &[i64]) -> Result<Vec<SimilarFile>>;

    /// Records from which file on the vessel a delivery's file was made, as the bytes of `directory/path`, and how many
    /// bytes were moved or copied.
    async fn made_from(&self, delivery: DeliveryId, file: &[u8], bytes: u64) -> Result<()>;
}
