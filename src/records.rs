//! The records that the ledger keeps and the workflows pass around: versions and deliveries.

use crate::chunk::ChunkPlan;
use crate::digest::Digest;
use crate::names::{DirectoryName, RelPath, VesselName};

/// What tells one content of a path from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// Size in bytes.
    pub size: u64,
    /// Time of last change of the content, whole seconds since 1970.
    pub mtime: i64,
    /// The rest of that time, in nanoseconds.
    pub mtime_nanos: u32,
    /// Inode number: a file that was replaced by another of the same size and time is a new version.
    pub inode: u64,
}

/// What a version is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionKind {
    /// A regular file.
    File,
    /// A directory, with or without anything in it.
    Directory,
    /// A symbolic link.
    Link,
    /// Nothing any more: what the vessels hold of it is to be deleted.
    Gone,
    /// Something that is skipped, such as a symbolic link under `Links = skip`. It is sent to nobody, and the vessels keep
    /// the versions before it until nothing has the name any more.
    Skipped,
}

impl VersionKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::File, Self::Directory, Self::Link, Self::Gone, Self::Skipped];

    /// The word the ledger keeps.
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

/// What tells one version of a path from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// What it is.
    pub kind: VersionKind,
    /// Of a directory only the inode: size and times change with what it holds.
    pub stamp: FileStamp,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Numbers of owner and group, where they matter.
    pub owner: Option<(u32, u32)>,
}

impl Traits {
    /// Of what is there no more.
    pub const GONE: Self = Self {
        kind: VersionKind::Gone,
        stamp: FileStamp { size: 0, mtime: 0, mtime_nanos: 0, inode: 0 },
        mode: 0,
        owner: None,
    };

    /// Of something that is skipped.
    pub const SKIPPED: Self = Self { kind: VersionKind::Skipped, ..Self::GONE };
}

/// The ledger's number of a file version; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId(pub i64);

/// The ledger's number of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub i64);

/// A file version as intake saw it, before the ledger has numbered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVersion {
    /// Where it lies below the directory's location.
    pub path: RelPath,
    /// What it is.
    pub kind: VersionKind,
    /// What it looked like when it was taken in.
    pub stamp: FileStamp,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Numbers of owner and group, where they are to be set on the vessels.
    pub owner: Option<(u32, u32)>,
    /// Where a link leads; empty for what is none.
    pub target: Vec<u8>,
    /// SHA-256 of the whole; `None` while nobody has read it: a large file is hashed while it is on its way.
    pub digest: Option<Digest>,
    /// Size of its chunks in bytes.
    pub chunk_size: u64,
}

impl NewVersion {
    /// A version of what has no content that would have to be read.
    pub fn without_content(path: RelPath, traits: Traits, target: Vec<u8>) -> Self {
        let Traits { kind, stamp, mode, owner } = traits;
        Self { path, kind, stamp, mode, owner, target, digest: None, chunk_size: 1 << 20 }
    }
}

/// One content of one path, as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The ledger's number.
    pub id: VersionId,
    /// The directory it belongs to.
    pub directory: DirectoryName,
    /// Where it lies below the directory's location.
    pub path: RelPath,
    /// What it is.
    pub kind: VersionKind,
    /// What the source looks like as long as it is this version.
    pub stamp: FileStamp,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Numbers of owner and group, where they are to be set on the vessels.
    pub owner: Option<(u32, u32)>,
    /// Where a link leads; empty for what is none.
    pub target: Vec<u8>,
    /// SHA-256 of the whole; `None` while nobody has read it.
    pub digest: Option<Digest>,
    /// Size of its chunks in bytes.
    pub chunk_size: u64,
}

impl Version {
    /// How it is cut into chunks.
    pub fn plan(&self) -> ChunkPlan {
        ChunkPlan::new(self.stamp.size, self.chunk_size)
    }
}

/// How far a delivery has come. See DESIGN.md for what is done in each state and what a crash there means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Nothing was sent yet.
    Pending,
    /// Parts are on their way.
    Uploading,
    /// The vessel hashes the whole.
    Verifying,
    /// Being flushed and renamed into place.
    Publishing,
    /// The vessel holds it, verified and durable, under its final name.
    Acknowledged,
    /// A newer version took its place, or the source is gone.
    Superseded,
}

impl DeliveryState {
    /// All states, in the order a delivery goes through them.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Uploading, Self::Verifying, Self::Publishing, Self::Acknowledged, Self::Superseded];

    /// The word the ledger keeps and people read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Uploading => "uploading",
            Self::Verifying => "verifying",
            Self::Publishing => "publishing",
            Self::Acknowledged => "acknowledged",
            Self::Superseded => "superseded",
        }
    }
}

/// One file version on its way to one vessel.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The ledger's number.
    pub id: DeliveryId,
    /// What is delivered.
    pub version: Version,
    /// How far it has come.
    pub state: DeliveryState,
    /// How often it failed in a row.
    pub failures: u32,
    /// The place that it goes to.
    pub place: PlaceNumber,
    /// What it looked like on the vessel when it was delivered there before.
    pub seen: Option<Seen>,
    /// A random part of the name under which its file is put together, which nobody on the vessel can guess; `None` for a
    /// delivery that was entered before there were any.
    pub token: Option<u64>,
}

/// A version that was on its way to a vessel before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldVersion {
    /// The version.
    pub version: Version,
    /// What it looked like on the vessel, where that differs from its source.
    pub seen: Option<Seen>,
}

/// Something of ours that may still lie on a vessel after its version has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The delivery that left it.
    pub delivery: DeliveryId,
    /// The version that has ended.
    pub version: VersionId,
    /// Its directory, which says where its assembly was put together.
    pub directory: DirectoryName,
    /// Its path in that directory.
    pub path: RelPath,
    /// The random part of its assembly's name.
    pub token: Option<u64>,
}

/// What a delivered file looks like on its vessel, as the vessel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Size in bytes.
    pub size: u64,
    /// Time of last change, whole seconds since 1970, as far as the vessel's protocol can say it.
    pub mtime: i64,
}

/// The number of a directory's place on a vessel; each further place has a higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlaceNumber(pub i64);

/// What tells one vessel's host from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its address and port, or how this host is called.
    pub address: String,
    /// The account that is logged in to.
    pub account: String,
    /// Algorithm and fingerprint of the key that it has shown; `None` where it shows none.
    pub key: Option<(String, String)>,
}

/// How the vessel's copy was verified before it was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// A program on the vessel hashed it.
    ByVessel,
    /// It was read back over the wire and hashed on the shore.
    ByReadBack,
    /// It has no content to hash; the vessel said what it is.
    ByLook,
    /// Nothing was deleted, for what is there is something else than what was delivered.
    Kept,
    /// The vessel hashes nothing and lets nobody read it: only its size was compared.
    BySize,
    /// The vessel hashes nothing and lets nobody read it or look at it.
    Not,
    /// It was verified before it got its name; the answer to that was lost, and somebody there has taken it since.
    Taken,
}

impl Verified {
    /// The words the ledger keeps.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ByVessel => "hashed on the vessel",
            Self::ByReadBack => "read back",
            Self::ByLook => "looked at",
            Self::Kept => "not deleted: changed on the vessel",
            Self::BySize => "size only",
            Self::Not => "not verified",
            Self::Taken => "verified, then taken",
        }
    }
}

/// Something that people can have themselves told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// A vessel acknowledged a version.
    Delivered,
    /// Every vessel has it, and its source is out of the way.
    Retired,
    /// A delivery was set aside.
    Parked,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Delivered, Self::Retired, Self::Parked];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retired => "retired",
            Self::Parked => "parked",
        }
    }
}

/// The file system that is at a place of a directory. Names and paths are bytes, as the kernel gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The place, below the location; empty: the location itself.
    pub path: Vec<u8>,
    /// The file system's type, such as `ext4`.
    pub file_system: Vec<u8>,
    /// What is mounted, such as `/dev/sda1`.
    pub source: Vec<u8>,
    /// Where the place lies in that file system; empty: behind a link, where that doesn't matter.
    pub within: Vec<u8>,
    /// The file system's own number; 0: it has none.
    pub fsid: u64,
}

impl Mount {
    /// Whether this is the same part of the same file system, wherever it is mounted.
    pub fn is_same(&self, other: &Self) -> bool {
        // A device may have another name after a restart, and a tmpfs has the same name as every other one.
        let same =
            if self.fsid != 0 && other.fsid != 0 { self.fsid == other.fsid } else { self.source == other.source };
        let within = self.within.is_empty() || other.within.is_empty() || self.within == other.within;
        let both_links = self.within.is_empty() && other.within.is_empty();
        let part = !both_links || self.mounted_part() == other.mounted_part();
        same && within && part && self.file_system == other.file_system
    }

    /// The directory of the source that is mounted, where the source names one: `[/srv]` of `/dev/sda1[/srv]`.
    fn mounted_part(&self) -> &[u8] {
        match self.source.iter().rposition(|byte| *byte == b'[') {
            Some(at) if self.source.ends_with(b"]") => &self.source[at..],
            _ => b"",
        }
    }
}

/// What one vessel still has to get, for summaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The vessel.
    pub vessel: VesselName,
    /// Deliveries that are neither acknowledged nor superseded.
    pub waiting: u64,
    /// How many bytes those are.
    pub waiting_bytes: u64,
    /// How many of them are parked.
    pub parked: u64,
    /// Deliveries acknowledged so far.
    pub acknowledged: u64,
}
