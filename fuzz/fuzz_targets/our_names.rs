//! A name that is taken for ours is ours to the letter: made again from what was read in it, it is the same.

#![no_main]

use contentmonster::names::{InstanceId, OurFile, assembly_name, compressed_name, part_name, probe_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (id, name) = input;
    let instance = InstanceId::new(id);
    let made = match OurFile::parse(instance, name) {
        Some(OurFile::Part { delivery, start }) => part_name(instance, delivery, start),
        Some(OurFile::Compressed { delivery, stream }) => compressed_name(instance, delivery, stream),
        Some(OurFile::Assembly { delivery }) => {
            let bare = assembly_name(instance, delivery, None);
            if bare.as_bytes() == name { bare } else { assembly_name(instance, delivery, token(name)) }
        }
        Some(OurFile::Probe) => probe_name(instance),
        None => return,
    };
    assert_eq!(made.as_bytes(), name);
    assert!(OurFile::parse(InstanceId::new(id ^ 1), name).is_none(), "another shore takes it for its own");
});

/// Returns the random part of an assembly's name: the 16 digits before `.tmp`.
fn token(name: &[u8]) -> Option<u64> {
    let at = name.len().checked_sub(20)?;
    u64::from_str_radix(std::str::from_utf8(&name[at..at + 16]).ok()?, 16).ok()
}
