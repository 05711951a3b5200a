//! What happens, told to whoever listens: a terminal, a test, the status.
//!
//! The workflows report here and don't know who listens. A listener must return at once.

use std::sync::Arc;
use std::time::Duration;

use crate::fault::Cause;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{Version, VersionId};

/// Something that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file version is now owed to a vessel.
    Owed {
        /// To this vessel.
        vessel: &'a VesselName,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A vessel is connected.
    Connected {
        /// This vessel.
        vessel: &'a VesselName,
    },
    /// A vessel can't be served for now; told anew after every attempt that failed.
    Away {
        /// This vessel.
        vessel: &'a VesselName,
        /// Why, and what mends it.
        reason: &'a str,
        /// What sort of trouble it is.
        cause: Cause,
        /// How soon it is tried again; `None`: not in this run.
        again_in: Option<Duration>,
    },
    /// An attempt at a delivery begins.
    Started {
        /// To this vessel.
        vessel: &'a VesselName,
        /// Of this version.
        version: &'a Version,
    },
    /// Bytes of a file that the vessel has taken, or was found to hold already.
    Taken {
        /// This vessel.
        vessel: &'a VesselName,
        /// Of this version.
        version: VersionId,
        /// How many.
        bytes: u64,
        /// Whether it held them before this attempt.
        found: bool,
    },
    /// An attempt at a delivery has ended, however it did. One that a lost connection ends is not told.
    Ended {
        /// To this vessel.
        vessel: &'a VesselName,
        /// Of this version.
        version: VersionId,
    },
    /// A delivery was acknowledged.
    Delivered {
        /// By this vessel.
        vessel: &'a VesselName,
        /// The file's directory.
        directory: &'a DirectoryName,
        /// The file.
        path: &'a RelPath,
        /// Its size in bytes.
        bytes: u64,
        /// From the first look at it to the acknowledgement.
        took: Duration,
    },
    /// A delivery failed and is tried again later.
    PutOff {
        /// For this vessel.
        vessel: &'a VesselName,
        /// The file's directory.
        directory: &'a DirectoryName,
        /// The file.
        path: &'a RelPath,
        /// Why, and what mends it.
        reason: &'a str,
        /// What sort of trouble it is.
        cause: Cause,
        /// Whether it is set aside (parked).
        parked: bool,
        /// How soon it is tried again.
        again_in: Duration,
    },
    /// A directory can't be used for now, or something in it.
    DirectoryAway {
        /// This directory.
        directory: &'a DirectoryName,
        /// Why, and what mends it.
        reason: &'a str,
    },
    /// A source was moved to `processed/`.
    Retired {
        /// The file's directory.
        directory: &'a DirectoryName,
        /// The file.
        path: &'a RelPath,
    },
}

/// Listens to what happens.
pub trait Monitor: Send + Sync {
    /// Is told of one thing that happened. Must not block.
    fn notice(&self, event: &Event<'_>);
}

/// Several listeners, told in turn.
pub struct All(pub Vec<Arc<dyn Monitor>>);

impl Monitor for All {
    fn notice(&self, event: &Event<'_>) {
        self.0.iter().for_each(|one| one.notice(event));
    }
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn notice(&self, _: &Event<'_>) {}
}
