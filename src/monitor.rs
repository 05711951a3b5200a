//! What happens, told to whoever listens: a terminal, a test, later metrics.
//!
//! The workflows report here and don't know who listens. A listener must return at once.

use std::time::Duration;

use crate::names::{DirectoryName, RelPath, VesselName};

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
    /// A vessel can't be served for now.
    Away {
        /// This vessel.
        vessel: &'a VesselName,
        /// Why, and what mends it.
        reason: &'a str,
    },
    /// Bytes of a file that the vessel has taken, or was found to hold already.
    Taken {
        /// This vessel.
        vessel: &'a VesselName,
        /// How many.
        bytes: u64,
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
    /// A delivery was parked.
    Parked {
        /// For this vessel.
        vessel: &'a VesselName,
        /// The file's directory.
        directory: &'a DirectoryName,
        /// The file.
        path: &'a RelPath,
        /// Why, and what mends it.
        reason: &'a str,
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

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn notice(&self, _: &Event<'_>) {}
}
