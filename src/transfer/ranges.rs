//! The ranges of a file by state: joined, complete in TempDir, uploading, or missing.
//!
//! This module is pure arithmetic. A range directly after the joined bytes is appended to the assembly; any other range
//! becomes a part, named by its start. After a lost connection, the bytes that a part holds count as a complete range,
//! and only the remaining bytes are missing.
//!
//! Each uploading part has a reserve, the bytes into which the part grows step by step. An idle uploader takes half of
//! the largest reserve.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Ranges that do not overlap: start and end of each range.
#[derive(Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn add(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.0.insert(range.start, range.end);
        }
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }
}

/// The ranges of one file.
pub(super) struct RangeMap {
    size: u64,
    joined: u64,
    /// Whether the range after the joined bytes is being appended.
    appending: bool,
    complete: Ranges,
    /// Starts of parts whose files may hold more bytes than the complete range of the part.
    ragged: BTreeSet<u64>,
    missing: Ranges,
    /// Reserves into which uploading parts will grow; each begins at the current end of its part.
    reserved: Ranges,
    /// Number of pieces that are being uploaded.
    taken: usize,
    /// Maximum length of a piece, and maximum distance of its start from the end of the joined bytes, both in bytes.
    longest: u64,
    ahead: u64,
}

/// A range that is being uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: Range<u64>,
    /// Whether the range starts directly after the joined bytes. Then it is appended to the assembly and may grow up to
    /// the next piece.
    pub(crate) next: bool,
}

/// A part that can be joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) range: Range<u64>,
    /// Whether the part's file may hold more bytes than `range`.
    pub(super) ragged: bool,
}

/// Minimum length of a range in bytes, and the step by which a range grows. Each range costs round trips and a file.
const SHORTEST: u64 = 64 << 10;
/// Maximum total length in bytes of the ranges that all uploaders take at a time. The source is hashed in order, so
/// bytes that are sent ahead must be cached.
const SPREAD: u64 = 32 << 20;

impl RangeMap {
    /// Creates the map of a file of `size` bytes, of which the first `joined` bytes are joined and the ranges `held`
    /// are in parts. If two parts overlap, the overlapping bytes are taken from the later part. Also returns the starts
    /// of useless parts: empty, too long, already joined, or within another part.
    pub(crate) fn new(size: u64, longest: u64, ahead: u64, joined: u64, mut held: Vec<Range<u64>>) -> (Self, Vec<u64>) {
        held.sort_by_key(|range| (range.start, range.end));
        let (mut complete, mut missing, mut useless) = (Ranges::default(), Ranges::default(), Vec::new());
        let mut ragged = BTreeSet::new();
        let mut at = joined;
        for range in held {
            let begins_within = range.start < at;
            let last = complete.0.last_entry().filter(|_| begins_within && at < range.end && range.end <= size);
            if let Some(mut last) = last {
                ragged.insert(*last.key());
                *last.get_mut() = range.start;
            } else if begins_within || range.end > size || range.is_empty() {
                useless.push(range.start);
                continue;
            }
            missing.add(at..range.start);
            at = range.end;
            complete.add(range);
        }
        missing.add(at..size);
        (
            Self {
                size,
                joined,
                appending: false,
                complete,
                ragged,
                missing,
                reserved: Ranges::default(),
                taken: 0,
                longest,
                ahead,
            },
            useless,
        )
    }

    /// Takes the beginning of the first missing range and reserves the bytes after it. The reserve shrinks towards the
    /// end of the file, so that all `takers` finish at about the same time, but not below `worth` bytes if as many are
    /// missing. If no range within `ahead` bytes of the joined bytes is missing, takes half of another piece's reserve.
    /// Returns `None` if nothing can be taken.
    pub(crate) fn take(&mut self, takers: usize, worth: u64) -> Option<Piece> {
        let worth = worth.clamp(self.shortest(), self.longest);
        let share = self.share(takers).max(worth);
        let far = self.joined.saturating_add(self.ahead);
        let Some((start, end)) = self.missing.0.first_key_value().map(|(start, end)| (*start, *end)) else {
            return self.take_over(far, worth);
        };
        if start != self.joined && start >= far {
            return self.take_over(far, worth);
        }
        self.missing.0.pop_first();
        self.taken += 1;
        let first = end.min(start.saturating_add(self.shortest()));
        let next = start == self.joined && !self.appending;
        if next {
            self.appending = true;
            self.missing.add(first..end);
        } else {
            let reserve = end.min(start.saturating_add(share)).max(first);
            self.reserved.add(first..reserve);
            self.missing.add(reserve..end);
        }
        Some(Piece { range: start..first, next })
    }

    /// Takes the second half of the largest reserve, if that half has at least `worth` bytes and begins before `far`.
    fn take_over(&mut self, far: u64, worth: u64) -> Option<Piece> {
        let (start, end) = self.reserved.0.iter().max_by_key(|(start, end)| *end - *start).map(|(s, e)| (*s, *e))?;
        let middle = start + (end - start) / 2;
        if end - middle < worth || middle >= far {
            return None;
        }
        self.taken += 1;
        self.reserved.add(start..middle);
        let first = middle + self.shortest();
        self.reserved.add(first..end);
        Some(Piece { range: middle..first, next: false })
    }

    fn share(&self, takers: usize) -> u64 {
        let takers = takers.max(1) as u64;
        let share = (self.missing.bytes() / (2 * takers)).min(SPREAD / takers);
        share.clamp(self.shortest(), self.longest)
    }

    fn shortest(&self) -> u64 {
        SHORTEST.min(self.longest)
    }

    /// Extends a piece: an appended piece into the missing range after it, a part into its reserve. Returns `false` if
    /// no bytes were left.
    pub(super) fn lengthen(&mut self, piece: &mut Piece) -> bool {
        let step = self.shortest();
        let rest = if piece.next { &mut self.missing } else { &mut self.reserved };
        let Some(end) = rest.0.remove(&piece.range.end) else { return false };
        let longer = end.min(piece.range.end.saturating_add(step));
        rest.add(longer..end);
        piece.range.end = longer;
        true
    }

    /// Prevents `take` from returning parts ahead of the joined bytes. Returns whether such parts were allowed before.
    pub(super) fn stay_close(&mut self) -> bool {
        std::mem::take(&mut self.ahead) > 0
    }

    /// Records that the vessel has a piece up to `end`; the rest of the piece is missing again.
    pub(crate) fn give(&mut self, piece: Piece, end: u64) {
        self.taken -= 1;
        let mut lacks = end..piece.range.end;
        if piece.next {
            self.appending = false;
            self.joined = end;
        } else {
            self.complete.add(piece.range.start..end);
            if end < piece.range.end {
                self.ragged.insert(piece.range.start);
            }
            lacks.end = self.reserved.0.remove(&piece.range.end).unwrap_or(lacks.end);
        }
        self.missing.add(lacks);
    }

    /// Returns the parts that can be joined now, in order.
    pub(super) fn joinable(&self) -> Vec<Part> {
        let mut at = self.joined;
        let next = self.complete.0.iter().map_while(|(start, end)| {
            (*start == at && !self.appending).then(|| {
                at = *end;
                Part { range: *start..*end, ragged: self.ragged.contains(start) }
            })
        });
        next.collect()
    }

    /// Records that everything before `end` is joined.
    pub(crate) fn join(&mut self, end: u64) {
        self.joined = end;
        self.complete.0 = self.complete.0.split_off(&end);
        self.ragged = self.ragged.split_off(&end);
    }

    /// Returns how many bytes from the start are joined.
    pub(crate) fn joined(&self) -> u64 {
        self.joined
    }

    /// Returns the number of missing bytes, without those that are being uploaded or are reserved.
    pub(super) fn missing_bytes(&self) -> u64 {
        self.missing.bytes()
    }

    /// Returns whether no range is missing or being uploaded.
    pub(super) fn is_uploaded(&self) -> bool {
        self.taken == 0 && self.missing.0.is_empty()
    }

    /// Returns whether the whole file is joined.
    pub(super) fn is_joined(&self) -> bool {
        self.joined == self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken_ranges(ranges: &mut RangeMap, takers: usize) -> Vec<Range<u64>> {
        std::iter::from_fn(|| taken_whole(ranges, takers)).map(|piece| piece.range).collect()
    }

    /// Takes a piece and, if it is a part, its whole reserve.
    fn taken_whole(ranges: &mut RangeMap, takers: usize) -> Option<Piece> {
        let mut piece = ranges.take(takers, 0)?;
        while !piece.next && ranges.lengthen(&mut piece) {}
        Some(piece)
    }

    #[test]
    fn what_parts_hold_is_not_missing() {
        let (mut ranges, useless) = RangeMap::new(100, 50, 100, 10, vec![60..70, 20..30, 5..10, 65..69, 90..101]);
        assert_eq!(useless, [5, 65, 90]);
        assert_eq!(taken_ranges(&mut ranges, 1), [10..20, 30..60, 70..100]);
    }

    #[test]
    fn a_part_that_grew_into_another_counts_up_to_there() {
        let (mut ranges, useless) = RangeMap::new(100, 100, 100, 10, vec![0..20, 10..40, 30..60, 55..70]);
        assert_eq!(useless, [0]);
        let part = |range, ragged| Part { range, ragged };
        assert_eq!(ranges.joinable(), [part(10..30, true), part(30..55, true), part(55..70, false)]);
        assert_eq!(ranges.take(1, 0).unwrap().range, 70..100);
    }

    #[test]
    fn a_part_of_which_some_was_lost_may_hold_more_than_is_counted() {
        let (mut ranges, _) = RangeMap::new(100, 50, 100, 0, Vec::new());
        let (first, second) = (ranges.take(1, 0).unwrap(), ranges.take(1, 0).unwrap());
        let end = second.range.end;
        ranges.give(second.clone(), end - 1);
        ranges.give(first, second.range.start);
        assert_eq!(ranges.joinable(), [Part { range: second.range.start..end - 1, ragged: true }]);
    }

    #[test]
    fn where_there_is_no_room_for_parts_only_what_comes_next_is_taken() {
        let (mut ranges, _) = RangeMap::new(100, 10, 100, 0, Vec::new());
        let (first, second) = (ranges.take(1, 0).unwrap(), ranges.take(1, 0).unwrap());
        assert!(ranges.stay_close() && !ranges.stay_close());
        assert_eq!(ranges.take(1, 0), None);
        ranges.give(second, 15);
        ranges.give(first, 10);
        assert_eq!(ranges.take(1, 0), None, "what is complete is joined first");
        ranges.join(15);
        assert_eq!(ranges.take(1, 0), Some(Piece { range: 15..20, next: true }));
    }

    #[test]
    fn nothing_is_taken_far_ahead_of_what_is_joined() {
        let (mut ranges, _) = RangeMap::new(100, 10, 20, 0, Vec::new());
        let first = ranges.take(1, 0).unwrap();
        assert_eq!(taken_ranges(&mut ranges, 1).len(), 1);
        ranges.give(first, 10);
        assert_eq!(ranges.take(1, 0), Some(Piece { range: 20..30, next: false }));
    }

    #[test]
    fn many_takers_get_a_share_each() {
        let (mut ranges, _) = RangeMap::new(16 << 20, 10 << 20, u64::MAX, 0, Vec::new());
        assert_eq!(ranges.take(8, 0).unwrap().range, 0..SHORTEST);
        let second = taken_whole(&mut ranges, 8).unwrap().range;
        assert_eq!(second.end - second.start, (16 << 20).min(SPREAD / 8).min(((16 << 20) - SHORTEST) / 16));
    }

    #[test]
    fn what_comes_next_grows_until_somebody_else_takes_what_follows() {
        let (mut ranges, _) = RangeMap::new(100, 10, 1000, 0, Vec::new());
        let mut piece = ranges.take(1, 0).unwrap();
        assert!(piece.next && ranges.lengthen(&mut piece));
        assert_eq!(piece.range, 0..20);
        let other = ranges.take(1, 0).unwrap();
        assert!(!other.next && !ranges.lengthen(&mut piece));
        ranges.give(other, 30);
        assert!(ranges.joinable().is_empty(), "the file is being appended to");
        ranges.give(piece, 20);
        assert_eq!((ranges.joined(), ranges.joinable().len()), (20, 1));
    }

    #[test]
    fn who_has_nothing_left_takes_half_of_what_another_has_reserved() {
        let size = 20 * SHORTEST;
        let (mut ranges, _) = RangeMap::new(size, size, u64::MAX, 0, Vec::new());
        let first = ranges.take(1, 0).unwrap();
        let mut slow = ranges.take(1, 0).unwrap();
        assert_eq!(slow.range, SHORTEST..2 * SHORTEST);
        let mut rest = taken_whole(&mut ranges, 1).unwrap();
        while rest.range.end < size {
            rest = taken_whole(&mut ranges, 1).unwrap();
        }
        // All ranges are taken, so the slow uploader's reserve is halved until the halves are too short.
        let reserved = ranges.reserved.bytes();
        let over = taken_whole(&mut ranges, 1).unwrap();
        assert!(over.range.end - over.range.start >= reserved / 2, "{over:?} of {reserved}");
        while ranges.take(1, 0).is_some() {}
        while ranges.lengthen(&mut slow) {}
        assert!(slow.range.end < over.range.start, "{slow:?} {over:?}");
        ranges.give(first, SHORTEST);
        ranges.give(slow.clone(), slow.range.start + 1);
        assert_eq!(ranges.missing_bytes(), slow.range.end - slow.range.start - 1);
    }

    proptest! {
        #[test]
        fn every_byte_is_joined_once(
            size in 1u64..100_000,
            longest in 1u64..20_000,
            takers in 1usize..5,
            held in proptest::collection::vec((0u64..100_000, 0u64..5_000), 0..10),
            fates in proptest::collection::vec(0u64..=100, 0..2000),
        ) {
            let held = held.into_iter().map(|(start, length)| start..start + length).collect();
            let (mut ranges, _) = RangeMap::new(size, longest, longest * 3, 0, held);
            let mut fates = fates.into_iter();
            let (mut at, mut working) = (0, Vec::new());
            while !ranges.is_joined() {
                let fate = fates.next().unwrap_or(100);
                if working.len() < takers && let Some(piece) = ranges.take(takers, 0) {
                    prop_assert!(!piece.next || piece.range.start == at);
                    working.push(piece);
                    if fate % 2 == 0 {
                        continue;
                    }
                }
                if !working.is_empty() {
                    let mut piece = working.swap_remove(fate as usize % working.len());
                    while fates.next().unwrap_or(1) % 4 > 0 && ranges.lengthen(&mut piece) {}
                    prop_assert!(piece.next || piece.range.end - piece.range.start <= longest);
                    // The fates run out at some point, so later pieces are always uploaded completely.
                    let uploaded = (piece.range.end - piece.range.start) * fates.next().unwrap_or(100) / 100;
                    let end = piece.range.start + uploaded;
                    if piece.next {
                        at = end;
                    }
                    ranges.give(piece, end);
                }
                prop_assert_eq!(ranges.joined(), at);
                for part in ranges.joinable() {
                    prop_assert_eq!(part.range.start, at);
                    at = part.range.end;
                }
                ranges.join(at);
            }
            prop_assert_eq!(at, size);
            prop_assert!(ranges.is_uploaded() && ranges.missing_bytes() == 0);
        }
    }
}
