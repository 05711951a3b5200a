//! Compresses a range of a file into an independent stream, which a common program on the vessel (`zstd` or `gzip`)
//! expands.
//!
//! This module knows formats and bytes only: nothing about links, files or vessels.

use std::io::{self, Write};

use bytes::Bytes;

/// Both levels are low, because a link reaches its full rate only if the compressor is faster than the link. Zstd level
/// 3 shrinks program sources by a sixth more than level 1, at three quarters of the speed of level 1; higher levels
/// cost much and gain little. Gzip level 4 is the lowest level that searches for better matches.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 4;

/// A compressed format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Zstandard (RFC 8878), with a checksum.
    Zstd,
    /// Gzip (RFC 1952), which every Unix expands.
    Gzip,
}

impl Codec {
    /// All formats, the best one first.
    pub const ALL: [Self; 2] = [Self::Zstd, Self::Gzip];

    /// Returns the name of the format, which is also the name of the program that expands it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// Returns the usual file extension.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Zstd => "zst",
            Self::Gzip => "gz",
        }
    }

    /// Returns the format with this file extension.
    pub fn of_extension(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.extension() == extension)
    }

    /// Returns the command line that expands its standard input to its standard output.
    pub fn command(self) -> &'static str {
        match self {
            Self::Zstd => "zstd -dcq",
            Self::Gzip => "gzip -dc",
        }
    }

    /// Compresses bytes, given in pieces, into one stream with a checksum. The same release of this program always
    /// makes the same stream from the same bytes, so that an unfinished upload of the stream can be continued.
    ///
    /// # Errors
    /// When the library reports an error, for example for lack of memory.
    pub fn compress(self, pieces: &[Bytes]) -> io::Result<Vec<u8>> {
        let size: usize = pieces.iter().map(Bytes::len).sum();
        let out = Vec::with_capacity(size / 2);
        match self {
            Self::Zstd => {
                let mut encoder = zstd::stream::Encoder::new(out, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                encoder.set_pledged_src_size(Some(size as u64))?;
                pieces.iter().try_for_each(|piece| encoder.write_all(piece))?;
                encoder.finish()
            }
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
                pieces.iter().try_for_each(|piece| encoder.write_all(piece))?;
                encoder.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    fn expanded(codec: Codec, stream: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match codec {
            Codec::Zstd => zstd::stream::Decoder::new(stream)?.read_to_end(&mut bytes)?,
            Codec::Gzip => flate2::read::GzDecoder::new(stream).read_to_end(&mut bytes)?,
        };
        Ok(bytes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_stream_expands_to_its_bytes_and_is_the_same_each_time(
            pieces in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..5000), 0..5),
        ) {
            let bytes = pieces.concat();
            let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
            for codec in Codec::ALL {
                let stream = codec.compress(&pieces).unwrap();
                prop_assert_eq!(&stream, &codec.compress(&[Bytes::from(bytes.clone())]).unwrap());
                prop_assert_eq!(&expanded(codec, &stream).unwrap(), &bytes);
            }
        }

        #[test]
        fn a_stream_that_was_cut_or_changed_gives_an_error_or_its_own_bytes(at in 0usize..1000, bit in 0u32..8) {
            let bytes = Bytes::from(b"wind from the west, force 4; ".repeat(100));
            for codec in Codec::ALL {
                let mut stream = codec.compress(std::slice::from_ref(&bytes)).unwrap();
                let at = at % stream.len();
                prop_assert!(expanded(codec, &stream[..at]).map_or(true, |cut| cut != bytes));
                // Some bits have no effect, such as the time in a gzip header and the padding bits of the last byte.
                stream[at] ^= 1 << bit;
                prop_assert!(expanded(codec, &stream).map_or(true, |changed| changed == bytes));
            }
        }
    }

    #[test]
    fn text_shrinks_and_noise_does_not() {
        let mut noise = vec![0u8; 1 << 20];
        fastrand::Rng::with_seed(1).fill(&mut noise);
        let text = Bytes::from(b"visibility good, sea state 3. ".repeat(30_000));
        for codec in Codec::ALL {
            assert!(codec.compress(std::slice::from_ref(&text)).unwrap().len() < text.len() / 10);
            assert!(codec.compress(&[Bytes::from(noise.clone())]).unwrap().len() > noise.len() * 99 / 100);
        }
    }
}
