//! The ranges of a file that parts hold as compressed streams.
//!
//! A compressed part can't be truncated, so it counts whole or not at all. An unfinished stream is continued, because
//! compressing the same range again gives the same stream.

use super::{Piece, RangeMap};
use crate::names::Stream;

impl RangeMap {
    /// Takes a range as a part that does not grow, so that it can be compressed: first the range of an unfinished
    /// stream, otherwise a missing range of at most `most` bytes. Towards the end of the file, the ranges are shorter,
    /// so that all `takers` finish at about the same time. Returns `None` if nothing can be taken.
    pub(crate) fn take_whole(&mut self, takers: usize, (least, most): (u64, u64)) -> Option<Piece> {
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

    /// Returns whether the vessel has compressed parts that are not joined yet.
    pub(crate) fn has_streams(&self) -> bool {
        !self.streams.is_empty() || !self.unfinished.is_empty()
    }

    /// Returns whether the vessel has compressed streams that are not complete.
    pub(crate) fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Records that the vessel has the whole compressed stream of a piece.
    pub(crate) fn give_stream(&mut self, piece: Piece, stream: Stream) {
        self.taken -= 1;
        self.streams.insert(stream.start, stream);
        self.ragged.remove(&stream.start);
        self.complete.add(piece.range);
    }

    /// Records that the vessel has the first `bytes` bytes of the compressed stream of a piece.
    pub(crate) fn give_unfinished(&mut self, stream: Stream, bytes: u64) {
        self.taken -= 1;
        self.unfinished.insert(stream.start, (stream, bytes));
    }

    /// Removes compressed parts from the map: the complete ones before `end`, and all unfinished ones. Their ranges
    /// count as being uploaded until the caller makes them missing again with [`RangeMap::give`].
    pub(crate) fn withdraw_streams(&mut self, end: u64) -> Vec<(Piece, Stream)> {
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
}

/// Returns how many of the `length` bytes of a range count as sent, once `has` of the `bytes` bytes of its stream are
/// sent.
pub(crate) fn expanded_share(length: u64, has: u64, bytes: u64) -> u64 {
    let share = u128::from(length) * u128::from(has) / u128::from(bytes.max(1));
    u64::try_from(share).unwrap_or(length).min(length)
}
