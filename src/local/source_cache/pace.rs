//! Tracks the progress of each reader of a source, and decides how long a reader waits for others.
//!
//! Readers of similar speed should find each other's blocks in the cache. So the reader in front pauses before it
//! evicts a block that a close follower is about to read, and the hasher stays near the front. This module handles only
//! block numbers, no bytes.

use std::time::{Duration, Instant};

/// Assumed time per block for a reader without measurements.
const START: Duration = Duration::from_millis(10);
/// The reader in front waits only for a follower that has read a block recently: within this many times the front
/// reader's time per block, or within this duration if that is longer.
const MOVING: (u32, Duration) = (8, Duration::from_millis(250));
/// A reader that takes longer per block than this (16 MiB/s or less) does not wait for other readers, because at that
/// speed the disk is not the bottleneck.
const UNHURRIED: Duration = Duration::from_millis(32);
/// How far the block to be evicted may be ahead of a follower that is worth waiting for, as a multiple of the cache
/// size. With a value above 1, readers that fell behind by more than the cache size during the start can catch up.
const BEHIND: u64 = 2;
/// The reader in front waits only for a follower of similar speed: the follower takes at most this many times the front
/// reader's time per block, or at most this duration (40 MiB/s) if that is longer. The duration matters if the reader
/// in front started before the others and is fast for the moment, because it has a processor to itself.
const OF_A_PACE: (u32, Duration) = (2, Duration::from_millis(12));
/// The longest time that a reader waits for others before one block.
const PER_BLOCK: Duration = Duration::from_millis(250);

/// Progress of one reader through a source, in blocks.
pub(super) struct Progress {
    /// The first block that the reader asked for; an earlier attempt has sent the blocks before it.
    first: Option<u64>,
    /// One bit for each block, set once the reader has read the block.
    passed: Vec<u64>,
    last: u64,
    moved: Instant,
    /// Recent average time per block, without the waits for other readers.
    interval: Duration,
    /// Time spent waiting for other readers: since the last block, and in total.
    waited: (Duration, Duration),
    /// Number of blocks that are hashed already and that the reader has yet to read.
    hashed_before: u64,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        let (first, passed, waited) = (None, Vec::new(), (Duration::ZERO, Duration::ZERO));
        Self { first, passed, last: 0, moved: now, interval: START, waited, hashed_before: 0 }
    }

    /// Records the reader's first request, for block `index`, when `hashed` blocks of the source are hashed. Later
    /// requests change nothing.
    pub(super) fn asks(&mut self, index: u64, hashed: u64, now: Instant) {
        if self.first.is_none() {
            self.first = Some(index);
            (self.last, self.moved) = (index, now);
            self.hashed_before = hashed.saturating_sub(index);
        }
    }

    /// Returns whether the reader has asked for a block yet.
    pub(super) fn has_begun(&self) -> bool {
        self.first.is_some()
    }

    /// Returns whether the reader will need a block. Returns `false` for a reader that has not begun, because it may
    /// still have to wait for its turn.
    pub(super) fn needs(&self, index: u64) -> bool {
        self.first.is_some_and(|first| first <= index) && !self.has_passed(index)
    }

    pub(super) fn has_passed(&self, index: u64) -> bool {
        self.passed.get((index / 64) as usize).is_some_and(|bits| bits >> (index % 64) & 1 == 1)
    }

    /// Returns how soon the reader will need a block, estimated from its recent speed and from the nearest earlier
    /// block that it has read; `None` if it won't need the block.
    pub(super) fn comes_in(&self, index: u64) -> Option<Duration> {
        let first = self.first.filter(|_| self.needs(index))?;
        let reached = self.passed_before(index).unwrap_or(first).max(first);
        Some(self.interval.saturating_mul(u32::try_from(index - reached).unwrap_or(u32::MAX)))
    }

    /// Returns the nearest block before `index` that the reader has read.
    fn passed_before(&self, index: u64) -> Option<u64> {
        let (word, below) = ((index / 64) as usize, (1u64 << (index % 64)) - 1);
        let of_its_own = self.passed.get(word).map(|bits| (word, bits & below));
        let lower = (0..word.min(self.passed.len())).rev().map(|word| (word, self.passed[word]));
        let (word, bits) = of_its_own.into_iter().chain(lower).find(|(_, bits)| *bits != 0)?;
        Some(word as u64 * 64 + 63 - u64::from(bits.leading_zeros()))
    }

    /// Records that the reader has read the block `index` to its end. `hashed` is the number of blocks, from the start of
    /// the source, that have been hashed so far.
    pub(super) fn passes(&mut self, index: u64, hashed: u64, now: Instant) {
        if self.needs(index) && index < hashed {
            self.hashed_before -= 1;
        }
        let word = (index / 64) as usize;
        if self.passed.len() <= word {
            self.passed.resize(word + 1, 0);
        }
        self.passed[word] |= 1 << (index % 64);
        let took = now.duration_since(self.moved).saturating_sub(std::mem::take(&mut self.waited.0));
        self.interval = (self.interval * 31 + took) / 32;
        (self.last, self.moved) = (self.last.max(index), now);
    }

    /// Records that another block is hashed.
    pub(super) fn note_hashed(&mut self, index: u64) {
        self.hashed_before += u64::from(self.needs(index));
    }

    /// Returns how many hashed blocks the reader has yet to read.
    pub(super) fn hashed_before(&self) -> u64 {
        self.hashed_before
    }

    /// Returns whether this reader follows `front` at a similar speed and will soon need block `index`, which is about
    /// to be evicted from a cache of `window` blocks. Waiting for a much slower reader would only delay the moment when
    /// it falls behind.
    fn follows(&self, front: &Self, index: u64, window: u64, now: Instant) -> bool {
        let moving = MOVING.1.max(front.interval * MOVING.0);
        let of_a_pace = OF_A_PACE.1.max(front.interval * OF_A_PACE.0);
        let keeps_up = self.interval <= of_a_pace && now.duration_since(self.moved) < moving;
        keeps_up && self.last < front.last && self.needs(index) && index <= self.last + window * BEHIND
    }

    /// Returns how much longer the reader may wait for others before it reads one block, if it began to wait at
    /// `began`.
    fn patience(&self, began: Instant, now: Instant) -> Duration {
        if self.interval > UNHURRIED { Duration::ZERO } else { PER_BLOCK.saturating_sub(now.duration_since(began)) }
    }

    /// Returns the total time that the reader has waited for other readers.
    #[cfg(test)]
    pub(super) fn waited(&self) -> Duration {
        self.waited.1
    }

    /// Records a wait for other readers.
    pub(super) fn note_waited(&mut self, waited: Duration) {
        self.waited = (self.waited.0 + waited, self.waited.1 + waited);
    }
}

/// Returns how long `reader` should wait before it reads a block from the disk. That read evicts the block `out` from
/// the cache of `window` blocks; the wait lets a close follower use `out` first. `began` is the time when the wait
/// began.
pub(super) fn wait_for_others<'a>(
    reader: &Progress,
    mut others: impl Iterator<Item = &'a Progress>,
    out: u64,
    window: u64,
    (began, now): (Instant, Instant),
) -> Duration {
    let followed = others.any(|other| other.follows(reader, out, window, now));
    if followed { reader.patience(began, now) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 16;

    /// Creates readers that have read all blocks before these positions, `seconds` after they began.
    fn readers(positions: &[u64], seconds: u64) -> (Vec<Progress>, Instant) {
        let start = Instant::now();
        let now = start + Duration::from_secs(seconds);
        let reader = |end: &u64| {
            let mut progress = Progress::new(start);
            progress.asks(0, 0, start);
            (0..*end).for_each(|index| progress.passes(index, 0, now));
            progress.interval = START;
            progress
        };
        (positions.iter().map(reader).collect(), now)
    }

    fn wait(readers: &[Progress], out: u64, now: Instant) -> Duration {
        wait_for_others(&readers[0], readers[1..].iter(), out, WINDOW, (now, now))
    }

    #[test]
    fn who_is_in_front_waits_for_one_that_comes_behind() {
        let (readers, now) = readers(&[20, 5], 10);
        assert_eq!(wait(&readers, 5, now), PER_BLOCK);
        assert_eq!(wait(&readers, 4, now), Duration::ZERO, "nobody needs that block");
    }

    #[test]
    fn nobody_waits_for_one_that_stands_still_or_is_slower_or_far_behind_or_ahead() {
        let (mut readers, now) = readers(&[20, 5], 10);
        assert_eq!(wait(&readers, 5, now + MOVING.1), Duration::ZERO);
        readers[1].interval = START * OF_A_PACE.0 + START;
        assert_eq!(wait(&readers, 5, now), Duration::ZERO, "it is slower");
        readers[1].interval = START;
        assert_eq!(wait(&readers, 4 + WINDOW * BEHIND + 1, now), Duration::ZERO);
        readers.swap(0, 1);
        assert_eq!(wait(&readers, 20, now), Duration::ZERO, "it is ahead");
    }

    #[test]
    fn nobody_waits_where_the_disk_is_not_what_counts() {
        let (mut readers, now) = readers(&[20, 5], 10);
        readers.iter_mut().for_each(|reader| reader.interval = UNHURRIED + START);
        assert_eq!(wait(&readers, 5, now), Duration::ZERO);
    }

    #[test]
    fn waits_for_others_do_not_make_a_reader_look_slow() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        progress.asks(0, 0, start);
        progress.note_waited(PER_BLOCK);
        progress.passes(0, 0, start + PER_BLOCK + START);
        assert_eq!((progress.interval, progress.waited()), (START, PER_BLOCK));
    }

    #[test]
    fn a_block_is_expected_from_the_nearest_place_that_was_reached() {
        let now = Instant::now();
        let mut progress = Progress::new(now);
        assert_eq!(progress.comes_in(3), None, "it has not begun");
        progress.asks(2, 0, now);
        assert_eq!((progress.comes_in(1), progress.comes_in(5)), (None, Some(START * 3)));
        for index in [2, 70] {
            progress.passes(index, 0, now + START);
            (progress.interval, progress.moved) = (START, now);
        }
        assert_eq!((progress.comes_in(70), progress.comes_in(64)), (None, Some(START * 62)));
        assert_eq!((progress.comes_in(71), progress.comes_in(200)), (Some(START), Some(START * 130)));
    }

    #[test]
    fn what_the_hasher_is_before_a_reader_is_counted_from_where_the_reader_began() {
        let now = Instant::now();
        let mut progress = Progress::new(now);
        progress.note_hashed(0);
        assert_eq!(progress.hashed_before(), 0, "it has not begun");
        progress.asks(2, 5, now);
        assert_eq!(progress.hashed_before(), 3);
        progress.passes(7, 5, now);
        progress.passes(2, 5, now);
        progress.passes(2, 5, now);
        assert_eq!(progress.hashed_before(), 2);
        (5..9).for_each(|index| progress.note_hashed(index));
        assert_eq!(progress.hashed_before(), 5, "it has passed block 7 already");
    }
}
