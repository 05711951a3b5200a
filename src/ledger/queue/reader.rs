//! The interface between the listing of a queue and a store: the listing asks for pieces of index ranges, and the store
//! returns the deliveries in them.

use super::{LanePlace, QueueFilter, QueueState, Queued};
use crate::ledger::LedgerError;
use crate::names::DirectoryName;
use crate::records::{DeliveryId, VersionId};

type Result<T> = std::result::Result<T, LedgerError>;

/// A range of an index over the open deliveries of a vessel. The description of each variant states the deliveries in
/// the range and their order.
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
    /// Maximum number of deliveries to return. The piece ends after this number, even if it has more deliveries to
    /// examine.
    pub(in crate::ledger) most: usize,
    /// Whether deliveries that the filter rejects are returned too.
    pub(in crate::ledger) with_unwanted: bool,
}

/// The result of examining a [`Piece`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ledger) struct Examined {
    /// The returned deliveries, in the order of the range.
    pub(in crate::ledger) found: Vec<Found>,
    /// The place of the last examined delivery; `None` if the end of the range was reached.
    pub(in crate::ledger) last: Option<LanePlace>,
}

/// A delivery in a [`Piece`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Found {
    pub(in crate::ledger) place: LanePlace,
    pub(in crate::ledger) is_wanted: bool,
}

impl Examined {
    /// Builds the result from the deliveries that a store read for a [`Piece`]. `last` is the place of the `rows`-th
    /// delivery of the range, if the range has that many.
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

    /// Returns the number of the vessel's open deliveries of these directories.
    fn waiting(&mut self, directories: &[DirectoryName]) -> impl Future<Output = Result<u64>> + Send;

    /// Examines a piece of a range.
    fn examine(&mut self, piece: Piece<'_>) -> impl Future<Output = Result<Examined>> + Send;

    /// Returns the deliveries with these numbers, in the order of `deliveries`.
    fn entries(&mut self, deliveries: &[DeliveryId]) -> impl Future<Output = Result<Vec<Queued>>> + Send;
}

/// The conditions of a filter that the deliveries of a range must meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Wanted<'a> {
    /// If set, the delivery's directory must be one of these.
    pub(in crate::ledger) directories: Option<Vec<DirectoryName>>,
    /// If set, the path must contain these bytes.
    pub(in crate::ledger) search: Option<&'a [u8]>,
    /// Whether the delivery must never have failed.
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

    /// Returns whether all deliveries meet the conditions.
    pub(in crate::ledger) fn is_all(&self) -> bool {
        self.directories.is_none() && self.search.is_none() && !self.never_failed
    }
}
