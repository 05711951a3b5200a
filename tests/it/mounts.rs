//! File systems below a mirror's location that are unmounted, covered or replaced: out of state is not deleted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};

use crate::fleet::clocked::SetClock;
use crate::fleet::daemon::Daemon;
use crate::fleet::namespace::Mounts;
use crate::fleet::plan::FleetPlan;
use crate::fleet::wait::{never_within, wait_until};
use crate::fleet::{Fleet, names_in};
use crate::mirror::mirror;

fn deleting() -> FleetPlan {
    with_links("skip")
}

fn with_links(links: &str) -> FleetPlan {
    let plan = mirror().key("Recursive", "yes").key("Delete", "yes").key("MaxDelete", "100%").key("Links", links);
    plan.key("RescanInterval", "1s").openssh("v")
}

/// A mirror with `keep` in it, and a directory `sub` to mount something on; beside it the directory `disk`.
fn stage(plan: FleetPlan) -> Option<(Fleet, PathBuf, PathBuf)> {
    let fleet = plan.start()?;
    let (sub, disk) = (fleet.source("sub"), fleet.path("disk"));
    fs::create_dir(&sub).unwrap();
    fs::create_dir(&disk).unwrap();
    fleet.put("keep", b"keep");
    Some((fleet, sub, disk))
}

/// Runs a command among the mounts that a daemon sees.
#[track_caller]
pub(crate) fn among_mounts_of(daemon: &Daemon, command: &[&str]) {
    let target = format!("--target={}", daemon.pid());
    let status = Command::new("nsenter").arg(target).args(["--mount", "--"]).args(command).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Unmounts, and sees that nothing below is deleted while something beside it is.
#[track_caller]
fn lose(fleet: &Fleet, daemon: &Daemon, at: &Path, below: &str) {
    fleet.put("beside", b"beside");
    fleet.wait_until_served("v", "beside", b"beside");
    fleet.wait_until_served("v", below, b"on the disk");
    among_mounts_of(daemon, &["umount", text(at)]);
    fs::remove_file(fleet.source("beside")).unwrap();
    daemon.wait_for_log(&["are not deleted on the vessels", "--allow-deletes"]);
    wait_until("the deletion beside it", || fleet.held("v", "beside").is_none());
    assert!(fleet.held("v", below).is_some(), "{below} was deleted");
}

#[test]
fn a_file_system_unmounted_below_a_mirror_deletes_nothing_until_it_is_back() {
    let Some((fleet, sub, disk)) = stage(deleting()) else { return };
    for name in ["a", "b"] {
        fs::write(disk.join(name), "on the disk").unwrap();
    }
    let daemon = fleet.run_with(&Mounts::default().bind(&disk, &sub));
    lose(&fleet, &daemon, &sub, "sub/a");
    fleet.call(&["status"], "").must_say(&["are not deleted on the vessels", "shore/in/sub"]);
    let why = fleet.call(&["why", "in/sub/a"], "");
    why.must_say(&["held back", "shore/in/sub", "--allow-deletes"]);
    assert!(!why.says(&["version", "delivered everywhere"]) && why.code == Some(1), "{why:?}");
    // Back again, it is no trouble any more, and what is deleted then is deleted.
    among_mounts_of(&daemon, &["mount", "--bind", text(&disk), text(&sub)]);
    daemon.wait_for_log(&["Resolved: ", "shore/in/sub"]);
    wait_until("status to be clear of it", || !fleet.call(&["status"], "").says(&["not deleted on the vessels"]));
    fs::remove_file(disk.join("a")).unwrap();
    wait_until("the deletion", || fleet.held("v", "sub/a").is_none());
    fleet.assert_equal("v", "sub/b", b"on the disk");
    daemon.terminate();
}

#[test]
fn a_start_without_the_file_system_deletes_nothing_but_with_a_persons_word() {
    let Some((fleet, sub, disk)) = stage(deleting()) else { return };
    fs::write(disk.join("a"), "on the disk").unwrap();
    let daemon = fleet.run_with(&Mounts::default().bind(&disk, &sub));
    fleet.wait_until_served("v", "sub/a", b"on the disk");
    daemon.terminate();
    let once = fleet.once();
    once.must_say(&["are not deleted on the vessels", "shore/in/sub"]);
    assert_eq!(once.code, Some(1), "{once:?}");
    fleet.assert_equal("v", "sub/a", b"on the disk");
    let allowed = fleet.call(&["--once", "--allow-deletes"], "");
    assert_eq!((allowed.code, fleet.held("v", "sub/a")), (Some(0), None), "{allowed:?}");
    // From then on it is as it should be.
    assert_eq!(fleet.once().code, Some(0));
}

/// Where the mount table can't be read, a deleted file looks like one of a disk that was unmounted.
#[test]
fn without_the_mount_table_nothing_is_deleted() {
    let Some((fleet, sub, nothing)) = stage(deleting()) else { return };
    fs::write(sub.join("a"), "deleted later").unwrap();
    assert_eq!(fleet.once().code, Some(0));
    fs::remove_file(sub.join("a")).unwrap();
    let daemon = fleet.run_with(&Mounts::default().bind(&nothing, Path::new("/proc")));
    daemon.wait_for_log(&["nothing is deleted on the vessels", "mountinfo", "--allow-deletes"]);
    fleet.assert_equal("v", "sub/a", b"deleted later");
    daemon.terminate();
    assert_eq!((fleet.once().code, fleet.held("v", "sub/a")), (Some(0), None));
}

/// The files of the disk were found, and when the mounts are looked at, it is not mounted any more.
#[test]
fn a_file_system_unmounted_during_a_scan_deletes_nothing() {
    let Some((fleet, sub, disk)) = stage(deleting()) else { return };
    // So many that the scan, which has the directory open, goes on after it is unmounted.
    for number in 0..3000 {
        fs::write(disk.join(number.to_string()), "").unwrap();
    }
    let mounts = fleet.keep_mounts(&Mounts::default().bind(&disk, &sub));
    wait_until("the mount", || mounts.seen(&sub).join("0").exists());
    let clock = SetClock::new(fleet.path("clock"));
    let daemon = fleet.run_clocked(&mounts, &clock);
    wait_until("the files", || fs::read_dir(fleet.vessel("v").path("in/sub")).is_ok_and(|held| held.count() == 3000));
    daemon.terminate();
    let (opened, is_opened) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |_| {
        let _ = opened.send(());
    })
    .unwrap();
    watcher.watch(&disk, RecursiveMode::NonRecursive).unwrap();
    let daemon = fleet.run_clocked(&mounts, &clock);
    is_opened.recv_timeout(Duration::from_secs(60)).expect("the scan");
    among_mounts_of(&mounts, &["umount", "-l", text(&sub)]);
    daemon.wait_for_log(&["are not deleted on the vessels", "shore/in/sub"]);
    fleet.assert_equal("v", "sub/0", b"");
    daemon.terminate();
}

#[test]
fn what_is_hidden_by_a_mount_is_not_deleted_nor_when_an_empty_disk_takes_the_place_of_another() {
    let Some((fleet, sub, _)) = stage(deleting()) else { return };
    fleet.put("sub/a", b"on the disk");
    let daemon = fleet.run();
    fleet.wait_until_served("v", "sub/a", b"on the disk");
    let mount = ["mount", "-t", "tmpfs", "tmpfs", text(&sub)];
    among_mounts_of(&daemon, &mount);
    daemon.wait_for_log(&["are not deleted on the vessels", "shore/in/sub", "tmpfs"]);
    fs::write(daemon.seen(&sub).join("a"), "on the disk").unwrap();
    daemon.wait_for_log(&["Resolved: ", "shore/in/sub"]);
    // The next one is called the same, and is another.
    among_mounts_of(&daemon, &["umount", text(&sub)]);
    fs::remove_file(sub.join("a")).unwrap();
    among_mounts_of(&daemon, &mount);
    wait_until("it to be said again", || {
        daemon.log().iter().filter(|line| line.contains("are not deleted on the vessels")).count() > 1
    });
    never_within(Duration::from_secs(2), "a deletion", || fleet.held("v", "sub/a").is_none());
    daemon.terminate();
}

#[test]
fn a_followed_link_to_a_disk_that_is_not_mounted_deletes_nothing() {
    let Some((fleet, _, disk)) = stage(with_links("follow")) else { return };
    let backing = fleet.path("backing");
    fs::create_dir_all(backing.join("deep")).unwrap();
    fs::write(backing.join("a"), "on the disk").unwrap();
    fs::write(backing.join("deep/b"), "deep").unwrap();
    symlink(&disk, fleet.source("whole")).unwrap();
    symlink(disk.join("deep"), fleet.source("part")).unwrap();
    let daemon = fleet.run_with(&Mounts::default().bind(&backing, &disk));
    fleet.wait_until_served("v", "part/b", b"deep");
    lose(&fleet, &daemon, &disk, "whole/a");
    never_within(Duration::from_secs(2), "a deletion", || fleet.held("v", "part/b").is_none());
    // A link that leads to another place of the same disk is a change like any other.
    among_mounts_of(&daemon, &["mount", "--bind", text(&backing), text(&disk)]);
    daemon.wait_for_log(&["Resolved: "]);
    fs::create_dir(backing.join("other")).unwrap();
    symlink(disk.join("other"), fleet.path("link")).unwrap();
    fs::rename(fleet.path("link"), fleet.source("part")).unwrap();
    wait_until("the deletion", || fleet.held("v", "part/b").is_none());
    daemon.terminate();
}

#[test]
fn a_single_file_that_was_mounted_is_not_deleted_with_its_mount() {
    let Some((fleet, sub, disk)) = stage(deleting()) else { return };
    fs::write(disk.join("f"), "on the disk").unwrap();
    fs::write(sub.join("f"), "").unwrap();
    let daemon = fleet.run_with(&Mounts::default().bind(&disk.join("f"), &sub.join("f")));
    fleet.wait_until_served("v", "sub/f", b"on the disk");
    among_mounts_of(&daemon, &["sh", "-c", &format!("umount '{0}' && rm '{0}'", text(&sub.join("f")))]);
    daemon.wait_for_log(&["are not deleted on the vessels", "sub/f"]);
    assert_eq!(names_in(&fleet.vessel("v").path("in/sub")), ["f"]);
    daemon.terminate();
}
