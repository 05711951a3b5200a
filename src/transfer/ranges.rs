//! The ranges of a file by state: joined, complete in TempDir, uploading, or missing.
//!
//! This module is pure arithmetic. A range directly after the joined bytes is appended to the assembly; any other range
//! becomes a part, named by its start. After a lost connection, the bytes that a part holds count as a complete range,
//! and only the remaining bytes are missing.
//!
//! Each uploading part has a reserve, the bytes into which the part grows step by step. An idle uploader takes half of
//! the largest reserve.
//!
//! A part may hold its range as a compressed stream. Such a part can't be truncated, so it counts whole or not at all;
//! an unfinished one is continued, because the same range gives the same stream.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::names::Stream;

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

/// A part that the vessel holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldPart {
    pub(super) range: Range<u64>,
    /// The compressed stream that holds the range, and the number of its bytes that the vessel has.
    pub(super) stream: Option<(Stream, u64)>,
}

impl HeldPart {
    /// Returns a part that holds the bytes of the range themselves.
    pub(super) fn plain(range: Range<u64>) -> Self {
        Self { range, stream: None }
    }

    /// Returns a part that holds `bytes` bytes of a compressed stream.
    pub(super) fn compressed(stream: Stream, bytes: u64) -> Self {
        Self { range: stream.range(), stream: Some((stream, bytes)) }
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
    /// The streams of the complete parts that are compressed, by the starts of their ranges.
    streams: BTreeMap<u64, Stream>,
    /// The unfinished streams, by the starts of their ranges, and the number of their bytes that the vessel has.
    unfinished: BTreeMap<u64, (Stream, u64)>,
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
    /// The unfinished compressed stream of this range, and the number of its bytes that the vessel has.
    pub(super) unfinished: Option<(Stream, u64)>,
}

/// A part that can be joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) range: Range<u64>,
    /// Whether the part's file may hold more bytes than `range`.
    pub(super) ragged: bool,
    /// The compressed stream that the part holds.
    pub(super) stream: Option<Stream>,
}

/// Minimum length of a range in bytes, and the step by which a range grows. Each range costs round trips and a file.
const SHORTEST: u64 = 64 << 10;
/// Maximum total length in bytes of the ranges that all uploaders take at a time. The source is hashed in order, so
/// bytes that are sent ahead must be cached.
const SPREAD: u64 = 32 << 20;

impl RangeMap {
    /// Creates the map of a file of `size` bytes, of which the first `joined` bytes are joined and others are in the
    /// parts `held`. If two parts overlap, the overlapping bytes are taken from the later part, unless one of the two is
    /// compressed. Also returns the useless parts: empty, too long, already joined, or within another part.
    pub(crate) fn new(
        size: u64,
        longest: u64,
        ahead: u64,
        joined: u64,
        mut held: Vec<HeldPart>,
    ) -> (Self, Vec<HeldPart>) {
        held.sort_by_key(|part| (part.range.start, part.range.end));
        let mut map = Self {
            size,
            joined,
            appending: false,
            complete: Ranges::default(),
            ragged: BTreeSet::new(),
            streams: BTreeMap::new(),
            unfinished: BTreeMap::new(),
            missing: Ranges::default(),
            reserved: Ranges::default(),
            taken: 0,
            longest,
            ahead,
        };
        let mut at = joined;
        let useless = held.into_iter().filter_map(|part| map.hold(&mut at, part)).collect();
        map.missing.add(at..size);
        (map, useless)
    }

    /// Adds a part that the vessel holds. The bytes before `at` are accounted for. Returns the part if it is useless.
    fn hold(&mut self, at: &mut u64, part: HeldPart) -> Option<HeldPart> {
        let HeldPart { range, stream } = &part;
        let is_sound = !range.is_empty() && range.end <= self.size && stream.is_none_or(|(s, n)| 0 < n && n <= s.bytes);
        if !is_sound || range.start < *at && !self.gives_way(*at, &part) {
            return Some(part);
        }
        self.missing.add(*at..range.start);
        *at = range.end;
        match stream {
            Some((stream, bytes)) if *bytes < stream.bytes => {
                self.unfinished.insert(range.start, (*stream, *bytes));
            }
            stream => {
                self.streams.extend(stream.map(|(stream, _)| (range.start, stream)));
                self.complete.add(range.clone());
            }
        }
        None
    }

    /// Shortens the part before `part`, which begins within it, so that it ends where `part` begins. Returns `false` if
    /// that is impossible.
    fn gives_way(&mut self, at: u64, part: &HeldPart) -> bool {
        let Some(mut last) = self.complete.0.last_entry() else { return false };
        let is_last = *last.get() == at && *last.key() < part.range.start && !self.streams.contains_key(last.key());
        if is_last && at < part.range.end {
            self.ragged.insert(*last.key());
            *last.get_mut() = part.range.start;
            return true;
        }
        false
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
        Some(Piece { range: start..first, next, unfinished: None })
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
        Some(Piece { range: middle..first, next: false, unfinished: None })
    }

    /// Takes a range of at most `most` bytes as a part that does not grow, so that it can be compressed: an unfinished
    /// one first. Towards the end of the file, the ranges are shorter, so that all `takers` finish at about the same
    /// time. Returns `None` if nothing can be taken.
    pub(super) fn take_whole(&mut self, takers: usize, (least, most): (u64, u64)) -> Option<Piece> {
        if let Some((start, (stream, bytes))) = self.unfinished.pop_first() {
            self.taken += 1;
            return Some(Piece { range: start..stream.end, next: false, unfinished: Some((stream, bytes)) });
        }
        let length = self.share(takers).max(least).min(most).min(self.longest);
        let far = self.joined.saturating_add(self.ahead);
        let first = self.missing.0.first_key_value().map(|(start, end)| (*start, *end));
        if let Some((start, end)) = first.filter(|(start, _)| *start < far) {
            self.missing.0.pop_first();
            self.taken += 1;
            let to = end.min(start.saturating_add(length));
            self.missing.add(to..end);
            return Some(Piece { range: start..to, next: false, unfinished: None });
        }
        let mut piece = self.take_over(far, least.max(self.shortest()))?;
        while piece.range.end - piece.range.start < length && self.lengthen(&mut piece) {}
        self.release(&piece);
        Some(piece)
    }

    /// Makes the reserve of a piece missing again.
    fn release(&mut self, piece: &Piece) {
        if let Some(end) = self.reserved.0.remove(&piece.range.end) {
            self.missing.add(piece.range.end..end);
        }
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
        for (start, (stream, _)) in std::mem::take(&mut self.unfinished) {
            self.missing.add(start..stream.end);
        }
        std::mem::take(&mut self.ahead) > 0
    }

    /// Returns whether parts may be uploaded, or only the bytes after the joined ones.
    pub(super) fn allows_parts(&self) -> bool {
        self.ahead > 0
    }

    /// Returns whether the vessel has compressed parts that are not joined yet.
    pub(super) fn has_streams(&self) -> bool {
        !self.streams.is_empty() || !self.unfinished.is_empty()
    }

    /// Returns the offset of the first missing byte.
    pub(super) fn first_missing(&self) -> u64 {
        self.missing.0.first_key_value().map_or(self.size, |(start, _)| *start)
    }

    /// Returns whether compressed streams wait for the rest of their bytes.
    pub(super) fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Records that the vessel has the whole compressed stream of a piece.
    pub(super) fn give_stream(&mut self, piece: Piece, stream: Stream) {
        self.taken -= 1;
        self.streams.insert(stream.start, stream);
        self.ragged.remove(&stream.start);
        self.complete.add(piece.range);
    }

    /// Records that the vessel has the first `bytes` bytes of the compressed stream of a piece.
    pub(super) fn give_unfinished(&mut self, stream: Stream, bytes: u64) {
        self.taken -= 1;
        self.unfinished.insert(stream.start, (stream, bytes));
    }

    /// Takes compressed parts back: those among the complete ones before `end`, and all unfinished ones. They count as
    /// being uploaded until they are given as pieces without bytes.
    pub(super) fn withdraw_streams(&mut self, end: u64) -> Vec<(Piece, Stream)> {
        let later = self.streams.split_off(&end);
        let complete: Vec<Stream> = std::mem::replace(&mut self.streams, later).into_values().collect();
        for stream in &complete {
            self.complete.0.remove(&stream.start);
        }
        let unfinished = std::mem::take(&mut self.unfinished).into_values().map(|(stream, _)| stream);
        let all: Vec<_> = complete.into_iter().chain(unfinished).collect();
        self.taken += all.len();
        let piece = |stream: Stream| (Piece { range: stream.range(), next: false, unfinished: None }, stream);
        all.into_iter().map(piece).collect()
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
            if piece.range.start < end && end < piece.range.end {
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
                let (ragged, stream) = (self.ragged.contains(start), self.streams.get(start).copied());
                Part { range: *start..*end, ragged, stream }
            })
        });
        next.collect()
    }

    /// Records that everything before `end` is joined.
    pub(crate) fn join(&mut self, end: u64) {
        self.joined = end;
        self.complete.0 = self.complete.0.split_off(&end);
        self.ragged = self.ragged.split_off(&end);
        self.streams = self.streams.split_off(&end);
    }

    /// Returns how many bytes from the start are joined.
    pub(crate) fn joined(&self) -> u64 {
        self.joined
    }

    /// Returns the number of missing bytes, without those that are being uploaded or are reserved. Of an unfinished
    /// stream, its part of the range is missing.
    pub(super) fn missing_bytes(&self) -> u64 {
        let unfinished = self.unfinished.values().map(|(stream, has)| {
            let length = stream.end - stream.start;
            length - expanded_share(length, *has, stream.bytes)
        });
        self.missing.bytes() + unfinished.sum::<u64>()
    }

    /// Returns whether no range is missing or being uploaded. A compressed part may turn out to be damaged, so its range
    /// may be missing again until it is joined.
    pub(super) fn is_uploaded(&self) -> bool {
        self.taken == 0 && self.missing.0.is_empty() && self.unfinished.is_empty() && self.streams.is_empty()
    }

    /// Returns whether the whole file is joined.
    pub(super) fn is_joined(&self) -> bool {
        self.joined == self.size
    }
}

/// Returns how many of the `length` bytes of a range count as sent, once `has` bytes of its stream of `bytes` are.
pub(super) fn expanded_share(length: u64, has: u64, bytes: u64) -> u64 {
    let share = u128::from(length) * u128::from(has) / u128::from(bytes.max(1));
    u64::try_from(share).unwrap_or(length).min(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain<const N: usize>(ranges: [Range<u64>; N]) -> Vec<HeldPart> {
        ranges.into_iter().map(HeldPart::plain).collect()
    }

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
        let (mut ranges, useless) = RangeMap::new(100, 50, 100, 10, plain([60..70, 20..30, 5..10, 65..69, 90..101]));
        assert_eq!(useless, plain([5..10, 65..69, 90..101]));
        assert_eq!(taken_ranges(&mut ranges, 1), [10..20, 30..60, 70..100]);
    }

    #[test]
    fn a_part_that_grew_into_another_counts_up_to_there() {
        let (mut ranges, useless) = RangeMap::new(100, 100, 100, 10, plain([0..20, 10..40, 30..60, 55..70]));
        let whole = 0..20;
        assert_eq!(useless, plain([whole]));
        let part = |range, ragged| Part { range, ragged, stream: None };
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
        assert_eq!(ranges.joinable(), [Part { range: second.range.start..end - 1, ragged: true, stream: None }]);
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
        assert_eq!(ranges.take(1, 0), Some(Piece { range: 15..20, next: true, unfinished: None }));
    }

    #[test]
    fn nothing_is_taken_far_ahead_of_what_is_joined() {
        let (mut ranges, _) = RangeMap::new(100, 10, 20, 0, Vec::new());
        let first = ranges.take(1, 0).unwrap();
        assert_eq!(taken_ranges(&mut ranges, 1).len(), 1);
        ranges.give(first, 10);
        assert_eq!(ranges.take(1, 0), Some(Piece { range: 20..30, next: false, unfinished: None }));
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

    fn stream(range: Range<u64>, bytes: u64) -> Stream {
        Stream { start: range.start, end: range.end, bytes, codec: crate::compression::Codec::Zstd }
    }

    #[test]
    fn a_compressed_part_counts_whole_or_is_continued() {
        let held = |range, has| HeldPart::compressed(stream(range, 5), has);
        let parts = vec![held(0..20, 5), held(20..30, 3), held(15..40, 5), held(40..50, 6), held(60..70, 0)];
        let (mut ranges, useless) = RangeMap::new(100, 100, 100, 0, parts);
        assert_eq!(useless, [held(15..40, 5), held(40..50, 6), held(60..70, 0)]);
        let part = Part { range: 0..20, ragged: false, stream: Some(stream(0..20, 5)) };
        assert_eq!(ranges.joinable(), [part]);
        assert_eq!(ranges.missing_bytes(), 4 + 70);
        assert!(ranges.has_unfinished());
        let piece = ranges.take_whole(1, (1, 8)).unwrap();
        assert_eq!((piece.range.clone(), piece.unfinished), (20..30, Some((stream(20..30, 5), 3))));
        ranges.give_stream(piece, stream(20..30, 5));
        assert_eq!(ranges.joinable().len(), 2);
        assert_eq!(ranges.take_whole(1, (1, 8)).unwrap().range, 30..38);
    }

    #[test]
    fn a_plain_part_gives_way_to_a_compressed_one_but_not_the_other_way_round() {
        let compressed = |range| HeldPart::compressed(stream(range, 5), 5);
        let parts = vec![HeldPart::plain(0..30), compressed(20..40), HeldPart::plain(35..50), compressed(20..45)];
        let (ranges, useless) = RangeMap::new(100, 100, 100, 0, parts);
        assert_eq!(useless, [compressed(20..45), HeldPart::plain(35..50)]);
        let first = Part { range: 0..20, ragged: true, stream: None };
        let second = Part { range: 20..40, ragged: false, stream: Some(stream(20..40, 5)) };
        assert_eq!(ranges.joinable(), [first, second]);
    }

    #[test]
    fn streams_that_are_taken_back_are_missing_again_and_nobody_ends_before() {
        let parts = vec![HeldPart::compressed(stream(0..60, 5), 5), HeldPart::compressed(stream(60..100, 5), 2)];
        let (mut ranges, _) = RangeMap::new(100, 50, 100, 0, parts);
        assert!(!ranges.is_uploaded());
        let withdrawn = ranges.withdraw_streams(u64::MAX);
        assert_eq!(withdrawn.len(), 2);
        assert!(ranges.take(1, 0).is_none() && !ranges.is_uploaded());
        for (piece, _) in withdrawn {
            let start = piece.range.start;
            ranges.give(piece, start);
        }
        assert_eq!((ranges.missing_bytes(), ranges.take(1, 0).unwrap().next), (100, true));
    }

    proptest! {
        #[test]
        fn every_byte_is_joined_once_with_streams_among_the_parts(
            size in 1u64..100_000,
            longest in 1u64..20_000,
            takers in 1usize..5,
            held in proptest::collection::vec((0u64..100_000, 1u64..5_000, 0u64..12, any::<bool>()), 0..10),
            fates in proptest::collection::vec(0u64..=100, 0..2000),
        ) {
            let held = held.into_iter().map(|(start, length, has, is_plain)| match is_plain {
                true => HeldPart::plain(start..start + length),
                false => HeldPart::compressed(stream(start..start + length, 10), has),
            });
            let (mut ranges, _) = RangeMap::new(size, longest, longest * 3, 0, held.collect());
            let mut fates = fates.into_iter();
            let (mut at, mut working) = (0, Vec::new());
            while !ranges.is_joined() {
                let fate = fates.next().unwrap_or(100);
                let whole = fate % 3 > 0 || ranges.has_unfinished();
                let taken = match working.len() < takers {
                    false => None,
                    true if whole => ranges.take_whole(takers, (100, 3000)),
                    true => ranges.take(takers, 0),
                };
                if let Some(piece) = taken {
                    prop_assert!(!piece.next || piece.range.start == at);
                    prop_assert!(piece.range.start >= at && !piece.range.is_empty());
                    working.push((piece, whole));
                    if fate % 2 == 0 {
                        continue;
                    }
                }
                if !working.is_empty() {
                    let (mut piece, whole) = working.swap_remove(fate as usize % working.len());
                    let this = stream(piece.range.clone(), 10);
                    let start = piece.range.start;
                    match fates.next().unwrap_or(100) {
                        fate @ 0..20 if whole => ranges.give_unfinished(this, 1 + fate % 9),
                        20..30 if whole => ranges.give(piece, start),
                        _ if whole => ranges.give_stream(piece, this),
                        _ => {
                            while fates.next().unwrap_or(1) % 4 > 0 && ranges.lengthen(&mut piece) {}
                            let end = piece.range.end;
                            at = if piece.next { end } else { at };
                            ranges.give(piece, end);
                        }
                    }
                }
                prop_assert_eq!(ranges.joined(), at);
                if fates.next().unwrap_or(100) < 5 {
                    for (piece, stream) in ranges.withdraw_streams(size / 2) {
                        prop_assert!(stream.start >= at && stream.range() == piece.range);
                        let start = piece.range.start;
                        ranges.give(piece, start);
                    }
                }
                for part in ranges.joinable() {
                    prop_assert_eq!(part.range.start, at);
                    prop_assert!(part.stream.is_none_or(|stream| stream.range() == part.range && !part.ragged));
                    at = part.range.end;
                }
                ranges.join(at);
            }
            prop_assert_eq!(at, size);
            prop_assert!(ranges.is_uploaded() && ranges.missing_bytes() == 0);
        }
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
            let held = held.into_iter().map(|(start, length)| HeldPart::plain(start..start + length)).collect();
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
