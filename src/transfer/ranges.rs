//! The ranges of a file by state: joined, complete in TempDir, uploading, or missing.
//!
//! This module is pure arithmetic. A range directly after the joined bytes is appended to the assembly; any other range
//! becomes a part, named by its start. After a lost connection, the bytes that a part holds count as a complete range,
//! and only the remaining bytes are missing.
//!
//! Each uploading part has a reserve, the bytes into which the part grows step by step. An idle uploader takes half of
//! the largest reserve.
//!
//! A part may hold its range as a compressed stream; the module `streams` handles such parts.

mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::names::Stream;

pub(crate) use streams::expanded_share;

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
    /// The streams of complete parts that are compressed, by the starts of their ranges.
    streams: BTreeMap<u64, Stream>,
    /// The unfinished streams, by the starts of their ranges, each with the number of its bytes that the vessel has.
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
    /// parts `held`. If two parts overlap, the overlapping bytes are taken from the later part. If the earlier part is
    /// compressed, the later part is useless instead. Also returns the useless parts: empty, too long, or overlapping
    /// with joined bytes or with another part that can't be shortened.
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

    /// Adds a part that the vessel holds. All bytes before `at` are joined, held or missing already. Returns the part
    /// if it is useless.
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

    /// If `part` begins within the part before it, shortens that earlier part so that it ends where `part` begins.
    /// Returns `false` if that is impossible.
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
    /// end of the file, so that all `takers` finish at about the same time, but has at least `worth` bytes if so many
    /// are missing. If no range within `ahead` bytes of the joined bytes is missing, takes half of another piece's
    /// reserve. Returns `None` if nothing can be taken.
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
        let first = if next {
            self.appending = true;
            self.missing.add(first..end);
            first
        } else {
            let reserve = match end.min(start.saturating_add(share)).max(first) {
                reserve if end - reserve < self.shortest() && end - start <= self.longest => end,
                reserve => reserve,
            };
            let first = self.step(start, reserve);
            self.reserved.add(first..reserve);
            self.missing.add(reserve..end);
            first
        };
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
        let first = self.step(middle, end);
        self.reserved.add(first..end);
        Some(Piece { range: middle..first, next: false, unfinished: None })
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

    fn step(&self, from: u64, end: u64) -> u64 {
        step(from, end, self.shortest())
    }

    /// Extends a piece: an appended piece into the missing range after it, a part into its reserve. Returns `false` if
    /// no bytes are left there.
    pub(super) fn lengthen(&mut self, piece: &mut Piece) -> bool {
        let shortest = self.shortest();
        let rest = if piece.next { &mut self.missing } else { &mut self.reserved };
        let Some(end) = rest.0.remove(&piece.range.end) else { return false };
        let longer = step(piece.range.end, end, shortest);
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

    /// Returns whether parts may be uploaded; otherwise only the bytes after the joined ones may.
    pub(super) fn allows_parts(&self) -> bool {
        self.ahead > 0
    }

    /// Returns the offset of the first missing byte.
    pub(super) fn first_missing(&self) -> u64 {
        self.missing.0.first_key_value().map_or(self.size, |(start, _)| *start)
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

    /// Returns the number of missing bytes, without those that are being uploaded or are reserved. Of the range of an
    /// interrupted compressed stream, it counts the share that corresponds to the unsent bytes of the stream.
    pub(super) fn missing_bytes(&self) -> u64 {
        let unfinished = self.unfinished.values().map(|(stream, has)| {
            let length = stream.end - stream.start;
            length - expanded_share(length, *has, stream.bytes)
        });
        self.missing.bytes() + unfinished.sum::<u64>()
    }

    /// Returns the number of bytes that no uploader sends yet, reserved ones included.
    pub(super) fn left_bytes(&self) -> u64 {
        self.missing.bytes() + self.reserved.bytes()
    }

    /// Returns whether no range is missing or being uploaded. Also `false` until all compressed parts are joined,
    /// because a damaged one makes its range missing again.
    pub(super) fn is_uploaded(&self) -> bool {
        self.taken == 0 && self.missing.0.is_empty() && self.unfinished.is_empty() && self.streams.is_empty()
    }

    /// Returns whether the whole file is joined.
    pub(super) fn is_joined(&self) -> bool {
        self.joined == self.size
    }
}

/// Returns the end of the next step from `from` towards `end`. If less than a step would be left after it, the step
/// extends to `end`, because each range costs round trips.
fn step(from: u64, end: u64, shortest: u64) -> u64 {
    if end - from < 2 * shortest { end } else { from + shortest }
}

#[cfg(test)]
mod tests;
