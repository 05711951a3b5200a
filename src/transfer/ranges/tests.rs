//! Tests of the ranges, among them random sequences of steps.

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
fn a_rest_shorter_than_a_step_gets_no_part_of_its_own() {
    let size = SHORTEST * 3 + SHORTEST / 2;
    let (mut ranges, _) = RangeMap::new(size, size, size, 0, Vec::new());
    let first = ranges.take(1, 0).unwrap();
    assert_eq!(first.range, 0..SHORTEST);
    let mut second = ranges.take(1, 0).unwrap();
    assert_eq!(second.range, SHORTEST..SHORTEST * 9 / 4, "half of what is missing");
    assert!(!ranges.lengthen(&mut second));
    let mut third = ranges.take(1, 0).unwrap();
    assert_eq!(third.range.end, size);
    assert!(!ranges.lengthen(&mut third));
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
    // All ranges are taken, so the slow uploader's reserve is halved again and again, until the halves are too short.
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
                // When the random numbers run out, pieces are uploaded completely, so that the loop ends.
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
