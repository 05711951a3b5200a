//! Names of our own files on a vessel, and how to recognize them (promise P7 in DESIGN.md).

use std::fmt;
use std::ops::Range;

use crate::compression::Codec;

/// The shore's ID, created once with its ledger. It distinguishes our files on a vessel from another shore's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstanceId(u64);

/// A parsed name of one of our files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OurFile {
    /// An uploaded range of a file, in TempDir.
    Part {
        /// The ledger's number of the delivery.
        delivery: i64,
        /// Offset of the range in the file, in bytes.
        start: u64,
    },
    /// A range of a file as a compressed stream, in TempDir.
    Compressed {
        /// The ledger's number of the delivery.
        delivery: i64,
        /// The range of the file, and the stream that holds it.
        stream: Stream,
    },
    /// The assembly: the hidden temporary file, in the destination directory, in which a file is put together.
    Assembly {
        /// The ledger's number of the delivery.
        delivery: i64,
    },
    /// An empty, short-lived file that shows which owner our files get in TempDir.
    Probe,
}

/// A range of a file as a compressed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Offset of the range in the file, in bytes.
    pub start: u64,
    /// Offset of the end of the range.
    pub end: u64,
    /// Length of the complete stream, in bytes.
    pub bytes: u64,
    /// Format of the stream.
    pub codec: Codec,
}

impl Stream {
    /// Returns the range of the file.
    pub fn range(&self) -> Range<u64> {
        self.start..self.end
    }
}

impl InstanceId {
    /// Creates the ID from the number in the ledger.
    pub fn new(id: u64) -> Self {
        Self(id)
    }

    /// Parses the form that [`Display`](fmt::Display) writes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let sound = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if sound { u64::from_str_radix(text, 16).ok().map(Self) } else { None }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Returns the name of a part in TempDir: `<instance>-<delivery>.<start>.part`, which is ASCII and short, whatever the
/// name of the file.
///
/// The name contains the number of the delivery, not the number of the version, because two vessels in the settings may
/// be the same host.
pub fn part_name(instance: InstanceId, delivery: i64, start: u64) -> String {
    format!("{}{start}.part", part_prefix(instance, delivery))
}

/// Returns the common beginning of the names of a delivery's parts.
pub fn part_prefix(instance: InstanceId, delivery: i64) -> String {
    format!("{instance}-{delivery}.")
}

/// Returns the name of a compressed part in TempDir: `<instance>-<delivery>.<start>-<end>.<bytes>.<extension>`.
///
/// Older versions of this program, which don't know compressed parts, can't parse such a name. So they never mistake a
/// compressed part for plain bytes of the file.
pub fn compressed_name(instance: InstanceId, delivery: i64, stream: Stream) -> String {
    let Stream { start, end, bytes, codec } = stream;
    format!("{}{start}-{end}.{bytes}.{}", part_prefix(instance, delivery), codec.extension())
}

/// Returns the hidden name of an assembly in its destination directory. A random `token` prevents other users who can
/// write to that directory from creating a file of that name in advance.
pub fn assembly_name(instance: InstanceId, delivery: i64, token: Option<u64>) -> String {
    match token {
        Some(token) => format!(".contentmonster-{instance}-{delivery}-{token:016x}.tmp"),
        None => format!(".contentmonster-{instance}-{delivery}.tmp"),
    }
}

/// Returns the name of the empty file that is created and removed in TempDir to find out which owner our files get
/// there.
pub fn probe_name(instance: InstanceId) -> String {
    format!("{instance}.probe")
}

impl OurFile {
    /// Parses a name; returns `None` for a name that this shore never creates.
    pub fn parse(instance: InstanceId, name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        if name == probe_name(instance) {
            return Some(Self::Probe);
        }
        let id = instance.to_string();
        if let Some(rest) = name.strip_prefix(".contentmonster-") {
            let numbers = rest.strip_prefix(&id)?.strip_prefix('-')?.strip_suffix(".tmp")?;
            let (delivery, token) = match numbers.split_once('-') {
                Some((delivery, token)) => (delivery, Some(u64::from_str_radix(token, 16).ok()?)),
                None => (numbers, None),
            };
            let delivery = delivery.parse().ok()?;
            return (assembly_name(instance, delivery, token) == name).then_some(Self::Assembly { delivery });
        }
        let (delivery, rest) = name.strip_prefix(&id)?.strip_prefix('-')?.split_once('.')?;
        let delivery = delivery.parse().ok()?;
        let Some(start) = rest.strip_suffix(".part") else {
            let stream = stream_of(rest)?;
            let is_ours = stream.start < stream.end && compressed_name(instance, delivery, stream) == name;
            return is_ours.then_some(Self::Compressed { delivery, stream });
        };
        let start = start.parse().ok()?;
        // Rust also parses numbers such as "+1" and "01", which this shore never writes. So the name is formatted again
        // from the numbers, and compared.
        (part_name(instance, delivery, start) == name).then_some(Self::Part { delivery, start })
    }
}

/// Parses the rest of a compressed part's name after the delivery's number: `<start>-<end>.<bytes>.<extension>`.
fn stream_of(text: &str) -> Option<Stream> {
    let (range, stream) = text.split_once('.')?;
    let ((start, end), (bytes, extension)) = (range.split_once('-')?, stream.split_once('.')?);
    let codec = Codec::of_extension(extension)?;
    Some(Stream { start: start.parse().ok()?, end: end.parse().ok()?, bytes: bytes.parse().ok()?, codec })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn our_names_are_known_again(id: u64, delivery in 0..i64::MAX, start: u64, token: Option<u64>) {
            let instance = InstanceId::new(id);
            prop_assert_eq!(InstanceId::parse(&instance.to_string()), Some(instance));
            prop_assert_eq!(
                OurFile::parse(instance, part_name(instance, delivery, start).as_bytes()),
                Some(OurFile::Part { delivery, start })
            );
            let (end, bytes) = (start.saturating_add(id | 1), id ^ start);
            for codec in Codec::ALL {
                let stream = Stream { start, end, bytes, codec };
                let name = compressed_name(instance, delivery, stream);
                let ours = (start < end).then_some(OurFile::Compressed { delivery, stream });
                prop_assert_eq!(OurFile::parse(instance, name.as_bytes()), ours);
            }
            prop_assert_eq!(
                OurFile::parse(instance, assembly_name(instance, delivery, token).as_bytes()),
                Some(OurFile::Assembly { delivery })
            );
        }

        #[test]
        fn another_shores_names_are_left_alone(id: u64, other: u64, delivery in 0..i64::MAX, start: u64) {
            prop_assume!(id != other);
            let (ours, theirs) = (InstanceId::new(id), InstanceId::new(other));
            prop_assert_eq!(OurFile::parse(ours, part_name(theirs, delivery, start).as_bytes()), None);
            prop_assert_eq!(OurFile::parse(ours, assembly_name(theirs, delivery, Some(start)).as_bytes()), None);
            let stream = Stream { start: 0, end: 1, bytes: start, codec: Codec::Zstd };
            prop_assert_eq!(OurFile::parse(ours, compressed_name(theirs, delivery, stream).as_bytes()), None);
        }

        #[test]
        fn arbitrary_names_are_never_ours(name: Vec<u8>) {
            prop_assert_eq!(OurFile::parse(InstanceId::new(7), &name), None);
        }
    }

    #[test]
    fn near_misses_are_not_ours() {
        let us = InstanceId::new(7);
        for name in [
            "0000000000000007-+1.0.part",
            "0000000000000007-1.00.part",
            "0000000000000007-1.part",
            "0000000000000007-1.0.part2",
            "0000000000000007-1.0-9.5.zs",
            "0000000000000007-1.0-9.5.zst.part",
            "0000000000000007-1.0-9.5.zst2",
            "0000000000000007-1.0-9.05.gz",
            "0000000000000007-1.+0-9.5.gz",
            "0000000000000007-1.9-9.5.gz",
            "0000000000000007-1.9-0.5.gz",
            "0000000000000007-1.0-9.gz",
            "0000000000000007-1.0-9.5",
        ] {
            assert_eq!(OurFile::parse(us, name.as_bytes()), None, "{name}");
        }
    }

    /// The parser of older versions of this program, from before compressed parts existed.
    fn parsed_before(instance: InstanceId, name: &str) -> Option<(i64, u64)> {
        let id = instance.to_string();
        let (delivery, start) = name.strip_prefix(&id)?.strip_prefix('-')?.strip_suffix(".part")?.split_once('.')?;
        Some((delivery.parse().ok()?, start.parse().ok()?))
    }

    proptest! {
        #[test]
        fn an_older_version_takes_no_compressed_part_for_a_plain_one(delivery in 0..i64::MAX, start: u64, bytes: u64) {
            let instance = InstanceId::new(7);
            prop_assert_eq!(parsed_before(instance, &part_name(instance, delivery, start)), Some((delivery, start)));
            for codec in Codec::ALL {
                let stream = Stream { start, end: u64::MAX, bytes, codec };
                prop_assert_eq!(parsed_before(instance, &compressed_name(instance, delivery, stream)), None);
            }
        }
    }
}
