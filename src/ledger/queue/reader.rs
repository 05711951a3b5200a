//! The interface between the listing of a queue and a store: pieces of index ranges to examine, and the deliveries
//! found in them.

use super::{LanePlace, QueueFilter, QueueState, Queued};
use crate::ledger::LedgerError;
use crate::names::DirectoryName;
use crate::records::{DeliveryId, VersionId};

type Result<T> = std::result::Result<T, LedgerError>;

/// A range of an index over the open deliveries of a vessel. Each variant names the deliveries in the range, and their
/// order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum RangeOf {
    /// Deliveries in the shared queue, by due time.
    Shared { large: bool },
    /// Deliveries without a rank in a directory's own queue, by due time.
    Own { queue: DirectoryName, large: bool },
    /// Deliveries with a rank in a directory's own queue, by rank.
    Ranked { queue: DirectoryName, large: bool },
    /// Deliveries that failed, by the time of the next attempt.
    Failed { parked: bool },
    /// Deliveries of these versions, by due time.
    Versions(Vec<VersionId>),
}

/// The next deliveries of a range that are to be examined.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct Piece<'a> {
    pub(in crate::ledger) range: &'a RangeOf,
    /// Only deliveries after this place are examined.
    pub(in crate::ledger) after: &'a LanePlace,
    /// In the ranges `Shared` and `Own`, only deliveries that are due at this time (milliseconds since 1970) or before
    /// are examined. The other ranges ignore it.
    pub(in crate::ledger) until: i64,
    /// The number of deliveries to examine.
    pub(in crate::ledger) rows: usize,
    /// Maximum number of deliveries to return. The examination ends there.
    pub(in crate::ledger) most: usize,
    /// Whether deliveries that the filter rejects are returned too.
    pub(in crate::ledger) with_unwanted: bool,
}

/// What was found in a [`Piece`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ledger) struct Examined {
    /// In the order of the range.
    pub(in crate::ledger) found: Vec<Found>,
    /// The place of the last delivery that was examined; `None` at the end of the range.
    pub(in crate::ledger) last: Option<LanePlace>,
}

/// A delivery in a [`Piece`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Found {
    pub(in crate::ledger) place: LanePlace,
    pub(in crate::ledger) is_wanted: bool,
}

impl Examined {
    /// Builds the result from what a store read for a [`Piece`]: the deliveries to return, and the place of the
    /// `rows`-th delivery of the range, if the range has that many.
    pub(in crate::ledger) fn of(piece: Piece<'_>, mut found: Vec<Found>, mut last: Option<LanePlace>) -> Self {
        found.sort_unstable_by(|a, b| a.place.cmp(&b.place));
        if found.len() >= piece.most {
            last = found.last().map(|found| found.place.clone());
        }
        Self { found, last }
    }
}

/// Reads a vessel's queue. All answers come from one snapshot of the ledger.
pub(in crate::ledger) trait QueueReader: Send {
    /// Returns the directories that have their own queue, sorted by name, and for each whether all its deliveries are
    /// already in that queue.
    fn queues(&mut self) -> impl Future<Output = Result<Vec<(DirectoryName, bool)>>> + Send;

    /// Returns the number of open deliveries of some directories.
    fn waiting(&mut self, directories: &[DirectoryName]) -> impl Future<Output = Result<u64>> + Send;

    /// Examines a piece of a range.
    fn examine(&mut self, piece: Piece<'_>) -> impl Future<Output = Result<Examined>> + Send;

    /// Returns deliveries, in the order of their ids in `deliveries`.
    fn entries(&mut self, deliveries: &[DeliveryId]) -> impl Future<Output = Result<Vec<Queued>>> + Send;
}

/// The deliveries that a filter wants of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Wanted<'a> {
    /// Those of these directories.
    pub(in crate::ledger) directories: Option<Vec<DirectoryName>>,
    /// Those whose path contains these bytes.
    pub(in crate::ledger) search: Option<&'a [u8]>,
    /// Those that never failed.
    pub(in crate::ledger) never_failed: bool,
}

impl<'a> Wanted<'a> {
    pub(in crate::ledger) fn of(filter: &'a QueueFilter) -> Self {
        let directories = match (&filter.directory, &filter.among) {
            (Some(one), Some(among)) => Some(among.iter().filter(|name| *name == one).cloned().collect()),
            (Some(one), None) => Some(vec![one.clone()]),
            (None, among) => among.clone(),
        };
        let search = filter.search.as_ref().map(String::as_bytes);
        Self { directories, search, never_failed: filter.state == Some(QueueState::Waiting) }
    }

    /// Returns whether it wants all deliveries.
    pub(in crate::ledger) fn is_all(&self) -> bool {
        self.directories.is_none() && self.search.is_none() && !self.never_failed
    }
}
