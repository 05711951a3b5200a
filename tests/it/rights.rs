//! Nobody gains a right by what is copied, kept or written: modes of copies, and of the program's own files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fleet::plan::FleetPlan;
use crate::fleet::wait::wait_until;
use crate::fleet::{Fleet, at_second};

fn mode(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).ok().map(|meta| meta.mode() & 0o7777)
}

/// A shore with an OpenSSH server and a directory on this host as its vessels.
fn shore(plan: FleetPlan, directory: &str) -> Option<(Fleet, [PathBuf; 2])> {
    let fleet = plan.openssh("ssh").start()?;
    let local = fleet.path("disk/in");
    fs::create_dir_all(&local).unwrap();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let place = format!("RemoteLocation.in = {}", local.display());
    fleet.write_settings(&format!(
        "{}\n[Vessel disk]\nAddress = localhost\nTransport = local\n{place}\n",
        text.replace("[Directory in]\n", &format!("[Directory in]\n{directory}\n"))
    ));
    let there = fleet.vessel("ssh").path("in");
    Some((fleet, [there, local]))
}

fn make(path: &Path, owner: u32, mode: u32, is_directory: bool) {
    if is_directory {
        fs::create_dir(path).unwrap()
    } else {
        fs::write(path, "#!/bin/sh\n").unwrap()
    }
    chown(path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_users_setuid_file_is_no_setuid_file_on_any_vessel() {
    let Some((fleet, places)) = shore(Fleet::new(), "") else { return };
    make(&fleet.source("tool"), 12_345, 0o6755, false);
    make(&fleet.source("odd"), 12_345, 0o1644, false);
    let daemon = fleet.run();
    ["tool", "odd"].into_iter().for_each(|name| fleet.wait_until_retired(name));
    daemon.terminate();
    for place in &places {
        assert_eq!((mode(&place.join("tool")), mode(&place.join("odd"))), (Some(0o755), Some(0o644)), "{place:?}");
    }
}

#[test]
fn directories_of_a_mirror_keep_their_sticky_bit_and_no_other() {
    let Some((fleet, places)) = shore(Fleet::new(), "Mode = mirror\nRecursive = yes") else { return };
    make(&fleet.source("shared"), 12_345, 0o3777, true);
    make(&fleet.source("shared/tool"), 12_345, 0o4711, false);
    let daemon = fleet.run();
    for place in &places {
        wait_until("the directory", || mode(&place.join("shared")) == Some(0o1777));
        wait_until("the file", || mode(&place.join("shared/tool")) == Some(0o711));
    }
    daemon.terminate();
}

#[test]
fn special_bits_travel_with_the_owner_where_the_owner_travels() {
    let Some((fleet, places)) = shore(Fleet::new(), "Mode = mirror\nRecursive = yes\nOwner = yes") else { return };
    make(&fleet.source("tool"), 12_345, 0o6755, false);
    let daemon = fleet.run();
    for place in &places {
        wait_until("the file", || mode(&place.join("tool")) == Some(0o6755));
        assert_eq!(fs::metadata(place.join("tool")).unwrap().uid(), 12_345);
    }
    daemon.terminate();
}

#[test]
fn a_copy_in_processed_on_another_disk_lends_nobody_its_owners_rights() {
    let Some(fleet) = Fleet::new().openssh("v").start() else { return };
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), fleet.source("processed")).unwrap();
    make(&fleet.source("tool"), 12_345, 0o6755, false);
    let daemon = fleet.run();
    wait_until("the copy", || elsewhere.path().join("tool").exists() && !fleet.source("tool").exists());
    daemon.terminate();
    assert_eq!(mode(&elsewhere.path().join("tool")), Some(0o755));
}

#[test]
fn ledger_lock_and_log_are_ours_alone_whatever_the_umask() {
    let Some(fleet) = Fleet::new().openssh("v").start() else { return };
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let (ledger, log) = (fleet.path("own/ledger.db"), fleet.path("own/log"));
    fs::create_dir(fleet.path("own")).unwrap();
    let own = format!("[MONSTER]\nDatabase = {}\nLogFile = {}\n", ledger.display(), log.display());
    let kept: Vec<_> =
        text.lines().filter(|line| !line.starts_with("Database") && !line.starts_with("LogFile")).collect();
    fleet.write_settings(&kept.join("\n").replace("[MONSTER]\n", &own));
    fleet.put_as("file", b"cargo", 0o644, at_second(1_600_000_000));
    let ended = Command::new("sh")
        .args(["-c", "umask 0; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_contentmonster"), "--settings"])
        .arg(fleet.settings())
        .arg("--once")
        .env("HOME", fleet.path("home"))
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let made: Vec<_> = fs::read_dir(fleet.path("own")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(made.contains(&ledger) && made.contains(&log), "{made:?}");
    for path in made.iter().filter(|path| !path.is_dir()) {
        assert_eq!(mode(path), Some(0o600), "{path:?}");
    }
}
