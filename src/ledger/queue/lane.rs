//! Merges the index ranges of a lane in the order of the deliveries' places.
//!
//! Some ranges may have been examined further than others. So the first delivery that was found in any range is the
//! lane's next delivery only if all other ranges have been examined up to its place.

use std::collections::VecDeque;

use super::LanePlace;
use super::plan::Stage;
use super::reader::{Examined, Found, RangeOf};

/// A lane of the current stage.
#[derive(Debug)]
pub(super) struct Lane {
    ranges: Vec<Range>,
    begin: Option<LanePlace>,
}

/// An index range, and how far it was examined.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) of: RangeOf,
    /// The last place that was examined.
    pub(super) after: LanePlace,
    /// The deliveries that were found and not yet returned by [`Lane::next`].
    found: VecDeque<Found>,
    is_at_end: bool,
}

/// The next delivery of a lane, if it is known.
#[derive(Debug)]
pub(super) enum Next {
    /// This delivery.
    Found(Found),
    /// The next delivery is unknown until the range with this index is examined further.
    Unknown(usize),
    /// There is no next delivery: the lane is at its end.
    End,
}

impl Lane {
    /// Creates a lane that begins after the place `after`, or at its start.
    pub(super) fn new(stage: &Stage, ranges: &[RangeOf], after: Option<&LanePlace>) -> Self {
        let range = |of: &RangeOf| {
            let after = stage.begin(of, after)?;
            Some(Range { of: of.clone(), after, found: VecDeque::new(), is_at_end: false })
        };
        let mut lane = Self { ranges: ranges.iter().filter_map(range).collect(), begin: None };
        lane.begin = lane.limit().map(|at| lane.ranges[at].after.clone());
        lane
    }

    /// Removes and returns the next delivery, if it is known.
    pub(super) fn next(&mut self) -> Next {
        match (self.first(), self.limit()) {
            (Some(at), _) => self.ranges[at].found.pop_front().map_or(Next::End, Next::Found),
            (None, Some(limit)) => Next::Unknown(limit),
            (None, None) => Next::End,
        }
    }

    /// Returns the index of the range that has the next delivery, if the next delivery is known.
    fn first(&self) -> Option<usize> {
        let place = |at: usize| Some(&self.ranges[at].found.front()?.place);
        let (place, first) = (0..self.ranges.len()).filter_map(|at| Some((place(at)?, at))).min()?;
        self.limit().is_none_or(|limit| *place <= self.ranges[limit].after).then_some(first)
    }

    /// Of the ranges that are not at their end and have no found delivery, returns the index of the range whose last
    /// examined place comes first.
    fn limit(&self) -> Option<usize> {
        let open = |at: &usize| self.ranges[*at].found.is_empty() && !self.ranges[*at].is_at_end;
        (0..self.ranges.len()).filter(open).min_by(|a, b| self.ranges[*a].after.cmp(&self.ranges[*b].after))
    }

    /// Returns the place up to which the lane was examined without finding the next delivery; `None` if the next
    /// delivery is known, or if nothing was examined yet.
    pub(super) fn examined(&self) -> Option<&LanePlace> {
        let limit = self.limit().filter(|_| self.first().is_none()).map(|at| &self.ranges[at].after);
        limit.filter(|limit| Some(*limit) != self.begin.as_ref())
    }

    pub(super) fn range(&self, at: usize) -> &Range {
        &self.ranges[at]
    }

    /// Adds the deliveries that were found in a range.
    pub(super) fn add(&mut self, at: usize, examined: Examined) {
        let range = &mut self.ranges[at];
        range.is_at_end = examined.last.is_none();
        if let Some(last) = examined.last {
            range.after = last;
        }
        range.found.extend(examined.found);
    }

    /// Returns the number of ranges that are not at their end.
    pub(super) fn open_ranges(&self) -> usize {
        self.ranges.iter().filter(|range| !range.is_at_end).count()
    }

    /// Returns whether the lane has or may have further deliveries.
    pub(super) fn is_open(&self) -> bool {
        self.ranges.iter().any(|range| !range.is_at_end || !range.found.is_empty())
    }
}
