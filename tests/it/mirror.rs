//! Mirrors: sources stay, changes follow, deletions too where that is wished, with brakes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fleet::daemon::Daemon;
use crate::fleet::namespace::Mounts;
use crate::fleet::plan::FleetPlan;
use crate::fleet::tree::{differences, tree};
use crate::fleet::wait::{never_within, wait_until};
use crate::fleet::{Fleet, at_second, mode_and_mtime, names_in};

/// The plan of a mirror; further keys go into its section.
pub(crate) fn mirror() -> FleetPlan {
    Fleet::new().directory("in").key("Mode", "mirror")
}

fn recursive() -> FleetPlan {
    mirror().key("Recursive", "yes")
}

fn deleting() -> FleetPlan {
    recursive().key("Delete", "yes")
}

/// Waits until a vessel holds what the shore holds.
#[track_caller]
pub(crate) fn wait_until_equal(fleet: &Fleet, vessel: &str) {
    let (shore, there) = (fleet.path("shore/in"), fleet.vessel(vessel).path("in"));
    let mut last = Vec::new();
    let start = Instant::now();
    while start.elapsed() < crate::fleet::wait::DEADLINE {
        last = differences(&tree(&shore), &tree(&there));
        if last.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{vessel} differs from the shore:\n{}", last.join("\n"));
}

/// How many deliveries a daemon has acknowledged so far.
fn delivered(daemon: &Daemon) -> usize {
    daemon.log().iter().filter(|line| line.contains("delivered") && line.contains("verified")).count()
}

#[test]
fn a_mirror_keeps_its_sources_and_sends_what_changes() {
    let Some(fleet) = mirror().openssh("open").sftp_only("chroot").start() else { return };
    let daemon = fleet.run();
    fleet.put_as("a", b"one", 0o640, at_second(1_600_000_000));
    for bytes in [&b"one"[..], b"two and more"] {
        fleet.put_as("a", bytes, 0o640, at_second(1_600_000_000));
        ["open", "chroot"].into_iter().for_each(|vessel| fleet.wait_until_served(vessel, "a", bytes));
    }
    fs::set_permissions(fleet.source("a"), fs::Permissions::from_mode(0o600)).unwrap();
    ["open", "chroot"].into_iter().for_each(|vessel| wait_until_equal(&fleet, vessel));
    assert_eq!(mode_and_mtime(&fleet.vessel("open").path("in/a")), (0o600, 1_600_000_000));
    fs::remove_file(fleet.source("a")).unwrap();
    fleet.put("b", b"after");
    fleet.wait_until_served("open", "b", b"after");
    assert!(fleet.held("open", "a").is_some(), "deletions are not repeated without Delete");
    assert_eq!(names_in(&fleet.path("shore/in")), ["b"]);
    daemon.terminate();
    fleet.assert_tidy("open");
}

#[test]
fn a_restart_of_a_mirror_sends_and_hashes_nothing() {
    let Some(fleet) = recursive().openssh("open").start() else { return };
    fs::create_dir(fleet.source("d")).unwrap();
    (0..50).for_each(|n| fleet.put_as(format!("d/{n}"), b"bytes", 0o644, at_second(1_600_000_000)));
    assert_eq!(fleet.once().code, Some(0));
    let again = fleet.once();
    assert_eq!(again.code, Some(0));
    assert!(!again.says(&["verified"]), "{again:?}");
    wait_until_equal(&fleet, "open");
    fs::remove_file(fleet.vessel("open").path("in/d/7")).unwrap();
    let daemon = fleet.run();
    fleet.put("d/50", b"new");
    daemon.wait_for_log(&["delivered", "d/50"]);
    assert_eq!(delivered(&daemon), 1);
    daemon.terminate();
}

#[test]
fn directories_are_mirrored_with_their_modes_and_so_are_empty_ones() {
    let Some(fleet) = recursive().openssh("open").sftp_only("chroot").start() else { return };
    fs::create_dir_all(fleet.source("old/empty")).unwrap();
    fs::set_permissions(fleet.source("old/empty"), fs::Permissions::from_mode(0o711)).unwrap();
    let daemon = fleet.run();
    ["open", "chroot"].into_iter().for_each(|vessel| wait_until_equal(&fleet, vessel));
    // Written the moment its directory appears.
    fs::create_dir_all(fleet.source("new/deep/er")).unwrap();
    fs::write(fleet.source("new/deep/er/file"), b"quick").unwrap();
    fs::set_permissions(fleet.source("old"), fs::Permissions::from_mode(0o700)).unwrap();
    ["open", "chroot"].into_iter().for_each(|vessel| wait_until_equal(&fleet, vessel));
    fs::create_dir(fleet.path("elsewhere")).unwrap();
    fs::write(fleet.path("elsewhere/moved"), b"in").unwrap();
    fs::rename(fleet.path("elsewhere"), fleet.source("came")).unwrap();
    ["open", "chroot"].into_iter().for_each(|vessel| wait_until_equal(&fleet, vessel));
    fs::write(fleet.source("came/later"), b"watched there too").unwrap();
    ["open", "chroot"].into_iter().for_each(|vessel| wait_until_equal(&fleet, vessel));
    daemon.terminate();
}

#[test]
fn deleted_and_moved_trees_go_from_the_vessels_too() {
    let Some(fleet) = deleting().openssh("open").sftp_only("chroot").start() else { return };
    fs::create_dir_all(fleet.source("a/b/c")).unwrap();
    for name in ["keep", "a/1", "a/b/2", "a/b/c/3"] {
        fleet.put(name, name.as_bytes());
    }
    let daemon = fleet.run();
    let equal = || ["open", "chroot"].into_iter().for_each(|vessel| wait_until_equal(&fleet, vessel));
    equal();
    fs::rename(fleet.source("a/b"), fleet.source("moved")).unwrap();
    equal();
    fs::write(fleet.source("moved/c/4"), b"four").unwrap();
    fs::remove_dir_all(fleet.source("a")).unwrap();
    equal();
    fs::remove_dir_all(fleet.source("moved")).unwrap();
    equal();
    daemon.terminate();
    assert_eq!(names_in(&fleet.vessel("open").path("in")), ["keep"]);
}

#[test]
fn a_file_and_a_directory_take_each_others_place() {
    let Some(fleet) = deleting().openssh("open").start() else { return };
    fleet.put("keep", b"keep");
    fleet.put("thing", b"a file");
    let daemon = fleet.run();
    wait_until_equal(&fleet, "open");
    fs::remove_file(fleet.source("thing")).unwrap();
    fs::create_dir_all(fleet.source("thing/deep")).unwrap();
    fs::write(fleet.source("thing/deep/file"), b"below").unwrap();
    wait_until_equal(&fleet, "open");
    fs::remove_dir_all(fleet.source("thing")).unwrap();
    fleet.put("thing", b"a file again");
    wait_until_equal(&fleet, "open");
    daemon.terminate();
}

#[test]
fn only_what_was_delivered_and_was_not_changed_there_is_deleted() {
    let Some(fleet) = deleting().openssh("open").start() else { return };
    fs::create_dir_all(fleet.source("d")).unwrap();
    for name in ["keep", "changed", "plain", "d/ours"] {
        fleet.put(name, name.as_bytes());
    }
    let daemon = fleet.run();
    wait_until_equal(&fleet, "open");
    // The trees are equal before the deliveries are acknowledged. A file that is changed on the vessel before its last check
    // would be sent again.
    wait_until("all five to be acknowledged", || delivered(&daemon) >= 5);
    let there = |name: &str| fleet.vessel("open").path("in").join(name);
    fs::write(there("changed"), b"by somebody else").unwrap();
    fs::write(there("d/theirs"), b"by somebody else").unwrap();
    fs::write(there("theirs"), b"by somebody else").unwrap();
    for name in ["changed", "plain"] {
        fs::remove_file(fleet.source(name)).unwrap();
    }
    fs::remove_dir_all(fleet.source("d")).unwrap();
    wait_until("the deletions", || !there("plain").exists() && !there("d/ours").exists());
    daemon.wait_for_log(&["changed", "differs from the delivered version"]);
    daemon.wait_for_log(&["kept", "not empty"]);
    daemon.terminate();
    for name in ["changed", "theirs", "d/theirs"] {
        assert_eq!(fs::read(there(name)).unwrap(), b"by somebody else");
    }
}

#[test]
fn more_than_max_delete_is_deleted_only_with_a_persons_word() {
    let plan = deleting().key("MaxDelete", "5").key("RescanInterval", "1s");
    let Some(fleet) = plan.openssh("open").start() else { return };
    (0..10).for_each(|n| fleet.put(n.to_string(), b"bytes"));
    let daemon = fleet.run();
    wait_until_equal(&fleet, "open");
    (0..6).for_each(|n| fs::remove_file(fleet.source(n.to_string())).unwrap());
    let said = daemon.wait_for_log(&["nothing is deleted", "maxdelete"]);
    assert!(said.contains("--allow-deletes"), "{said}");
    never_within(Duration::from_secs(3), "deleted", || names_in(&fleet.vessel("open").path("in")).len() < 10);
    let said = daemon.log().iter().filter(|line| line.contains("nothing is deleted")).count();
    assert_eq!(said, 1, "it is said once");
    // As many as are allowed go.
    (0..3).for_each(|n| fleet.put_as(n.to_string(), b"bytes", 0o644, at_second(1_600_000_000)));
    wait_until_equal(&fleet, "open");
    (0..3).for_each(|n| fs::remove_file(fleet.source(n.to_string())).unwrap());
    daemon.wait_for_log(&["deleting 6 of", "exceeds MaxDelete"]);
    daemon.terminate();
    let allowed = fleet.call(&["--once", "--allow-deletes"], "");
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
    wait_until_equal(&fleet, "open");
}

#[test]
fn nothing_is_deleted_when_the_location_is_emptied_or_vanishes() {
    let plan = deleting().key("MaxDelete", "100%").key("RescanInterval", "1s");
    let Some(fleet) = plan.openssh("open").start() else { return };
    (0..3).for_each(|n| fleet.put(n.to_string(), b"bytes"));
    let daemon = fleet.run();
    wait_until_equal(&fleet, "open");
    (0..3).for_each(|n| fs::remove_file(fleet.source(n.to_string())).unwrap());
    daemon.wait_for_log(&["nothing is deleted", "empty"]);
    fs::remove_dir(fleet.path("shore/in")).unwrap();
    daemon.wait_for_log(&["can't list", "shore/in"]);
    fs::create_dir(fleet.path("shore/in")).unwrap();
    fleet.put("stranger", b"in another directory");
    daemon.wait_for_log(&["nothing is deleted", "was missing"]);
    fleet.wait_until_served("open", "stranger", b"in another directory");
    daemon.terminate();
    assert_eq!(names_in(&fleet.vessel("open").path("in")), ["0", "1", "2", "stranger"]);
    let ended = fleet.once();
    assert_eq!(names_in(&fleet.vessel("open").path("in")), ["stranger"], "a restart is a person's word: {ended:?}");
}

#[test]
fn nothing_is_deleted_when_the_location_is_unmounted() {
    let plan = deleting().key("MaxDelete", "100%").key("RescanInterval", "1s");
    let Some(fleet) = plan.openssh("open").start() else { return };
    let location = fleet.path("shore/in");
    let daemon = fleet.run_with(&Mounts::default().tmpfs("16m", &location));
    wait_until("the mount", || {
        daemon.seen(&location).metadata().is_ok_and(|seen| seen.dev() != location.metadata().unwrap().dev())
    });
    fs::create_dir(daemon.seen(&location).join("d")).unwrap();
    for name in ["a", "d/b"] {
        fs::write(daemon.seen(&location).join(name), name).unwrap();
        fleet.wait_until_served("open", name, name.as_bytes());
    }
    let pid = daemon.pid().to_string();
    let unmounted = Command::new("nsenter").args(["-t", &pid, "-m", "umount"]).arg(&location).status().unwrap();
    assert!(unmounted.success());
    daemon.wait_for_log(&["nothing is deleted", "empty"]);
    daemon.terminate();
    assert_eq!(names_in(&fleet.vessel("open").path("in")), ["a", "d"]);
    fleet.assert_equal("open", "d/b", b"d/b");
    // Nor after a start without it.
    let ended = fleet.once();
    ended.must_say(&["nothing is deleted", "empty"]);
    fleet.assert_equal("open", "a", b"a");
}

#[test]
fn a_directory_takes_the_place_of_the_link_that_was_delivered() {
    let Some(fleet) = deleting().key("Links", "copy").openssh("open").start() else { return };
    fs::create_dir(fleet.source("other")).unwrap();
    fleet.put("other/kept", b"kept");
    symlink("other", fleet.source("place")).unwrap();
    let daemon = fleet.run();
    wait_until_equal(&fleet, "open");
    fs::remove_file(fleet.source("place")).unwrap();
    fs::create_dir(fleet.source("place")).unwrap();
    fleet.put("place/below", b"not below other");
    wait_until_equal(&fleet, "open");
    daemon.terminate();
}

#[test]
fn nothing_is_deleted_when_nothing_of_what_was_there_is_left() {
    let Some(fleet) = deleting().key("MaxDelete", "100%").openssh("open").start() else { return };
    ["a", "b"].iter().for_each(|name| fleet.put(name, b"bytes"));
    assert_eq!(fleet.once().code, Some(0));
    ["a", "b"].iter().for_each(|name| fs::remove_file(fleet.source(name)).unwrap());
    // As what lies at a mount point below the disk.
    fleet.put("not-mounted.tmp", b"");
    fleet.once().must_say(&["nothing is deleted", "(2 in total) is missing"]);
    ["a", "b"].iter().for_each(|name| fleet.assert_equal("open", name, b"bytes"));
    let allowed = fleet.call(&["--once", "--allow-deletes"], "");
    assert_eq!((allowed.code, names_in(&fleet.vessel("open").path("in")).len()), (Some(0), 0), "{allowed:?}");
}

#[test]
fn what_is_left_alone_by_now_is_not_deleted_and_holds_nothing_up() {
    let Some(fleet) = deleting().openssh("open").start() else { return };
    ["file", "keeper"].iter().for_each(|name| fleet.put(name, b"bytes"));
    assert_eq!(fleet.once().code, Some(0));
    fs::remove_file(fleet.source("file")).unwrap();
    symlink("elsewhere", fleet.source("file")).unwrap();
    let again = fleet.once();
    assert_eq!(again.code, Some(0), "{again:?}");
    again.must_say(&["Skipped", "symbolic link"]);
    fleet.assert_equal("open", "file", b"bytes");
}

#[test]
fn a_file_that_became_a_skipped_link_is_deleted_once_the_link_is_gone_too() {
    let Some(fleet) = deleting().key("RescanInterval", "1s").openssh("open").start() else { return };
    fs::create_dir(fleet.source("d")).unwrap();
    ["file", "keeper", "d/below"].iter().for_each(|name| fleet.put(name, b"bytes"));
    let daemon = fleet.run();
    wait_until_equal(&fleet, "open");
    let there = |name: &str| fleet.vessel("open").path("in").join(name);
    fs::remove_file(fleet.source("file")).unwrap();
    fs::remove_dir_all(fleet.source("d")).unwrap();
    ["file", "d"].iter().for_each(|name| symlink("elsewhere", fleet.source(name)).unwrap());
    for name in ["file", "d"] {
        daemon.wait_for_log(&["Skipped", "symbolic link", name]);
    }
    wait_until("the deletion below", || !there("d/below").exists());
    assert!(there("file").exists() && there("d").exists());
    let why = fleet.call(&["why", "in/file"], "");
    assert!(why.stdout.contains("skipped"), "{why:?}");
    ["file", "d"].iter().for_each(|name| fs::remove_file(fleet.source(name)).unwrap());
    wait_until_equal(&fleet, "open");
    // And one that comes back is delivered.
    fleet.put("file", b"bytes");
    wait_until_equal(&fleet, "open");
    daemon.terminate();
}

#[test]
fn links_are_copied_as_links_with_their_time() {
    let Some(fleet) = deleting().key("Links", "copy").openssh("open").start() else { return };
    fleet.put("file", b"bytes");
    symlink("file", fleet.source("link")).unwrap();
    symlink("/nowhere/at all", fleet.source("dangling")).unwrap();
    let daemon = fleet.run();
    wait_until_equal(&fleet, "open");
    let time = |path: &Path| path.symlink_metadata().unwrap().mtime();
    assert_eq!(time(&fleet.source("link")), time(&fleet.vessel("open").path("in/link")));
    fs::remove_file(fleet.source("dangling")).unwrap();
    fs::remove_file(fleet.source("link")).unwrap();
    symlink("another", fleet.source("link")).unwrap();
    wait_until_equal(&fleet, "open");
    daemon.terminate();
}

#[test]
fn a_recursive_replica_retires_with_the_path_that_it_had() {
    let plan = Fleet::new().directory("in").key("Recursive", "yes").openssh("open").sftp_only("chroot");
    let Some(fleet) = plan.start() else { return };
    fs::create_dir_all(fleet.source("a/b")).unwrap();
    fleet.put("a/b/old", b"old");
    let daemon = fleet.run();
    fleet.wait_until_retired("a/b/old");
    fs::create_dir_all(fleet.source("new/er")).unwrap();
    fs::write(fleet.source("new/er/file"), b"quick").unwrap();
    fleet.wait_until_retired("new/er/file");
    for (name, bytes) in [("a/b/old", &b"old"[..]), ("new/er/file", b"quick")] {
        fleet.assert_equal("open", name, bytes);
        fleet.assert_equal("chroot", name, bytes);
    }
    daemon.terminate();
    assert!(!fleet.vessel("open").path("in/processed").exists());
}

/// How many files the large mirror has: `MIRROR_FILES`, or 4,000.
fn how_many() -> usize {
    std::env::var("MIRROR_FILES").ok().and_then(|files| files.parse().ok()).unwrap_or(4_000)
}

#[test]
fn a_large_mirror_restarts_quickly_and_sends_one_change_within_its_interval() {
    let Some(fleet) = recursive().key("Interval", "2s").openssh("open").start() else { return };
    for n in 0..how_many() {
        let directory = fleet.source(format!("d{}", n / 100));
        if n % 100 == 0 {
            fs::create_dir(&directory).unwrap();
        }
        fs::write(directory.join(n.to_string()), n.to_string()).unwrap();
    }
    let start = Instant::now();
    assert_eq!(fleet.once().code, Some(0));
    let first = start.elapsed();
    let start = Instant::now();
    let again = fleet.once();
    let restart = start.elapsed();
    assert_eq!(again.code, Some(0));
    assert!(!again.says(&["verified"]), "a restart sends nothing");
    let daemon = fleet.run();
    fleet.put("d0/first", b"first");
    fleet.wait_until_served("open", "d0/first", b"first");
    let start = Instant::now();
    fleet.put("d1/one more", b"one more");
    fleet.wait_until_served("open", "d1/one more", b"one more");
    let change = start.elapsed();
    println!("{} files: first {first:?}, restart {restart:?}, one change {change:?}", how_many());
    assert!(change < Duration::from_secs(2 + 1 + 5), "a busy machine gets 5 s more, but it took {change:?}");
    daemon.wait_for_log(&["delivered", "one more"]);
    assert_eq!(delivered(&daemon), 2);
    daemon.terminate();
    wait_until_equal(&fleet, "open");
}
