//! The signature of a file, in rsync's terms: its blocks, as cut by content-defined chunking, with a hash of each.
//!
//! A cut depends only on the bytes around it. So changes, insertions and appended bytes affect only the cuts nearby;
//! all other cuts and blocks stay as they were.

use std::collections::HashMap;
use std::fmt;

use fastcdc::v2020::FastCDC;

use crate::digest::Digest;

/// Approximate number of blocks of a file. When the file changes, the average block length is kept until the number of
/// blocks is `DRIFT` times too high or too low.
const BLOCKS: u64 = 16 << 10;
const DRIFT: u64 = 16;
/// Limits of the average block length in bytes: shorter blocks cost more than they save, longer ones exceed the
/// library's limit.
const SHORTEST_AVERAGE: u32 = 16 << 10;
const LONGEST_AVERAGE: u32 = 4 << 20;
/// A block is at least a fourth of the average length and at most four times as long.
const SPREAD: u32 = 4;

/// Number of sample blocks of a signature, by which the signatures of similar files are found, and how many of the
/// samples are the first blocks of the file.
const SAMPLES: usize = 128;
const FIRST: usize = 16;

/// Bytes per block in the stored form.
const KEPT: usize = 4 + HASH;
const HASH: usize = 16;

/// The range of a file between two cuts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    /// Length in bytes.
    pub length: u32,
    /// The first half of the block's SHA-256. Half is enough to distinguish blocks, because the whole file is verified
    /// anyway.
    hash: [u8; HASH],
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:02x}{:02x}…", self.length, self.hash[0], self.hash[1])
    }
}

impl Block {
    /// Returns the first 8 bytes of the hash. Equal keys show which blocks of different files may be equal; then the
    /// lengths and whole hashes are compared.
    pub fn key(&self) -> i64 {
        i64::from_le_bytes(*self.hash.first_chunk().expect("a hash is longer than 8 bytes"))
    }
}

/// The blocks of a file in order. Signatures can only be compared if they have the same average length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    average: u32,
    blocks: Vec<Block>,
}

impl Signature {
    /// Minimum file size in bytes; smaller files are sent whole.
    pub const SMALLEST_FILE: u64 = 1 << 20;

    /// Returns the average length of blocks for a file of `size` bytes. Keeps `before`, the average length of the
    /// previous signature, if it still fits, because signatures of different average lengths cannot be compared.
    pub fn average_for(size: u64, before: Option<u32>) -> u32 {
        let fits = |average: &u32| {
            let blocks = size / u64::from(*average).max(1);
            blocks <= BLOCKS * DRIFT && (*average <= SHORTEST_AVERAGE || blocks >= BLOCKS / DRIFT)
        };
        before.filter(fits).unwrap_or_else(|| {
            let average = (size / BLOCKS).clamp(SHORTEST_AVERAGE.into(), LONGEST_AVERAGE.into());
            u32::try_from(average.next_power_of_two()).unwrap_or(LONGEST_AVERAGE)
        })
    }

    /// Returns the average length of the blocks, in bytes.
    pub fn average(&self) -> u32 {
        self.average
    }

    /// Returns the blocks of the file, in order.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Returns the keys of the sample blocks, by which this signature is found. The samples are the first blocks (most
    /// changes leave the beginning of a file as it was) and the blocks with the smallest keys (two similar files have
    /// most of these in common). Blocks that occur several times in the file, such as blocks of zeros, are left out,
    /// because they say little about the file.
    pub fn samples(&self) -> Vec<i64> {
        let mut times: HashMap<i64, u32> = HashMap::new();
        self.blocks.iter().for_each(|block| *times.entry(block.key()).or_default() += 1);
        let once = |key: &i64| times.get(key) == Some(&1);
        let mut samples: Vec<i64> = self.blocks.iter().map(Block::key).filter(once).take(FIRST).collect();
        let mut others: Vec<i64> = self.blocks.iter().map(Block::key).filter(once).skip(samples.len()).collect();
        others.sort_unstable();
        samples.extend(others.into_iter().take(SAMPLES - FIRST));
        samples
    }

    /// Returns the stored form: the average length, then each block's length and hash; 20 bytes per block.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.blocks.len() * KEPT);
        bytes.extend(self.average.to_le_bytes());
        for block in &self.blocks {
            bytes.extend(block.length.to_le_bytes());
            bytes.extend(block.hash);
        }
        bytes
    }

    /// Parses the stored form; `None` if the bytes are invalid.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (average, kept) = bytes.split_first_chunk::<4>()?;
        let (kept, rest) = kept.as_chunks::<KEPT>();
        let block = |kept: &[u8; KEPT]| {
            let (length, hash) = kept.split_first_chunk::<4>().expect("a stored block is longer than 4 bytes");
            Block {
                length: u32::from_le_bytes(*length),
                hash: hash.try_into().expect("the remaining bytes are the hash"),
            }
        };
        rest.is_empty()
            .then(|| Self { average: u32::from_le_bytes(*average), blocks: kept.iter().map(block).collect() })
    }
}

/// A builder of a signature from a stream of bytes.
#[derive(Clone)]
pub struct SignatureBuilder {
    average: u32,
    /// Bytes since the last cut.
    uncut: Vec<u8>,
    blocks: Vec<Block>,
}

impl SignatureBuilder {
    /// Starts a signature with blocks of this average length (see [`Signature::average_for`]).
    pub fn new(average: u32) -> Self {
        let average = average.clamp(SHORTEST_AVERAGE, LONGEST_AVERAGE).next_power_of_two();
        Self { average, uncut: Vec::new(), blocks: Vec::new() }
    }

    /// Processes the next bytes of the file, in pieces of any size.
    pub fn update(&mut self, bytes: &[u8]) {
        self.uncut.extend_from_slice(bytes);
        self.cut((self.average * SPREAD) as usize);
    }

    /// Returns the signature of all bytes so far.
    pub fn finish(mut self) -> Signature {
        self.cut(1);
        Signature { average: self.average, blocks: self.blocks }
    }

    /// Cuts off blocks while at least `enough` bytes are left. `enough` is the maximum block length, because a cut may
    /// depend on that many bytes, or 1 at the end of the file.
    fn cut(&mut self, enough: usize) {
        let average = self.average as usize;
        let longest = average * SPREAD as usize;
        let cutter = FastCDC::new(&self.uncut, average / SPREAD as usize, average, longest);
        let mut at = 0;
        while self.uncut.len() - at >= enough {
            let (_, end) = cutter.cut(at, (self.uncut.len() - at).min(longest));
            let block = &self.uncut[at..end];
            let mut hash = [0; HASH];
            hash.copy_from_slice(&Digest::of(block).as_bytes()[..HASH]);
            let length = u32::try_from(block.len()).expect("16 MiB at most");
            self.blocks.push(Block { length, hash });
            at = end;
        }
        self.uncut.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..length).map(|_| random.u8(..)).collect()
    }

    fn signature_of(bytes: &[u8], piece: usize) -> Signature {
        let mut signature_builder = SignatureBuilder::new(0);
        bytes.chunks(piece).for_each(|piece| signature_builder.update(piece));
        signature_builder.finish()
    }

    #[test]
    fn bytes_inserted_at_the_front_leave_nearly_all_blocks() {
        let old = noise(1, 2 << 20);
        let new = [&noise(2, 1000)[..], &old].concat();
        let (old, new) = (signature_of(&old, 4096), signature_of(&new, 4096));
        let known = |block: &&Block| old.blocks().contains(block);
        let lost = new.blocks().len() - new.blocks().iter().filter(known).count();
        assert!(lost <= 3 && new.blocks().len() > 50, "{lost} of {}", new.blocks().len());
    }

    #[test]
    fn the_average_follows_the_size_and_stays_as_long_as_it_fits() {
        assert_eq!(Signature::average_for(1 << 20, None), 16 << 10);
        assert_eq!(Signature::average_for(1 << 30, None), 64 << 10);
        assert_eq!(Signature::average_for(1 << 50, None), 4 << 20);
        assert_eq!(Signature::average_for(4 << 30, Some(64 << 10)), 64 << 10);
        assert_eq!(Signature::average_for(64 << 30, Some(64 << 10)), 4 << 20);
        assert_eq!(Signature::average_for(1 << 20, Some(64 << 10)), 16 << 10);
        assert_eq!(Signature::average_for(1 << 20, Some(0)), 16 << 10);
    }

    #[test]
    fn the_samples_of_similar_files_are_mostly_the_same() {
        let old = [noise(4, 8 << 20), vec![0; 1 << 20]].concat();
        let new = [&noise(5, 1 << 20)[..], &old, &noise(6, 3 << 20)].concat();
        let (old, new) = (signature_of(&old, 1 << 20).samples(), signature_of(&new, 1 << 20).samples());
        assert_eq!((old.len(), new.len()), (SAMPLES, SAMPLES));
        let shared = new.iter().filter(|key| old.contains(key)).count();
        assert!(shared > SAMPLES / 3, "{shared} of {}", new.len());
        let other = signature_of(&noise(7, 8 << 20), 1 << 20).samples();
        assert!(!other.iter().any(|key| old.contains(key)));
        assert_eq!(signature_of(&vec![0; 1 << 20], 1 << 20).samples(), [0; 0], "all blocks are the same");
    }

    #[test]
    fn bytes_that_are_no_signature_are_not_read_as_one() {
        let kept = signature_of(&noise(3, 100_000), 1000).to_bytes();
        assert!(Signature::from_bytes(&kept).is_some());
        assert_eq!(Signature::from_bytes(&kept[..kept.len() - 1]), None);
        assert_eq!(Signature::from_bytes(b""), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_blocks_are_the_file_whatever_pieces_it_comes_in(seed: u64, length in 0usize..400_000, piece in 1usize..200_000) {
            let bytes = noise(seed, length);
            let signature = signature_of(&bytes, piece);
            prop_assert_eq!(&signature, &signature_of(&bytes, 1 << 20));
            prop_assert_eq!(signature.blocks().iter().map(|s| s.length as usize).sum::<usize>(), length);
            prop_assert_eq!(Signature::from_bytes(&signature.to_bytes()), Some(signature));
        }
    }
}
