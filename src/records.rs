//! Records that the ledger stores and the workflows exchange: versions and deliveries.

use std::time::Duration;

use crate::chunk::ChunkPlan;
use crate::digest::Digest;
use crate::names::{DirectoryName, RelPath, VesselName};

/// File metadata that distinguishes two contents of a path without reading the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// Size in bytes.
    pub size: u64,
    /// Modification time, whole seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds part of the modification time.
    pub mtime_nanos: u32,
    /// Inode number: a file that was replaced by another of the same size and time is a new version.
    pub inode: u64,
}

/// The kind of entry that a version describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionKind {
    /// A regular file.
    File,
    /// A directory, empty or not.
    Directory,
    /// A symbolic link.
    Link,
    /// The path was deleted, and the vessels must delete it too.
    Gone,
    /// An entry that is skipped, such as a symbolic link under `Links = skip`. It is not sent, and the vessels keep the
    /// earlier version of the path until the path no longer exists.
    Skipped,
}

impl VersionKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::File, Self::Directory, Self::Link, Self::Gone, Self::Skipped];

    /// Returns the word that the ledger stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::Gone => "gone",
            Self::Skipped => "skipped",
        }
    }
}

/// Metadata that distinguishes two versions of a path without reading the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// The kind of file.
    pub kind: VersionKind,
    /// The file's size, modification time and inode. For a directory only the inode is set, because size and times
    /// change with the directory's contents.
    pub stamp: FileStamp,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Numeric owner and group; `None` unless the settings have `Owner = yes`.
    pub owner: Option<(u32, u32)>,
}

impl Traits {
    /// The traits of a path that no longer exists.
    pub const GONE: Self = Self {
        kind: VersionKind::Gone,
        stamp: FileStamp { size: 0, mtime: 0, mtime_nanos: 0, inode: 0 },
        mode: 0,
        owner: None,
    };

    /// The traits of an entry that is skipped.
    pub const SKIPPED: Self = Self { kind: VersionKind::Skipped, ..Self::GONE };
}

/// The ledger's number of a file version; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId(pub i64);

/// The ledger's number of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub i64);

/// A file version as intake recorded it, before the ledger has numbered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVersion {
    /// Path below the directory's location.
    pub path: RelPath,
    /// The kind of file.
    pub kind: VersionKind,
    /// The source's metadata at intake.
    pub stamp: FileStamp,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Numeric owner and group to be set on the vessels; `None` if they are not to be set.
    pub owner: Option<(u32, u32)>,
    /// Target of a link; empty for other kinds.
    pub target: Vec<u8>,
    /// SHA-256 of the whole file; `None` until the file is read, because a large file is hashed while it is uploaded.
    pub digest: Option<Digest>,
    /// Chunk size in bytes.
    pub chunk_size: u64,
    /// The version of another path that the entry was before it was moved, by its inode, size and time. Of a `Gone`
    /// version, the version that the path must still hold; otherwise the `Gone` version is not recorded.
    pub origin: Option<VersionId>,
    /// The moved directory above, if the entry was moved with it. Its delivery comes first.
    pub moved_with: Option<RelPath>,
}

impl NewVersion {
    /// Creates a version that has no content to read: anything but a regular file.
    pub fn without_content(path: RelPath, traits: Traits, target: Vec<u8>) -> Self {
        let Traits { kind, stamp, mode, owner } = traits;
        let (digest, chunk_size, origin, moved_with) = (None, 1 << 20, None, None);
        Self { path, kind, stamp, mode, owner, target, digest, chunk_size, origin, moved_with }
    }

    /// Creates the `Gone` version of a path whose entry was moved away. It is recorded only if the path still holds
    /// `version`.
    pub fn moved_away(path: RelPath, version: VersionId) -> Self {
        Self { origin: Some(version), ..Self::without_content(path, Traits::GONE, Vec::new()) }
    }
}

/// One content of one path, as stored in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The ledger's number of this version.
    pub id: VersionId,
    /// The directory that the file belongs to.
    pub directory: DirectoryName,
    /// Path below the directory's location.
    pub path: RelPath,
    /// The kind of file.
    pub kind: VersionKind,
    /// The source's metadata at intake. If the source's metadata differs, the source is no longer this version.
    pub stamp: FileStamp,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Numeric owner and group to be set on the vessels; `None` if they are not to be set.
    pub owner: Option<(u32, u32)>,
    /// Target of a link; empty for other kinds.
    pub target: Vec<u8>,
    /// SHA-256 of the whole file; `None` until the file is read.
    pub digest: Option<Digest>,
    /// Chunk size in bytes.
    pub chunk_size: u64,
}

impl Version {
    /// Returns how the file is cut into chunks.
    pub fn plan(&self) -> ChunkPlan {
        ChunkPlan::new(self.stamp.size, self.chunk_size)
    }
}

/// Progress of a delivery. DESIGN.md describes the work in each state and the consequences of a crash there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Nothing was sent yet.
    Pending,
    /// Parts are being uploaded.
    Uploading,
    /// The assembled file is being verified.
    Verifying,
    /// The file is being flushed and renamed to its final name.
    Publishing,
    /// The vessel has the file, verified and durable, under its final name.
    Acknowledged,
    /// A newer version replaced this one, or the source no longer exists.
    Superseded,
    /// The vessel had not received the version when it expired.
    Expired,
}

impl DeliveryState {
    /// All states, in the order in which a delivery passes through them.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Uploading,
        Self::Verifying,
        Self::Publishing,
        Self::Acknowledged,
        Self::Superseded,
        Self::Expired,
    ];

    /// Returns the word that the ledger stores and people read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Uploading => "uploading",
            Self::Verifying => "verifying",
            Self::Publishing => "publishing",
            Self::Acknowledged => "acknowledged",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
        }
    }
}

/// The delivery of one file version to one vessel.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The ledger's number of this delivery.
    pub id: DeliveryId,
    /// The version to deliver.
    pub version: Version,
    /// Progress so far.
    pub state: DeliveryState,
    /// Number of failures in a row.
    pub failures: u32,
    /// Since when it is due, in milliseconds since 1970.
    pub due_at: i64,
    /// Number of the remote location that the version is delivered to.
    pub place: PlaceNumber,
    /// Size and time that the vessel reported for this version after an earlier delivery, if they differed from the
    /// source's.
    pub seen: Option<Seen>,
    /// Random part of the assembly's name, which nobody on the vessel can guess; `None` for a delivery that was
    /// recorded before tokens were introduced.
    pub token: Option<u64>,
    /// Where the entry was before it was moved, as far as the shore can tell.
    pub origin: Option<Origin>,
}

/// The path that an entry had before it was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The path.
    pub path: RelPath,
    /// Whether nothing had the path after the move, so that the vessel's entry may be renamed. Otherwise it is copied.
    pub is_free: bool,
}

/// A version that was delivered, or partly delivered, to a vessel before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldVersion {
    /// The version.
    pub version: Version,
    /// Size and time that the vessel reported for the file, if they differ from the source's.
    pub seen: Option<Seen>,
}

/// Our temporary files that may still be on a vessel although their version has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The delivery that left the files.
    pub delivery: DeliveryId,
    /// The version that has ended.
    pub version: VersionId,
    /// The version's directory, which determines where its assembly was.
    pub directory: DirectoryName,
    /// The version's path in that directory.
    pub path: RelPath,
    /// Random part of the assembly's name.
    pub token: Option<u64>,
}

/// Size and time of a delivered file, as reported by its vessel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Size in bytes.
    pub size: u64,
    /// Modification time, whole seconds since 1970, as far as the vessel's protocol can express it.
    pub mtime: i64,
}

/// The ledger's number of a directory's remote location on a vessel: a path on a host, accessed with a certain account.
/// Later locations have higher numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlaceNumber(pub i64);

/// The identity of a vessel's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Address and port, or the name of this host.
    pub address: String,
    /// The login account.
    pub account: String,
    /// Algorithm and fingerprint of the host key; `None` where the transport has no host key.
    pub key: Option<(String, String)>,
}

/// What a path to a vessel carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRate {
    /// Payload bytes per second.
    pub rate: u64,
    /// The shortest round trip.
    pub round_trip: Duration,
}

/// How the vessel's copy was verified before the delivery was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// The vessel hashed the file: a program there, or its SFTP server.
    ByVessel,
    /// The file was read back over the connection and hashed on the shore.
    ByReadBack,
    /// The entry has no content to hash; the vessel reported its type.
    ByLook,
    /// Nothing was deleted, because the file on the vessel is not the delivered one.
    Kept,
    /// The vessel doesn't hash the file, and it may not be read back (the vessel refuses, or `Verify = size`), so only the
    /// file's size was compared.
    BySize,
    /// The vessel neither hashes the file nor allows reading it or its status, so nothing was verified.
    Not,
    /// The vessel's file was renamed. It was verified when it was delivered, and had the same size and time since.
    Moved,
    /// The file was verified before it was renamed; the reply to the rename was lost, and somebody has removed the file
    /// since.
    Taken,
}

impl Verified {
    /// Returns the words that the ledger stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ByVessel => "hashed on the vessel",
            Self::ByReadBack => "read back",
            Self::ByLook => "looked at",
            Self::Kept => "not deleted: changed on the vessel",
            Self::BySize => "size only",
            Self::Not => "not verified",
            Self::Moved => "moved on the vessel",
            Self::Taken => "verified, then taken",
        }
    }
}

/// An event that people can be notified of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// A vessel acknowledged a version.
    Delivered,
    /// Every vessel has the version, and its source was moved to `processed/` or deleted.
    Retired,
    /// A delivery was parked.
    Parked,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Delivered, Self::Retired, Self::Parked];

    /// Returns the event's name in the ledger and in notifications.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retired => "retired",
            Self::Parked => "parked",
        }
    }
}

/// The file system at a path of a directory. Names and paths are bytes, as the kernel reports them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Path below the location; empty for the location itself.
    pub path: Vec<u8>,
    /// The file system's type, such as `ext4`.
    pub file_system: Vec<u8>,
    /// The mounted device or source, such as `/dev/sda1`.
    pub source: Vec<u8>,
    /// The path inside the file system; empty for a followed link, for which the path is not compared.
    pub within: Vec<u8>,
    /// The file system's ID; 0 if the file system has none.
    pub fsid: u64,
}

impl Mount {
    /// Returns whether both mounts show the same part of the same file system, even if at different mount points.
    pub fn is_same(&self, other: &Self) -> bool {
        // Compares the IDs if both are known, because a device may change its name with a restart, and all tmpfs have
        // the same name.
        let same =
            if self.fsid != 0 && other.fsid != 0 { self.fsid == other.fsid } else { self.source == other.source };
        let within = self.within.is_empty() || other.within.is_empty() || self.within == other.within;
        let both_links = self.within.is_empty() && other.within.is_empty();
        let part = !both_links || self.mounted_part() == other.mounted_part();
        same && within && part && self.file_system == other.file_system
    }

    /// Returns the mounted directory of the source, such as `[/srv]` of `/dev/sda1[/srv]`; empty if the source names
    /// none.
    fn mounted_part(&self) -> &[u8] {
        match self.source.iter().rposition(|byte| *byte == b'[') {
            Some(at) if self.source.ends_with(b"]") => &self.source[at..],
            _ => b"",
        }
    }
}

/// A vessel, and the name of one of its ways: that of a link, or an address. `None` if the settings name only one way.
pub type WayOf = (VesselName, Option<String>);

/// Bytes that went over the link to a vessel, with resent bytes and with an estimate of the TCP and IP headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkBytes {
    /// Bytes sent to the vessel, including `resent`.
    pub sent: u64,
    /// Bytes received from the vessel.
    pub received: u64,
    /// Bytes that TCP sent again because they were lost.
    pub resent: u64,
}

impl LinkBytes {
    /// Returns the bytes of both directions.
    pub fn total(&self) -> u64 {
        self.sent.saturating_add(self.received)
    }

    /// Returns the sum of both amounts.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.merged(other, u64::saturating_add)
    }

    /// Returns what was added to `earlier` until this amount was counted.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.merged(earlier, u64::saturating_sub)
    }

    /// Returns the larger value of each count.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.merged(other, u64::max)
    }

    fn merged(self, other: Self, merge: fn(u64, u64) -> u64) -> Self {
        Self {
            sent: merge(self.sent, other.sent),
            received: merge(self.received, other.received),
            resent: merge(self.resent, other.resent),
        }
    }
}

/// What a delivery has cost, all attempts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCost {
    /// Bytes of the file that were written to connections, including those written again, and those that a connection
    /// lost before it sent them.
    pub written: u64,
    /// The delivery's share of the bytes on the link in both directions; `None` if they are not counted.
    pub link: Option<u64>,
}

/// A day in UTC, as the number of days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcDay(pub i64);

impl UtcDay {
    /// Returns the day of a time in milliseconds since 1970.
    pub fn at(ms: i64) -> Self {
        Self(ms.div_euclid(86_400_000))
    }
}

/// Outstanding deliveries of one vessel, for summaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The vessel.
    pub vessel: VesselName,
    /// Number of deliveries that are neither acknowledged nor superseded.
    pub waiting: u64,
    /// Total size in bytes of the waiting deliveries.
    pub waiting_bytes: u64,
    /// Number of waiting deliveries that are parked.
    pub parked: u64,
    /// Number of deliveries acknowledged so far.
    pub acknowledged: u64,
}
