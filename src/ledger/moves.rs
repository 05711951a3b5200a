//! Content that a vessel already has under another path: entries that were moved on the shore, and files with equal or
//! similar content.

use async_trait::async_trait;

use super::LedgerError;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{Delivery, DeliveryId, HeldVersion, NewVersion, Version, VersionId};
use crate::signature::Signature;

type Result<T> = std::result::Result<T, LedgerError>;

/// A version of another path, with the same inode, size and time as a new version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SameStamp {
    /// Index of the new version in the list that the caller passed.
    pub at: usize,
    /// The version of the other path.
    pub version: VersionId,
    /// The other path.
    pub path: RelPath,
    /// Whether the other path still holds the version.
    pub is_current: bool,
}

/// The version from which an entry was moved, if the vessel acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginThere {
    /// The version of the earlier path.
    pub held: HeldVersion,
    /// Whether the vessel's entry may be renamed: the next version of the earlier path is a deletion, which the vessel
    /// has not acknowledged yet.
    pub is_free: bool,
}

/// An entry that was moved, and that a vessel had acknowledged under its earlier path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedEntry {
    /// The open delivery of the entry at its new path.
    pub delivery: DeliveryId,
    /// The open delivery that deletes the earlier path; `None` if there is none.
    pub gone: Option<DeliveryId>,
    /// The new path.
    pub path: RelPath,
    /// The version of the earlier path.
    pub held: HeldVersion,
}

/// Maximum number of signatures of a directory that are searched for similar files. The oldest signatures are left out.
pub const MOST_SAMPLED: i64 = 4096;

/// Returns the average block lengths, which are the first 4 bytes of stored signatures.
pub(super) fn averages(stored: &[Vec<u8>]) -> Vec<u32> {
    stored.iter().filter_map(|stored| Some(u32::from_le_bytes(*stored.first_chunk()?))).collect()
}

/// A delivered file that has some blocks in common with another file.
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
    /// Returns the versions of other paths of a directory that have the kind, inode, size and time of one of
    /// `versions`. They are ordered by the index in `versions`; for each index, versions that a path holds now come
    /// first, then newer versions before older ones.
    async fn same_stamp(&self, directory: &DirectoryName, versions: &[NewVersion]) -> Result<Vec<SameStamp>>;

    /// Returns files that may have been moved and then changed, each with the index of the new version. For each of
    /// `versions`, looks for the newest version of a file in the directory with the same inode and at least 1 MiB.
    /// Returns that version if its path differs.
    async fn same_inode(&self, directory: &DirectoryName, versions: &[NewVersion]) -> Result<Vec<(usize, Version)>>;

    /// Returns the versions that a path and the paths below it hold now, ordered by path, at most `limit`. Leaves out
    /// `Gone` versions.
    async fn versions_in(&self, directory: &DirectoryName, path: &RelPath, limit: u32) -> Result<Vec<Version>>;

    /// Returns the version from which a delivery's entry was moved, if the vessel acknowledged it at the delivery's
    /// place.
    async fn origin_there(&self, vessel: &VesselName, delivery: &Delivery) -> Result<Option<OriginThere>>;

    /// Returns the open deliveries to a vessel whose files were moved away from the path of this version. Leaves out
    /// deliveries that failed, and files smaller than 1 MiB. Publishing this version would replace the content that the
    /// returned deliveries can use.
    async fn wanting(&self, vessel: &VesselName, version: VersionId) -> Result<Vec<DeliveryId>>;

    /// Returns the moved entries at and below the path of a delivery's version, ordered by path. Leaves out entries
    /// that the vessel has not acknowledged under their earlier paths.
    async fn moved_tree(&self, vessel: &VesselName, delivery: &Delivery) -> Result<Vec<MovedEntry>>;

    /// Records that the vessel has renamed these entries. `deliveries` contains the deliveries of the new paths, whose
    /// versions the vessel now holds, and the `Gone` deliveries of the earlier paths, which the vessel no longer holds.
    /// Runs in steps.
    async fn acknowledge_moved(&self, deliveries: &[DeliveryId]) -> Result<()>;

    /// Returns files with the same content as a version, newest first, at most 4. They have at least 1 MiB, the same
    /// size, and the same digest if the version's digest is known. The vessel acknowledged them and no newer version
    /// has replaced them there.
    async fn copies_of(&self, vessel: &VesselName, version: &Version) -> Result<Vec<HeldVersion>>;

    /// Returns the average block lengths of the newest 64 signatures of other paths in a version's directory.
    async fn averages_beside(&self, version: &Version) -> Result<Vec<u32>>;

    /// Returns other files of a version's directory that contain at least one of these blocks, given by their keys
    /// ([`Block::key`](crate::signature::Block::key)). The vessel acknowledged the files and no newer version has
    /// replaced them there. Files with the most of these blocks come first, at most 4.
    async fn similar(&self, vessel: &VesselName, version: &Version, blocks: &[i64]) -> Result<Vec<SimilarFile>>;

    /// Records the file on the vessel from which a delivery's file was made, as the bytes of `directory/path`, and how
    /// many bytes were moved or copied from it.
    async fn made_from(&self, delivery: DeliveryId, file: &[u8], bytes: u64) -> Result<()>;
}
