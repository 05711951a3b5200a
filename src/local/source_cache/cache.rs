//! Cached blocks, limited in bytes. Evicts blocks that no reader needs, then overdue blocks, then the block that is
//! needed furthest in the future.
//!
//! Evicting the least recently used block would be wrong. Readers move forward, so the next reader is about to read
//! exactly that block, and a cache that is slightly too small would never have a hit. This module works in memory only;
//! it accesses no files.

use std::collections::BTreeMap;

use bytes::Bytes;

/// The number of a source in the cache; never reused.
pub(super) type SourceId = u64;
/// The identity of a block: its source, and its index in that source.
pub(super) type BlockId = (SourceId, u64);

/// Approximate memory in bytes that a cached block needs besides its content. Most of this memory is the entry of the
/// block's source, which is counted for every block, because a small file has only one block.
const OVERHEAD: u64 = 1024;

/// A block that is overdue by more than this many microseconds counts as no longer needed.
const GRACE: u64 = 5_000_000;

/// When a block is needed next, in microseconds of the caller's clock.
pub(super) type Due = u64;
/// No reader needs the block any more.
pub(super) const NEVER: Due = Due::MAX;

/// Eviction rank: the due time, and a number that makes ranks with the same due time unique. The block with the largest
/// rank is evicted first; if every block is still needed, overdue blocks are evicted before that block.
type Rank = (Due, u64);

struct Held {
    bytes: Bytes,
    rank: Rank,
}

/// Blocks, up to a limit in bytes.
pub(super) struct Cache {
    bound: u64,
    size: u64,
    uses: u64,
    blocks: BTreeMap<BlockId, Held>,
    order: BTreeMap<Rank, BlockId>,
}

impl Cache {
    pub(super) fn new(bound: u64) -> Self {
        Self { bound, size: 0, uses: 0, blocks: BTreeMap::new(), order: BTreeMap::new() }
    }

    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn get(&self, id: BlockId) -> Option<Bytes> {
        self.blocks.get(&id).map(|held| held.bytes.clone())
    }

    /// Returns whether the first `count` blocks of a source are cached.
    pub(super) fn holds_all(&self, source: SourceId, count: u64) -> bool {
        self.blocks.range((source, 0)..(source, count)).count() as u64 == count
    }

    /// Returns whether any block of a source is cached.
    pub(super) fn holds_any(&self, source: SourceId) -> bool {
        self.blocks.range((source, 0)..=(source, u64::MAX)).next().is_some()
    }

    /// Sets when a block is needed next.
    pub(super) fn expect(&mut self, id: BlockId, due: Due) {
        if let Some(held) = self.blocks.get_mut(&id) {
            self.order.remove(&held.rank);
            self.uses += 1;
            held.rank = (due, self.uses);
            self.order.insert(held.rank, id);
        }
    }

    /// Returns the block to evict before a block of `len` bytes is added; `None` if there is room for it.
    pub(super) fn next_out(&self, len: u64, now: Due) -> Option<BlockId> {
        if self.size + len + OVERHEAD <= self.bound {
            return None;
        }
        let (first, last) = (self.order.first_key_value()?, self.order.last_key_value()?);
        let out = if last.0.0 != NEVER && is_overdue(*first.0, now) { first } else { last };
        Some(*out.1)
    }

    /// Adds a block, unless it is larger than the cache. Returns the sources of the blocks that were evicted for it.
    pub(super) fn insert(&mut self, id: BlockId, bytes: Bytes, due: Due, now: Due) -> Vec<SourceId> {
        let len = bytes.len() as u64;
        self.remove(id);
        let mut gone = Vec::new();
        while let Some(out) = self.next_out(len, now) {
            self.remove(out);
            gone.push(out.0);
        }
        if len + OVERHEAD <= self.bound {
            self.size += len + OVERHEAD;
            self.uses += 1;
            self.order.insert((due, self.uses), id);
            self.blocks.insert(id, Held { bytes, rank: (due, self.uses) });
        }
        gone
    }

    /// Returns whether `len` bytes fit without evicting a block that a reader still needs.
    pub(super) fn has_room(&self, len: u64, now: Due) -> bool {
        let mut free = self.bound - self.size;
        let spent = self.order.iter().rev().take_while(|(rank, _)| rank.0 == NEVER);
        let overdue = self.order.iter().take_while(|(rank, _)| is_overdue(**rank, now));
        let mut unneeded = spent.chain(overdue).map(|(_, id)| self.blocks[id].bytes.len() as u64 + OVERHEAD);
        while free < len + OVERHEAD {
            let Some(more) = unneeded.next() else { return false };
            free += more;
        }
        true
    }

    /// Drops all blocks of a source.
    pub(super) fn remove_all(&mut self, source: SourceId) {
        let ids: Vec<BlockId> = self.blocks.range((source, 0)..=(source, u64::MAX)).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.remove(id));
    }

    fn remove(&mut self, id: BlockId) {
        if let Some(held) = self.blocks.remove(&id) {
            self.order.remove(&held.rank);
            self.size -= held.bytes.len() as u64 + OVERHEAD;
        }
    }
}

fn is_overdue(rank: Rank, now: Due) -> bool {
    rank.0.saturating_add(GRACE) < now
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(len: usize) -> Bytes {
        vec![0; len].into()
    }

    fn full(dues: &[Due]) -> Cache {
        let mut cache = Cache::new(dues.len() as u64 * (1000 + OVERHEAD));
        for (index, due) in (0..).zip(dues) {
            assert!(cache.insert((1, index), block(1000), *due, 0).is_empty());
        }
        cache
    }

    #[test]
    fn the_spent_go_first_and_then_what_is_needed_last() {
        let mut cache = full(&[100, 400, 200, 300]);
        cache.expect((1, 2), NEVER);
        assert_eq!(cache.next_out(1000, 0), Some((1, 2)));
        assert_eq!(cache.insert((2, 0), block(1000), 150, 0), [1]);
        assert_eq!(cache.insert((2, 1), block(1000), 250, 0), [1]);
        let held: Vec<_> = cache.blocks.keys().copied().collect();
        assert_eq!(held, [(1, 0), (1, 3), (2, 0), (2, 1)]);
    }

    #[test]
    fn what_is_long_overdue_goes_before_what_is_needed() {
        let cache = full(&[100, 200, GRACE]);
        assert_eq!(cache.next_out(1, GRACE + 100), Some((1, 2)));
        assert_eq!(cache.next_out(1, GRACE + 101), Some((1, 0)));
    }

    #[test]
    fn only_what_nobody_comes_for_makes_room_for_what_is_put_by() {
        let mut cache = full(&[100, 100]);
        assert!(!cache.has_room(1, 200));
        cache.expect((1, 0), NEVER);
        assert!(cache.has_room(1000, 200) && !cache.has_room(1001, 200));
        assert!(cache.has_room(1001, GRACE + 200));
    }

    proptest! {
        #[test]
        fn the_bound_is_kept_whatever_comes(steps in proptest::collection::vec((0u64..4, 0u64..20, 0usize..3000), 1..200)) {
            let mut cache = Cache::new(10_000);
            for (source, index, len) in steps {
                let due = if len % 2 == 0 { NEVER } else { len as Due };
                cache.insert((source, index), block(len), due, GRACE + 1000);
                let held: u64 = cache.blocks.values().map(|held| held.bytes.len() as u64 + OVERHEAD).sum();
                prop_assert_eq!(held, cache.size);
                prop_assert!(cache.size <= 10_000 && cache.order.len() == cache.blocks.len());
            }
            (0..4).for_each(|source| cache.remove_all(source));
            prop_assert!(cache.size == 0 && cache.order.is_empty());
        }
    }
}
