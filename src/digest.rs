//! SHA-256 digests and hashers: for a file, and for a file and its chunks in one pass.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the digest of a byte slice.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Creates a digest from exactly 32 bytes; `None` for another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Parses 64 hexadecimal digits of either case; `None` for anything else.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |b: u8| (b as char).to_digit(16);
            *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
        }
        Some(Self(bytes))
    }

    /// Returns the digest's 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Hashes a stream of bytes.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Processes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of all bytes so far.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// The digests of a whole file and of each of its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigests {
    /// Digest of the whole file.
    pub file: Digest,
    /// Digests of the chunks, in order; empty for an empty file.
    pub chunks: Vec<Digest>,
}

/// Hashes a file and its chunks in one pass.
pub struct FileHasher {
    file: Hasher,
    chunk: Sha256,
    chunk_size: u64,
    in_chunk: u64,
    chunks: Vec<Digest>,
}

impl FileHasher {
    /// Creates a hasher for a file with chunks of `chunk_size` bytes (0 counts as 1).
    pub fn new(chunk_size: u64) -> Self {
        Self {
            file: Hasher::default(),
            chunk: Sha256::new(),
            chunk_size: chunk_size.max(1),
            in_chunk: 0,
            chunks: Vec::new(),
        }
    }

    /// Processes the next bytes of the file, in pieces of any size.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(self.chunk_size - self.in_chunk).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.file.update(now);
            self.chunk.update(now);
            self.in_chunk += now.len() as u64;
            if self.in_chunk == self.chunk_size {
                self.end_chunk();
            }
            bytes = later;
        }
    }

    fn end_chunk(&mut self) {
        self.chunks.push(Digest(self.chunk.finalize_reset().into()));
        self.in_chunk = 0;
    }

    /// Returns the digests of all bytes so far.
    pub fn finish(mut self) -> FileDigests {
        if self.in_chunk > 0 {
            self.end_chunk();
        }
        FileDigests { file: self.file.finish(), chunks: self.chunks }
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, FileHasher};
    use proptest::prelude::*;

    #[test]
    fn hex_goes_both_ways_and_refuses_the_rest() {
        let digest = Digest::of(b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), hex);
        assert_eq!(Digest::from_hex(hex.as_bytes()), Some(digest));
        assert_eq!(Digest::from_hex(hex.to_uppercase().as_bytes()), Some(digest));
        assert_eq!(Digest::from_hex(&hex.as_bytes()[1..]), None);
        assert_eq!(Digest::from_hex("é".repeat(32).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn one_pass_gives_the_digests_that_many_passes_give(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            chunk_size in 1usize..64,
            piece in 1usize..50,
        ) {
            let mut hasher = FileHasher::new(chunk_size as u64);
            bytes.chunks(piece).for_each(|p| hasher.update(p));
            let digests = hasher.finish();
            prop_assert_eq!(digests.file, Digest::of(&bytes));
            let expected: Vec<_> = bytes.chunks(chunk_size).map(Digest::of).collect();
            prop_assert_eq!(digests.chunks, expected);
        }
    }
}
