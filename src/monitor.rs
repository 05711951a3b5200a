//! Passes events of the program to listeners: a terminal, a test, the status.
//!
//! The workflows report events here and don't know the listeners. A listener must return at once.

use std::sync::Arc;
use std::time::Duration;

use crate::fault::Cause;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{Version, VersionId, VersionKind};

/// An event of the program.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A new file version was recorded that must be delivered to a vessel.
    Owed {
        /// The vessel.
        vessel: &'a VesselName,
        /// Size in bytes.
        bytes: u64,
    },
    /// A vessel is connected.
    Connected {
        /// The vessel.
        vessel: &'a VesselName,
        /// The way in use, and why it was chosen; `None` if the vessel has only one.
        way: Option<(&'a str, &'a str)>,
    },
    /// A vessel can't be served for now. Reported after every failed attempt.
    Away {
        /// The vessel.
        vessel: &'a VesselName,
        /// Reason and remedy.
        reason: &'a str,
        /// Category of the fault.
        cause: Cause,
        /// Time until the next attempt; `None` if no attempt follows in this run.
        again_in: Option<Duration>,
    },
    /// The window of a vessel is closed, so the program keeps no connection to the vessel.
    Closed {
        /// The vessel.
        vessel: &'a VesselName,
    },
    /// An attempt at a delivery begins.
    Started {
        /// The vessel.
        vessel: &'a VesselName,
        /// The version.
        version: &'a Version,
    },
    /// The vessel has received bytes of a file, or already had them.
    Taken {
        /// The vessel.
        vessel: &'a VesselName,
        /// The version.
        version: VersionId,
        /// Number of bytes.
        bytes: u64,
        /// Whether the vessel had these bytes before this attempt.
        found: bool,
    },
    /// Bytes of a file were moved or copied on the vessel instead of being sent.
    Saved {
        /// The vessel.
        vessel: &'a VesselName,
        /// Number of bytes.
        bytes: u64,
    },
    /// An attempt at a delivery has ended, whether it succeeded or failed. Not reported if the connection was lost
    /// during the attempt.
    Ended {
        /// The vessel.
        vessel: &'a VesselName,
        /// The version.
        version: VersionId,
    },
    /// A delivery was acknowledged.
    Delivered {
        /// The vessel.
        vessel: &'a VesselName,
        /// The file's directory.
        directory: &'a DirectoryName,
        /// The file.
        path: &'a RelPath,
        /// The kind of the version; `None` for a deletion that was not carried out, because the vessel has another file
        /// at this path.
        kind: Option<VersionKind>,
        /// Size in bytes.
        bytes: u64,
        /// Time from the start of the attempt to the acknowledgement.
        took: Duration,
    },
    /// A delivery failed and will be retried later.
    PutOff {
        /// The vessel.
        vessel: &'a VesselName,
        /// The file's directory.
        directory: &'a DirectoryName,
        /// The file.
        path: &'a RelPath,
        /// Reason and remedy.
        reason: &'a str,
        /// Category of the fault.
        cause: Cause,
        /// Whether the delivery is parked.
        parked: bool,
        /// Time until the next attempt.
        again_in: Duration,
    },
    /// A directory, or a file in it, can't be used for now.
    DirectoryAway {
        /// The directory.
        directory: &'a DirectoryName,
        /// Reason and remedy.
        reason: &'a str,
    },
    /// A delivered source was moved to `processed/` or deleted.
    Retired {
        /// The file's directory.
        directory: &'a DirectoryName,
        /// The file.
        path: &'a RelPath,
    },
}

/// A listener for events.
pub trait Monitor: Send + Sync {
    /// Receives an event. Must not block.
    fn notice(&self, event: &Event<'_>);
}

/// Several listeners, called in order.
pub struct All(pub Vec<Arc<dyn Monitor>>);

impl Monitor for All {
    fn notice(&self, event: &Event<'_>) {
        self.0.iter().for_each(|one| one.notice(event));
    }
}

/// A listener that ignores all events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn notice(&self, _: &Event<'_>) {}
}
