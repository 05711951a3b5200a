//! Names of our own files on a vessel, and how to recognize them (promise P7).

use std::fmt;

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
    /// The assembly of a file, in its destination directory.
    Assembly {
        /// The ledger's number of the delivery.
        delivery: i64,
    },
    /// An empty, short-lived file that shows which owner our files get in TempDir.
    Probe,
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

/// Returns the name of a part in TempDir: `<instance>-<delivery>.<start>.part`, ASCII and short whatever the file's
/// name.
///
/// Contains the number of the delivery and not of the version, because two vessels in the settings may be one host.
pub fn part_name(instance: InstanceId, delivery: i64, start: u64) -> String {
    format!("{instance}-{delivery}.{start}.part")
}

/// Returns the hidden name of an assembly in its destination directory. With a random `token`, nobody who can write
/// there can create the name in advance.
pub fn assembly_name(instance: InstanceId, delivery: i64, token: Option<u64>) -> String {
    match token {
        Some(token) => format!(".contentmonster-{instance}-{delivery}-{token:016x}.tmp"),
        None => format!(".contentmonster-{instance}-{delivery}.tmp"),
    }
}

/// Returns the name of the empty file that is created and removed in TempDir to see which owner our files get there.
pub fn probe_name(instance: InstanceId) -> String {
    format!("{instance}.probe")
}

impl OurFile {
    /// Parses a name; `None` for any name that this shore does not create in exactly this form.
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
        // Numbers in another form ("+1", "01") parse too, but names with them were not created here.
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
