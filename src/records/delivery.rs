//! Deliveries of versions to vessels, and records of the versions and temporary files that vessels have already.

use super::host::PlaceNumber;
use super::version::{Version, VersionId};
use crate::names::{DirectoryName, RelPath, VesselName};

/// The ledger's number of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub i64);

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
    /// All states: first the steps of a successful delivery, in order, then the states of a delivery that ended without
    /// success.
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
    /// The earliest time of the next attempt, in milliseconds since 1970.
    pub due_at: i64,
    /// Number of the remote location that the version is delivered to.
    pub place: PlaceNumber,
    /// Size and time that the vessel reported after an earlier delivery of this version, if they differed from the
    /// source's.
    pub seen: Option<Seen>,
    /// Random part of the assembly's name, which nobody on the vessel can guess; `None` for a delivery that was
    /// recorded before tokens were introduced.
    pub token: Option<u64>,
    /// The entry's path before it was moved; `None` if the shore knows of no move.
    pub origin: Option<Origin>,
}

/// The path that an entry had before it was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The path.
    pub path: RelPath,
    /// Whether the move left the path empty, so that the vessel's entry may be renamed. If another version took the
    /// path, the entry is copied.
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

/// The name that an unfinished delivery's assembly had while another shore delivered to the vessel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerAssembly {
    /// The number of this record; later records have higher numbers.
    pub number: i64,
    /// The delivery.
    pub delivery: DeliveryId,
    /// Random part of the former name.
    pub former: Option<u64>,
    /// Random part of the current name; `None` if the delivery was superseded, so that the file is no longer needed.
    pub current: Option<u64>,
    /// The version's directory.
    pub directory: DirectoryName,
    /// The version's path in that directory.
    pub path: RelPath,
    /// The version's size in bytes.
    pub size: u64,
}

/// Size and time of a delivered file, as reported by its vessel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Size in bytes.
    pub size: u64,
    /// Modification time, whole seconds since 1970, as far as the vessel's protocol can express it.
    pub mtime: i64,
}

/// How the vessel's copy was verified before the delivery was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// A program on the vessel, or the vessel's SFTP server, hashed the file.
    ByVessel,
    /// The file was read back over the connection and hashed on the shore.
    ByReadBack,
    /// The entry is a directory, a link or a deletion, so there is no content to hash. The vessel reported the type of
    /// the entry at the path, or that the path has none.
    ByLook,
    /// Nothing was deleted, because the file on the vessel is not the delivered one.
    Kept,
    /// The vessel doesn't hash the file, and it may not be read back (the vessel refuses, or `Verify = size`), so only
    /// the file's size was compared.
    BySize,
    /// The vessel neither hashes the file nor allows reading it or its status, so nothing was verified.
    Not,
    /// The vessel's file was renamed. The file was verified when it was delivered, and has kept its size and time since
    /// then.
    Moved,
    /// The file was verified before it was renamed; the reply to the rename was lost, and another program on the vessel
    /// has removed the file since.
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

/// Outstanding deliveries of one vessel, for summaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The vessel.
    pub vessel: VesselName,
    /// Number of deliveries that are neither acknowledged, superseded nor expired.
    pub waiting: u64,
    /// Total size in bytes of the waiting deliveries.
    pub waiting_bytes: u64,
    /// Number of waiting deliveries that are parked.
    pub parked: u64,
    /// Number of deliveries acknowledged so far.
    pub acknowledged: u64,
}
