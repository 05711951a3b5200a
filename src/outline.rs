//! The outline of a file: the cuts of content-defined chunking, and the hash of each stretch between two cuts (the
//! signature, in rsync's terms).
//!
//! A cut depends only on the bytes around it. So changes, insertions and appended bytes leave all other cuts and
//! stretches as they were.

use std::fmt;

use fastcdc::v2020::FastCDC;

use crate::digest::Digest;

/// Approximate number of stretches of a file, and the factor by which it may grow or shrink as the file changes.
const STRETCHES: u64 = 16 << 10;
const DRIFT: u64 = 16;
/// Limits of the average length in bytes: shorter stretches cost more than they save, longer ones exceed the library's
/// limit.
const SHORTEST_AVERAGE: u32 = 16 << 10;
const LONGEST_AVERAGE: u32 = 4 << 20;
/// A stretch is at least a fourth of the average length and at most four times as long.
const SPREAD: u32 = 4;

/// Bytes per stretch in the stored form.
const KEPT: usize = 4 + HASH;
const HASH: usize = 16;

/// The range of a file between two cuts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stretch {
    /// Length in bytes.
    pub length: u32,
    /// The first half of its SHA-256. That is enough to distinguish stretches, because the whole file is verified
    /// anyway.
    hash: [u8; HASH],
}

impl fmt::Debug for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:02x}{:02x}…", self.length, self.hash[0], self.hash[1])
    }
}

/// The stretches of a file in order. Outlines can only be compared if they have the same average length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    average: u32,
    stretches: Vec<Stretch>,
}

impl Outline {
    /// Minimum file size in bytes; smaller files are sent whole.
    pub const SMALLEST_FILE: u64 = 1 << 20;

    /// Returns the average length of stretches for a file of `size` bytes. Keeps the previous one if it still fits,
    /// because outlines of different average lengths cannot be compared.
    pub fn average_for(size: u64, before: Option<u32>) -> u32 {
        let fits = |average: &u32| {
            let stretches = size / u64::from(*average).max(1);
            stretches <= STRETCHES * DRIFT && (*average <= SHORTEST_AVERAGE || stretches >= STRETCHES / DRIFT)
        };
        before.filter(fits).unwrap_or_else(|| {
            let average = (size / STRETCHES).clamp(SHORTEST_AVERAGE.into(), LONGEST_AVERAGE.into());
            u32::try_from(average.next_power_of_two()).unwrap_or(LONGEST_AVERAGE)
        })
    }

    /// Returns the average length of its stretches, in bytes.
    pub fn average(&self) -> u32 {
        self.average
    }

    /// Returns its stretches.
    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// Returns the stored form: the average length, then each stretch's length and hash; 20 bytes per stretch.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.stretches.len() * KEPT);
        bytes.extend(self.average.to_le_bytes());
        for stretch in &self.stretches {
            bytes.extend(stretch.length.to_le_bytes());
            bytes.extend(stretch.hash);
        }
        bytes
    }

    /// Parses the stored form; `None` if it is invalid.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (average, kept) = bytes.split_first_chunk::<4>()?;
        let (kept, rest) = kept.as_chunks::<KEPT>();
        let stretch = |kept: &[u8; KEPT]| {
            let (length, hash) = kept.split_first_chunk::<4>().expect("it is longer than that");
            Stretch { length: u32::from_le_bytes(*length), hash: hash.try_into().expect("what is left is the hash") }
        };
        rest.is_empty()
            .then(|| Self { average: u32::from_le_bytes(*average), stretches: kept.iter().map(stretch).collect() })
    }
}

/// Creates an outline from a stream of bytes.
#[derive(Clone)]
pub struct Outliner {
    average: u32,
    /// Bytes since the last cut.
    uncut: Vec<u8>,
    stretches: Vec<Stretch>,
}

impl Outliner {
    /// Starts an outline with stretches of this average length (see [`Outline::average_for`]).
    pub fn new(average: u32) -> Self {
        let average = average.clamp(SHORTEST_AVERAGE, LONGEST_AVERAGE).next_power_of_two();
        Self { average, uncut: Vec::new(), stretches: Vec::new() }
    }

    /// Processes the next bytes of the file, in pieces of any size.
    pub fn update(&mut self, bytes: &[u8]) {
        self.uncut.extend_from_slice(bytes);
        self.cut((self.average * SPREAD) as usize);
    }

    /// Returns the outline of all bytes so far.
    pub fn finish(mut self) -> Outline {
        self.cut(1);
        Outline { average: self.average, stretches: self.stretches }
    }

    /// Cuts stretches while at least `enough` bytes are left to determine the next cut.
    fn cut(&mut self, enough: usize) {
        let average = self.average as usize;
        let longest = average * SPREAD as usize;
        let cutter = FastCDC::new(&self.uncut, average / SPREAD as usize, average, longest);
        let mut at = 0;
        while self.uncut.len() - at >= enough {
            let (_, end) = cutter.cut(at, (self.uncut.len() - at).min(longest));
            let stretch = &self.uncut[at..end];
            let mut hash = [0; HASH];
            hash.copy_from_slice(&Digest::of(stretch).as_bytes()[..HASH]);
            let length = u32::try_from(stretch.len()).expect("16 MiB at most");
            self.stretches.push(Stretch { length, hash });
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

    fn outline_of(bytes: &[u8], piece: usize) -> Outline {
        let mut outliner = Outliner::new(0);
        bytes.chunks(piece).for_each(|piece| outliner.update(piece));
        outliner.finish()
    }

    #[test]
    fn what_is_inserted_at_the_front_leaves_nearly_all_stretches() {
        let old = noise(1, 2 << 20);
        let new = [&noise(2, 1000)[..], &old].concat();
        let (old, new) = (outline_of(&old, 4096), outline_of(&new, 4096));
        let known = |stretch: &&Stretch| old.stretches().contains(stretch);
        let lost = new.stretches().len() - new.stretches().iter().filter(known).count();
        assert!(lost <= 3 && new.stretches().len() > 50, "{lost} of {}", new.stretches().len());
    }

    #[test]
    fn the_average_follows_the_size_and_stays_as_long_as_it_fits() {
        assert_eq!(Outline::average_for(1 << 20, None), 16 << 10);
        assert_eq!(Outline::average_for(1 << 30, None), 64 << 10);
        assert_eq!(Outline::average_for(1 << 50, None), 4 << 20);
        assert_eq!(Outline::average_for(4 << 30, Some(64 << 10)), 64 << 10);
        assert_eq!(Outline::average_for(64 << 30, Some(64 << 10)), 4 << 20);
        assert_eq!(Outline::average_for(1 << 20, Some(64 << 10)), 16 << 10);
        assert_eq!(Outline::average_for(1 << 20, Some(0)), 16 << 10);
    }

    #[test]
    fn what_is_no_outline_is_not_read_as_one() {
        let kept = outline_of(&noise(3, 100_000), 1000).to_bytes();
        assert!(Outline::from_bytes(&kept).is_some());
        assert_eq!(Outline::from_bytes(&kept[..kept.len() - 1]), None);
        assert_eq!(Outline::from_bytes(b""), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_stretches_are_the_file_however_it_comes(seed: u64, length in 0usize..400_000, piece in 1usize..200_000) {
            let bytes = noise(seed, length);
            let outline = outline_of(&bytes, piece);
            prop_assert_eq!(&outline, &outline_of(&bytes, 1 << 20));
            prop_assert_eq!(outline.stretches().iter().map(|s| s.length as usize).sum::<usize>(), length);
            prop_assert_eq!(Outline::from_bytes(&outline.to_bytes()), Some(outline));
        }
    }
}
