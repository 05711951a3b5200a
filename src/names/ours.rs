//! What we call our own files on a vessel, and how we know them again (promise P7).

use std::fmt;

/// The shore's id, made once with its ledger: it tells our files on a vessel from another shore's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstanceId(u64);

/// A name of ours, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OurFile {
    /// An uploaded range of a file, in TempDir.
    Part {
        /// The ledger's number of the delivery.
        delivery: i64,
        /// Where in the file it begins, in bytes.
        start: u64,
    },
    /// The file being put together beside its destination.
    Assembly {
        /// The ledger's number of the delivery.
        delivery: i64,
    },
    /// What tells us whether TempDir is ours; there for a moment only.
    Probe,
}

impl InstanceId {
    /// Takes the number kept in the ledger.
    pub fn new(id: u64) -> Self {
        Self(id)
    }

    /// Reads it as [`Display`](fmt::Display) writes it; `None` when that is not what it is.
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

/// The name of a part in TempDir: `<instance>-<delivery>.<start>.part`, ASCII and short whatever the file is called.
///
/// The delivery, and not the version, so that two vessels of the settings may be one host.
pub fn part_name(instance: InstanceId, delivery: i64, start: u64) -> String {
    format!("{instance}-{delivery}.{start}.part")
}

/// The hidden name beside the destination under which a file is put together. With a random `token`, nobody who can write
/// there can put something in its place beforehand.
pub fn assembly_name(instance: InstanceId, delivery: i64, token: Option<u64>) -> String {
    match token {
        Some(token) => format!(".contentmonster-{instance}-{delivery}-{token:016x}.tmp"),
        None => format!(".contentmonster-{instance}-{delivery}.tmp"),
    }
}

/// The name of the empty file that is made and removed again in TempDir to see whose files we make there.
pub fn probe_name(instance: InstanceId) -> String {
    format!("{instance}.probe")
}

impl OurFile {
    /// Takes a name apart; `None` for whatever this shore did not name, down to the last character.
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
        let (delivery, start) = name.strip_prefix(&id)?.strip_prefix('-')?.strip_suffix(".part")?.split_once('.')?;
        let (delivery, start) = (delivery.parse().ok()?, start.parse().ok()?);
        // A number that is written another way ("+1", "01") is not a name that we gave.
        (part_name(instance, delivery, start) == name).then_some(Self::Part { delivery, start })
    }
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
        ] {
            assert_eq!(OurFile::parse(us, name.as_bytes()), None, "{name}");
        }
    }
}
