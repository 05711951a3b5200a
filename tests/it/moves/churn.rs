//! Files and directories are moved again and again, the program is killed and the links are cut: the trees are equal in the end.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rstest::rstest;

use super::{local_mirror, receipts};
use crate::churn::{Churn, GIVE_UP, how_long};
use crate::fleet::Fleet;
use crate::fleet::plan::Kind;
use crate::fleet::tree::{differences, tree};
use crate::fleet::wait::wait_until;
use crate::mirror::{mirror, wait_until_equal};

#[rstest]
fn after_churn_with_moves_and_kills_the_trees_are_equal(
    #[values(1, 2, 3)] seed: u64,
    #[values(Kind::OpenSsh, Kind::Dropbear, Kind::SftpOnly)] kind: Kind,
) {
    let plan = mirror().key("Recursive", "yes").key("Delete", "yes").key("MaxDelete", "1000000");
    let Some(fleet) = plan.key("RescanInterval", "2s").vessel("tern", kind).proxied().start() else { return };
    moves_and_kills(&fleet, seed, &fleet.vessel("tern").path("in"), || fleet.vessel("tern").link().cut());
}

#[rstest]
fn after_churn_with_moves_and_kills_a_local_target_is_equal(#[values(1, 2, 3)] seed: u64) {
    let Some(fleet) = local_mirror("MaxDelete = 1000000\nRescanInterval = 2s") else { return };
    moves_and_kills(&fleet, seed, &fleet.path("disk/in"), || ());
}

fn moves_and_kills(fleet: &Fleet, seed: u64, there: &Path, cut: impl Fn()) {
    fleet.put("keeper", b"so that it is never empty");
    let mut daemon = fleet.run();
    let mut churn = Churn::new(fleet.path("shore/in"), seed);
    let start = Instant::now();
    let (mut kills, mut cuts) = (0, 0);
    while start.elapsed() < how_long() {
        match churn.random.u8(..100) {
            0..40 => churn.change(),
            40..80 => churn.move_file(),
            80..97 => churn.move_directory(),
            97 => {
                cut();
                cuts += 1;
            }
            _ => {
                daemon.kill9();
                daemon = fleet.run();
                kills += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(churn.random.u64(..15)));
    }
    let stopped = Instant::now();
    loop {
        let different = differences(&tree(&fleet.path("shore/in")), &tree(there));
        if different.is_empty() {
            break;
        }
        assert!(stopped.elapsed() < GIVE_UP, "still different:\n{}", different.join("\n"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let moved = receipts(fleet).lines().filter(|line| line.contains("moved on the vessel")).count();
    println!("seed {seed}: {kills} kills, {cuts} cuts, {moved} moved, equal after {:?}", stopped.elapsed());
    daemon.terminate();
}

/// A directory was deleted, and a delivery below it, whose deletion is recorded later, creates it again.
#[test]
fn a_directory_that_a_late_delivery_creates_again_is_deleted() {
    let plan = mirror().key("Recursive", "yes").key("Delete", "yes").key("MaxDelete", "1").key("RescanInterval", "1s");
    let Some(fleet) = plan.openssh("tern").start() else { return };
    fs::create_dir_all(fleet.source("d/e")).unwrap();
    for name in ["one", "two", "d/three", "d/e/four"] {
        fleet.put(name, name.as_bytes());
    }
    let daemon = fleet.run();
    wait_until_equal(&fleet, "tern");
    // A file takes the place of the directory. The deletions below it are held back.
    fs::remove_dir_all(fleet.source("d")).unwrap();
    fleet.put("d", b"file");
    daemon.wait_for_log(&["nothing is deleted", "maxdelete"]);
    let there = |name: &str| fleet.vessel("tern").path("in").join(name);
    fs::remove_dir_all(there("d")).unwrap();
    wait_until("the file", || there("d").is_file());
    // A move is no deletion, so the directory is neither there nor in the ledger now.
    fs::rename(fleet.source("d"), fleet.source("f")).unwrap();
    wait_until("the move", || there("f").exists() && !there("d").exists());
    fleet.call(&["resend", "in/d/e"], "").must_say(&["sending in/d/e"]);
    wait_until("the directory", || there("d/e").exists());
    daemon.terminate();
    assert_eq!(fleet.call(&["--once", "--allow-deletes"], "").code, Some(0));
    wait_until_equal(&fleet, "tern");
}
