//! How a copy is verified, and what that costs on the link.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use contentmonster::digest::Digest;
use contentmonster::embedded_vessel::{CheckFile, Faults, InjectedFault, Quirks, Request};

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::embedded::Manners;
use crate::fleet::plan::FleetPlan;

const READ: u8 = 5;
const WRITE: u8 = 6;
const RENAME: &[u8] = b"posix-rename@openssh.com";

/// Counts the bytes that are read, damages one write if asked to, and cuts the connection after the first rename if
/// asked to.
#[derive(Debug, Default)]
struct Watch {
    read: AtomicU64,
    damage: AtomicBool,
    cut: AtomicBool,
}

impl Watch {
    fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

impl Faults for Watch {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        match request {
            Request::Packet(packet @ [READ, ..]) => {
                let length = packet.last_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
                self.read.fetch_add(length.into(), Ordering::Relaxed);
            }
            Request::Packet(packet @ [WRITE, .., last]) if self.damage.swap(false, Ordering::Relaxed) => {
                let mut damaged = packet.to_vec();
                *damaged.last_mut().expect("it has a last byte") = last ^ 1;
                return InjectedFault::Change(Bytes::from(damaged));
            }
            Request::Packet(packet)
                if packet.windows(RENAME.len()).any(|words| words == RENAME)
                    && self.cut.swap(false, Ordering::Relaxed) =>
            {
                return InjectedFault::CutAfter;
            }
            _ => {}
        }
        InjectedFault::Serve
    }
}

fn embedded(plan: FleetPlan, watch: &Arc<Watch>, check_file: Option<CheckFile>) -> FleetPlan {
    let quirks = Quirks { check_file, ..Quirks::default() };
    plan.embedded("vessel", Manners { faults: watch.clone(), quirks, shell: false, rooted: false }).proxied()
}

/// How a content was verified, as its receipt says.
#[track_caller]
fn verified(fleet: &Fleet, bytes: &[u8]) -> String {
    let digest = Digest::of(bytes).to_string();
    let receipts = fleet.call(&["receipts", "--json"], "").stdout;
    let lines = receipts.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let receipt = lines.into_iter().find(|line| line["sha256"] == digest.as_str()).expect("it has a receipt");
    receipt["verified"].as_str().unwrap().to_owned()
}

/// Delivers a file and gives the words of its receipt.
#[track_caller]
fn deliver(fleet: &Fleet, name: &str, bytes: &[u8]) -> String {
    fleet.put(name, bytes);
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    fleet.assert_equal("vessel", name, bytes);
    let verified = verified(fleet, bytes);
    assert!(ended.stderr.contains(&verified), "the log says {verified}: {}", ended.stderr);
    verified
}

#[test]
fn proftpd_hashes_small_and_large_files_itself() {
    let Some(fleet) = Fleet::new().proftpd("vessel").proxied().start() else { return };
    let link = fleet.vessel("vessel").link();
    for (name, size) in [("small", 3_000), ("large", 30 * MIB), ("larger", 40 * MIB)] {
        assert_eq!(deliver(&fleet, name, &content(size as u64, size)), "hashed on the vessel", "{name}");
    }
    assert!(link.received() < MIB as u64, "{} bytes came from the vessel", link.received());
    let checked = fleet.call(&["check"], "").stdout;
    assert!(checked.contains("hash: yes, by check-file"), "{checked}");
}

#[test]
fn a_damaged_chunk_is_found_by_the_hashes_of_the_vessel() {
    let watch = Arc::new(Watch::default());
    let plan = embedded(Fleet::new().monster("ChunkSize", "256 KiB"), &watch, Some(CheckFile::Right));
    let Some(fleet) = plan.start() else { return };
    watch.damage.store(true, Ordering::Relaxed);
    assert_eq!(deliver(&fleet, "large", &content(1, 3 * MIB)), "hashed on the vessel");
    assert!(!watch.damage.load(Ordering::Relaxed), "a write was damaged");
    assert!(watch.read() < 64 << 10, "{} bytes were read back", watch.read());
    let sent = fleet.vessel("vessel").link().sent();
    assert!(sent < 4 * MIB as u64, "only the bad chunk is sent again, not {sent} bytes");
}

#[test]
fn a_damaged_chunk_is_found_by_read_back_where_the_vessel_hashes_no_ranges() {
    let watch = Arc::new(Watch::default());
    let plan = embedded(Fleet::new().monster("ChunkSize", "256 KiB"), &watch, Some(CheckFile::ToTheEnd));
    let Some(fleet) = plan.start() else { return };
    watch.damage.store(true, Ordering::Relaxed);
    assert_eq!(deliver(&fleet, "large", &content(1, 3 * MIB)), "hashed on the vessel");
    assert!(!watch.damage.load(Ordering::Relaxed), "a write was damaged");
    assert!((3 * MIB as u64..4 * MIB as u64).contains(&watch.read()), "{} bytes were read back", watch.read());
}

#[test]
fn a_vessel_that_hashes_wrongly_is_read_back() {
    for how in [CheckFile::WrongHash, CheckFile::WrongAlgorithm, CheckFile::ShortHash, CheckFile::Fails] {
        let watch = Arc::new(Watch::default());
        let plan = embedded(Fleet::new().monster("ChunkSize", "256 KiB"), &watch, Some(how));
        let Some(fleet) = plan.start() else { return };
        for (name, size) in [("small", 3_000), ("large", MIB)] {
            assert_eq!(deliver(&fleet, name, &content(size as u64, size)), "read back", "{how:?}, {name}");
        }
        let checked = fleet.call(&["check"], "").stdout;
        assert!(checked.contains("hash: no; files are read back and hashed on the shore (check-file"), "{checked}");
    }
}

#[test]
fn where_only_the_size_is_compared_nothing_is_read_back() {
    let watch = Arc::new(Watch::default());
    let Some(fleet) = embedded(Fleet::new(), &watch, None).key("Verify", "size").start() else { return };
    for (name, size) in [("small", 3_000), ("large", 12 * MIB)] {
        assert_eq!(deliver(&fleet, name, &content(size as u64, size)), "size only", "{name}");
    }
    assert_eq!(watch.read(), 0);
    let why = fleet.call(&["why", "large"], "").stdout;
    assert!(why.contains("size only"), "{why}");
    let checked = fleet.call(&["check"], "").stdout;
    assert!(checked.contains("hash: no; only the size is compared, because of `Verify = size`"), "{checked}");
}

#[test]
fn where_only_the_size_is_compared_a_lost_answer_to_the_rename_costs_no_second_upload() {
    let watch = Arc::new(Watch::default());
    let Some(fleet) = embedded(Fleet::new(), &watch, None).key("Verify", "size").start() else { return };
    watch.cut.store(true, Ordering::Relaxed);
    assert_eq!(deliver(&fleet, "large", &content(1, 3 * MIB)), "size only");
    assert!(!watch.cut.load(Ordering::Relaxed), "the connection was cut");
    assert_eq!(watch.read(), 0);
    let sent = fleet.vessel("vessel").link().sent();
    assert!(sent < 4 * MIB as u64, "{sent} bytes were sent");
}

#[test]
fn a_vessel_that_can_hash_does_so_though_the_size_would_suffice() {
    let Some(fleet) = Fleet::new().openssh("vessel").key("Verify", "size").start() else { return };
    assert_eq!(deliver(&fleet, "large", &content(1, 12 * MIB)), "hashed on the vessel");
    let watch = Arc::new(Watch::default());
    let plan = embedded(Fleet::new(), &watch, Some(CheckFile::Right)).key("Verify", "size");
    let Some(fleet) = plan.start() else { return };
    watch.damage.store(true, Ordering::Relaxed);
    assert_eq!(deliver(&fleet, "large", &content(1, 12 * MIB)), "hashed on the vessel");
}

#[test]
fn a_vessel_whose_programs_are_not_trusted_is_read_back_though_it_has_a_shell() {
    let Some(fleet) = Fleet::new().openssh("vessel").proxied().key("Verify", "read-back").start() else { return };
    for (name, size) in [("small", 3_000), ("large", 12 * MIB)] {
        assert_eq!(deliver(&fleet, name, &content(size as u64, size)), "read back", "{name}");
    }
    let received = fleet.vessel("vessel").link().received();
    assert!(received > 12 * MIB as u64, "{received} bytes came from the vessel");
    let checked = fleet.call(&["check"], "").stdout;
    assert!(checked.contains("hash: no; files are read back because of `Verify = read-back`"), "{checked}");
}
