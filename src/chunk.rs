//! The chunk plan: the byte ranges into which a file is split. Pure arithmetic.

use std::ops::Range;

/// The chunks of a file of a given size: all have `chunk_size` bytes except the last, which has the rest.
///
/// An empty file has no chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPlan {
    size: u64,
    chunk_size: u64,
}

impl ChunkPlan {
    /// Creates the plan for a file of `size` bytes and chunks of `chunk_size` bytes; a `chunk_size` of 0 counts as 1.
    pub fn new(size: u64, chunk_size: u64) -> Self {
        Self { size, chunk_size: chunk_size.max(1) }
    }

    /// Returns the number of chunks.
    pub fn count(self) -> u64 {
        self.size.div_ceil(self.chunk_size)
    }

    /// Returns the file's size in bytes.
    pub fn size(self) -> u64 {
        self.size
    }

    /// Returns the byte range of a chunk; for a chunk beyond the end, an empty range at the file's end.
    pub fn range(self, chunk: u64) -> Range<u64> {
        let start = chunk.saturating_mul(self.chunk_size).min(self.size);
        start..start.saturating_add(self.chunk_size).min(self.size)
    }

    /// Returns the byte range of the chunk with the byte at an offset; for an offset beyond the end, an empty range at
    /// the file's end.
    pub fn range_at(self, offset: u64) -> Range<u64> {
        self.range(offset / self.chunk_size)
    }

    /// Returns how many complete chunks the first `bytes` bytes of the file contain.
    pub fn whole_within(self, bytes: u64) -> u64 {
        if bytes >= self.size { self.count() } else { bytes / self.chunk_size }
    }
}

#[cfg(test)]
mod tests {
    use super::ChunkPlan;
    use proptest::prelude::*;

    #[test]
    fn one_byte_more_than_two_chunks_makes_three() {
        let plan = ChunkPlan::new(21, 10);
        assert_eq!(plan.count(), 3);
        assert_eq!(plan.range(2), 20..21);
        assert_eq!(plan.range(3), 21..21);
    }

    #[test]
    fn an_empty_file_has_no_chunk() {
        assert_eq!(ChunkPlan::new(0, 10).count(), 0);
        assert_eq!(ChunkPlan::new(0, 10).whole_within(0), 0);
    }

    proptest! {
        #[test]
        fn chunks_cover_the_file_without_gap_or_overlap(size in 0u64..1 << 20, chunk_size in 1u64..1 << 16) {
            let plan = ChunkPlan::new(size, chunk_size);
            let mut at = 0;
            for chunk in 0..plan.count() {
                let range = plan.range(chunk);
                prop_assert_eq!(range.start, at);
                prop_assert!(!range.is_empty() && range.end - range.start <= chunk_size);
                at = range.end;
            }
            prop_assert_eq!(at, size);
        }

        #[test]
        fn whole_chunks_are_those_that_end_within(size in 0u64..1 << 20, chunk_size in 1u64..1 << 16, bytes in 0u64..1 << 21) {
            let plan = ChunkPlan::new(size, chunk_size);
            let whole = plan.whole_within(bytes);
            prop_assert!(whole == 0 || plan.range(whole - 1).end <= bytes);
            prop_assert!(whole == plan.count() || plan.range(whole).end > bytes);
        }

        #[test]
        fn no_size_overflows(size: u64, chunk_size: u64, chunk: u64) {
            let range = ChunkPlan::new(size, chunk_size).range(chunk);
            prop_assert!(range.start <= range.end && range.end <= size);
        }
    }
}
