//! The queue of one vessel as people see it: the vessel's open deliveries, in the order in which they are sent.
//!
//! [`page()`] lists the queue for every kind of store. A store provides a [`QueueReader`], which examines pieces of
//! index ranges. The modules below choose the ranges, merge the deliveries that are found, and limit the work for one
//! answer.

mod lane;
mod page;
mod plan;
mod reader;
#[cfg(test)]
mod tests;
mod walk;

pub(super) use page::page;
pub(super) use reader::{Examined, Found, Piece, QueueReader, RangeOf, Wanted};
pub(super) use walk::Effort;

use crate::names::{DirectoryName, RelPath};
use crate::records::{DeliveryId, DeliveryState, VersionId, VersionKind};

/// Selects deliveries of a vessel's queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueFilter {
    /// Only the deliveries of this directory.
    pub directory: Option<DirectoryName>,
    /// Only the deliveries of these directories.
    pub among: Option<Vec<DirectoryName>>,
    /// Only the deliveries in this state.
    pub state: Option<QueueState>,
    /// Only the deliveries of these versions.
    pub versions: Option<Vec<VersionId>>,
    /// Only the deliveries whose path contains this text, as bytes.
    pub search: Option<String>,
}

/// The state of an open delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// The delivery waits for its turn.
    Waiting,
    /// The delivery failed, and waits for the next attempt.
    PutOff,
    /// The delivery is parked with a reason.
    Parked,
}

impl QueueState {
    /// Returns the name of the state in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::PutOff => "put-off",
            Self::Parked => "parked",
        }
    }
}

/// A stage of a vessel's queue. Stages are sent one after another. Within a stage, the lanes take turns: each sends one
/// delivery at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStage {
    /// The lanes.
    pub lanes: Vec<QueueLane>,
    /// Deliveries without a rank belong to this stage only if they are due after this time, in milliseconds since 1970.
    pub due_after: i64,
    /// Deliveries without a rank belong to this stage only if they are due at this time or before.
    pub due_until: i64,
}

/// A lane: queues that are merged into one order. Deliveries with a rank come first, by rank, then the others by due
/// time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueLane {
    /// Whether the lane includes the shared queue.
    pub shared: bool,
    /// The directories whose own queues the lane includes.
    pub queues: Vec<DirectoryName>,
    /// Whether the lane includes deliveries with a rank.
    pub ranked: bool,
}

/// The rank of a delivery in a queue with an order other than oldest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueueRank {
    /// Ordered by a number.
    Number(i64),
    /// Ordered by the path.
    Path(Vec<u8>),
}

/// The place of a delivery in a lane. Deliveries with a rank come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LanePlace {
    /// A delivery with a rank: ordered by rank, then by due time.
    Ranked(QueueRank, QueuePosition),
    /// A delivery without a rank: ordered by due time.
    ByTime(QueuePosition),
}

impl LanePlace {
    /// Returns the due time and the number of the delivery.
    pub fn position(&self) -> QueuePosition {
        match self {
            Self::Ranked(_, position) | Self::ByTime(position) => *position,
        }
    }
}

/// Where a page of a queue begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueCursor {
    /// The number of the stage.
    pub stage: usize,
    /// The number of the lane whose turn it is.
    pub turn: usize,
    /// The place up to which each lane of the stage was listed; `None` if nothing of the lane was listed.
    pub lanes: Vec<Option<LanePlace>>,
}

impl QueueCursor {
    /// Records that a delivery was listed.
    fn pass(&mut self, stage: usize, lane: usize, place: LanePlace) {
        if self.stage != stage {
            *self = Self { stage, ..Self::default() };
        }
        self.reach(lane, place);
        self.turn = lane + 1;
    }

    /// Records up to which place a lane was examined.
    fn reach(&mut self, lane: usize, place: LanePlace) {
        if self.lanes.len() <= lane {
            self.lanes.resize(lane + 1, None);
        }
        self.lanes[lane] = Some(place);
    }
}

/// The due time and the number of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueuePosition {
    /// When the delivery is due, in milliseconds since 1970.
    pub due_at: i64,
    /// The delivery.
    pub delivery: DeliveryId,
}

/// An open delivery in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The delivery's place in the queue.
    pub position: QueuePosition,
    /// The version.
    pub version: VersionId,
    /// The file's directory.
    pub directory: DirectoryName,
    /// The file.
    pub path: RelPath,
    /// The kind of the version.
    pub kind: VersionKind,
    /// The file's size in bytes.
    pub size: u64,
    /// When the file was admitted, in milliseconds since 1970.
    pub admitted_at: i64,
    /// The delivery's progress.
    pub progress: DeliveryState,
    /// Number of failed attempts in a row.
    pub failures: u32,
    /// Reason of the last failure, with its remedy.
    pub reason: Option<String>,
    /// Whether the delivery is parked.
    pub parked: bool,
}

impl Queued {
    /// Returns the state of the delivery, as far as the ledger knows it.
    pub fn state(&self) -> QueueState {
        match (self.parked, self.failures) {
            (true, _) => QueueState::Parked,
            (false, 0) => QueueState::Waiting,
            (false, _) => QueueState::PutOff,
        }
    }
}

/// A part of a vessel's queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePage {
    /// The deliveries that match the filter, in the order of the queue.
    pub entries: Vec<Queued>,
    /// Where the next page begins; `None` at the end of the queue. A page may hold fewer deliveries than requested,
    /// even none, although the queue has more, because the time of an answer is limited.
    pub next: Option<QueueCursor>,
}
