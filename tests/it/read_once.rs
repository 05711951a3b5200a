//! A source is read once, however many vessels take it.

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};

/// Delivers a file to all vessels and says how many bytes were read of it for that after intake, by the log.
fn bytes_read(fleet: &Fleet, name: &str, size: usize, vessels: &[&str]) -> u64 {
    let bytes = content(21, size);
    fleet.put(name, &bytes);
    let daemon = fleet.run_logging("contentmonster=debug");
    fleet.wait_until_retired(name);
    vessels.iter().for_each(|vessel| fleet.assert_equal(vessel, name, &bytes));
    daemon.wait_for_log(&["Source closed", name]);
    let log = daemon.log();
    daemon.terminate();
    let closed = log.iter().filter(|line| line.contains("Source closed"));
    let read = closed.filter_map(|line| line.split("read_in_all=").nth(1)?.split_whitespace().next()?.parse().ok());
    read.max().expect("a closed source says how much of it was read")
}

#[test]
fn a_large_file_is_read_once_for_three_vessels_and_its_hash() {
    // At one pace: on a busy machine, one of three servers may stand still for as long as the whole file takes another.
    let plan = Fleet::new().monster("Cache", "32 MiB").openssh("a").key("RateLimit", "24 MiB/s");
    let plan = plan.openssh("b").key("RateLimit", "24 MiB/s").openssh("c").key("RateLimit", "24 MiB/s");
    let Some(fleet) = plan.start() else { return };
    let size = 64 * MIB;
    let read = bytes_read(&fleet, "big", size, &["a", "b", "c"]);
    println!("{read} bytes were read of {size}");
    assert!(read >= size as u64 && (read as f64) < 1.1 * size as f64, "{read} bytes were read of {size}");
}

#[test]
fn what_intake_read_of_a_small_file_is_not_read_again() {
    let Some(fleet) = Fleet::new().openssh("a").sftp_only("b").start() else { return };
    assert_eq!(bytes_read(&fleet, "small", MIB + 1, &["a", "b"]), 0);
}
