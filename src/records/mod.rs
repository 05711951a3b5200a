//! Records that the ledger stores and the workflows exchange: versions and deliveries.

mod delivery;
mod host;
mod link;
mod version;

pub use delivery::{
    Backlog, Delivery, DeliveryId, DeliveryState, EventKind, FormerAssembly, HeldVersion, Origin, Remains, Seen,
    Verified,
};
pub use host::{Host, Mount, PlaceNumber};
pub use link::{DeliveryCost, LinkBytes, PathRate, UtcDay, WayOf};
pub use version::{Entry, FileStamp, NewVersion, Traits, Version, VersionId, VersionKind};
