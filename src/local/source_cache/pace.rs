//! How far each reader of a source has come, and who waits for whom.
//!
//! Readers of about the same pace should find each other's blocks in the cache. So the one in front waits a little before
//! it pushes out what one that comes right behind is about to read; and the hasher stays near the front. Knows no bytes.

use std::time::{Duration, Instant};

/// What a block takes a reader of whom nothing is known yet.
const START: Duration = Duration::from_millis(10);
/// Within which a follower must have read something to be worth waiting for: the time of so many blocks of who is in
/// front, and at least so long.
const MOVING: (u32, Duration) = (8, Duration::from_millis(250));
/// Who takes longer for a block (16 MiB/s or less) waits for nobody: at such a pace the disk is not what counts.
const UNHURRIED: Duration = Duration::from_millis(32);
/// How far behind, in caches, one may be and be waited for: who fell out of the cache while all began comes back into it.
const BEHIND: u64 = 2;
/// How much longer than who is in front another may take for a block and be waited for; and what is fast enough beside
/// anyone (40 MiB/s): who runs ahead of others that have only just begun has a processor to himself, for the moment.
const OF_A_PACE: (u32, Duration) = (2, Duration::from_millis(12));
/// The longest wait before one block.
const PER_BLOCK: Duration = Duration::from_millis(250);

/// One reader's way through a source, in blocks.
pub(super) struct Progress {
    /// The first block it asked for; what stands before that it had from an earlier attempt.
    first: Option<u64>,
    /// A bit for each block.
    passed: Vec<u64>,
    last: u64,
    moved: Instant,
    /// From one block to the next, lately; waits for others don't count.
    interval: Duration,
    /// Waited for others since it moved, and altogether.
    waited: (Duration, Duration),
    /// Blocks that are hashed and still before it.
    hashed_before: u64,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        let (first, passed, waited) = (None, Vec::new(), (Duration::ZERO, Duration::ZERO));
        Self { first, passed, last: 0, moved: now, interval: START, waited, hashed_before: 0 }
    }

    /// It asks for a block; `hashed` blocks of the source are hashed.
    pub(super) fn asks(&mut self, index: u64, hashed: u64, now: Instant) {
        if self.first.is_none() {
            self.first = Some(index);
            (self.last, self.moved) = (index, now);
            self.hashed_before = hashed.saturating_sub(index);
        }
    }

    /// Whether it has asked for anything yet.
    pub(super) fn has_begun(&self) -> bool {
        self.first.is_some()
    }

    /// Whether it will come for a block. One that hasn't begun may have to wait for its turn: nobody waits for it.
    pub(super) fn needs(&self, index: u64) -> bool {
        self.first.is_some_and(|first| first <= index) && !self.has_passed(index)
    }

    pub(super) fn has_passed(&self, index: u64) -> bool {
        self.passed.get((index / 64) as usize).is_some_and(|bits| bits >> (index % 64) & 1 == 1)
    }

    /// How soon it will come for a block, if it will, going on as it did lately from the nearest place it has reached.
    pub(super) fn comes_in(&self, index: u64) -> Option<Duration> {
        let first = self.first.filter(|_| self.needs(index))?;
        let reached = self.passed_before(index).unwrap_or(first).max(first);
        Some(self.interval.saturating_mul(u32::try_from(index - reached).unwrap_or(u32::MAX)))
    }

    /// The nearest block before this one that it has passed.
    fn passed_before(&self, index: u64) -> Option<u64> {
        let (word, below) = ((index / 64) as usize, (1u64 << (index % 64)) - 1);
        let of_its_own = self.passed.get(word).map(|bits| (word, bits & below));
        let lower = (0..word.min(self.passed.len())).rev().map(|word| (word, self.passed[word]));
        let (word, bits) = of_its_own.into_iter().chain(lower).find(|(_, bits)| *bits != 0)?;
        Some(word as u64 * 64 + 63 - u64::from(bits.leading_zeros()))
    }

    /// It has read a block to its end; `hashed` blocks of the source are hashed.
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

    /// Another block is hashed.
    pub(super) fn note_hashed(&mut self, index: u64) {
        self.hashed_before += u64::from(self.needs(index));
    }

    /// How many blocks the hasher is before it.
    pub(super) fn hashed_before(&self) -> u64 {
        self.hashed_before
    }

    /// Whether it follows `front` at about the same pace, and will soon come for a block that is about to go, in a cache of
    /// `window` blocks. For a slower one a wait would only put off that it falls behind.
    fn follows(&self, front: &Self, index: u64, window: u64, now: Instant) -> bool {
        let moving = MOVING.1.max(front.interval * MOVING.0);
        let of_a_pace = OF_A_PACE.1.max(front.interval * OF_A_PACE.0);
        let keeps_up = self.interval <= of_a_pace && now.duration_since(self.moved) < moving;
        keeps_up && self.last < front.last && self.needs(index) && index <= self.last + window * BEHIND
    }

    /// What it may still wait for others before one block, having begun to wait at `began`.
    fn patience(&self, began: Instant, now: Instant) -> Duration {
        if self.interval > UNHURRIED { Duration::ZERO } else { PER_BLOCK.saturating_sub(now.duration_since(began)) }
    }

    /// How long it has waited for others altogether.
    #[cfg(test)]
    pub(super) fn waited(&self) -> Duration {
        self.waited.1
    }

    /// It has waited for others.
    pub(super) fn note_waited(&mut self, waited: Duration) {
        self.waited = (self.waited.0 + waited, self.waited.1 + waited);
    }
}

/// How long `reader` should wait before it reads a block from the disk, so that `out`, the block that has to go for it, is
/// not missed by one that follows.
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

    /// Readers that have passed all blocks before these, `seconds` after they began.
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
