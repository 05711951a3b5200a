//! Delivered sources move to `processed/`: never over anything, across file systems too, and only what was delivered.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::fleet::namespace::Mounts;
use crate::fleet::wait::{wait_for, wait_until};
use crate::fleet::{Fleet, at_second, mode_and_mtime, names_in};

#[test]
fn what_lies_in_processed_is_never_overwritten() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    fs::create_dir(fleet.path("shore/in/processed")).unwrap();
    fs::write(fleet.retired("cargo.bin"), b"an older one").unwrap();
    let daemon = fleet.run();
    fleet.put("cargo.bin", b"a newer one");
    fleet.wait_until_served("open", "cargo.bin", b"a newer one");
    let names = wait_for("a second file in processed/", || {
        let names = names_in(&fleet.path("shore/in/processed"));
        (names.len() == 2 && !fleet.source("cargo.bin").exists()).then_some(names)
    });
    assert_eq!(fs::read(fleet.retired("cargo.bin")).unwrap(), b"an older one");
    let newer = names.iter().find(|name| *name != "cargo.bin").expect("there are two");
    assert!(newer.as_bytes().starts_with(b"cargo"), "{newer:?} is a name with a suffix");
    assert_eq!(fs::read(fleet.retired(newer)).unwrap(), b"a newer one");
    daemon.terminate();
}

#[test]
fn a_directory_where_a_file_belongs_is_named_with_what_to_do_in_processed_and_on_the_vessel() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    fs::create_dir_all(fleet.retired("report")).unwrap();
    fs::create_dir_all(fleet.vessel("open").path("in/blocked")).unwrap();
    fs::write(fleet.vessel("open").path("in/blocked/theirs"), "theirs").unwrap();
    let daemon = fleet.run();
    fleet.put("report", b"report");
    wait_until("the source to retire", || !fleet.source("report").exists());
    let words = ["processed/report is a directory", "report.1", "move that directory away"];
    daemon.wait_for_log(&words);
    assert_eq!(fs::read(fleet.retired("report.1")).unwrap(), b"report");
    let why = fleet.call(&["why", "in/report"], "");
    why.must_say(&words);
    assert_eq!(why.code, Some(0), "it is delivered: {why:?}");
    fleet.put("blocked", b"cargo");
    let words = ["in/blocked on the vessel: it is a directory", "rename or remove it on the vessel"];
    daemon.wait_for_log(&words);
    fleet.call(&["why", "in/blocked"], "").must_say(&words);
    fs::rename(fleet.vessel("open").path("in/blocked"), fleet.vessel("open").path("in/away")).unwrap();
    assert_eq!(fleet.call(&["retry", "in/blocked"], "").code, Some(0));
    fleet.wait_until_served("open", "blocked", b"cargo");
    daemon.terminate();
}

#[test]
fn a_name_that_comes_again_goes_through_again() {
    let Some(fleet) = Fleet::new().openssh("open").sftp_only("chroot").start() else { return };
    let daemon = fleet.run();
    for round in 0..3 {
        let bytes = format!("round {round}").into_bytes();
        fleet.put("cargo", &bytes);
        for vessel in ["open", "chroot"] {
            fleet.wait_until_served(vessel, "cargo", &bytes);
        }
        wait_until("the source to retire", || !fleet.source("cargo").exists());
        assert_eq!(names_in(&fleet.path("shore/in/processed")).len(), round + 1);
    }
    daemon.terminate();
}

#[test]
fn the_same_bytes_again_under_the_same_name_go_through_again() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let daemon = fleet.run();
    for _ in 0..2 {
        fleet.put("cargo", b"the same");
        fleet.wait_until_served("open", "cargo", b"the same");
        wait_until("the source to retire", || !fleet.source("cargo").exists());
        fs::remove_file(fleet.vessel("open").path("in/cargo")).unwrap();
    }
    daemon.terminate();
}

#[test]
fn processed_on_another_file_system_gets_the_whole_file_with_mode_and_time() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let processed = fleet.path("shore/in/processed");
    fs::create_dir(&processed).unwrap();
    let daemon = fleet.run_with(&Mounts::default().tmpfs("16m", &processed));
    fleet.put_as("cargo", b"cargo", 0o640, at_second(1_600_000_000));
    wait_until("the source to retire", || !fleet.source("cargo").exists());
    let retired = daemon.seen(&fleet.retired("cargo"));
    assert_eq!(fs::read(&retired).unwrap(), b"cargo");
    assert_eq!(mode_and_mtime(&retired), (0o640, 1_600_000_000));
    assert_eq!(names_in(&daemon.seen(&processed)), ["cargo"], "no temporary name is left");
    fleet.assert_equal("open", "cargo", b"cargo");
    daemon.terminate();
}

#[test]
fn a_processed_that_is_full_keeps_the_source_and_says_so() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let processed = fleet.path("shore/in/processed");
    fs::create_dir(&processed).unwrap();
    let daemon = fleet.run_with(&Mounts::default().tmpfs("64k", &processed));
    let bytes = vec![7; 1 << 20];
    fleet.put("cargo", &bytes);
    fleet.wait_until_served("open", "cargo", &bytes);
    println!("{}", daemon.wait_for_log(&["can't retire", "processed", "space"]));
    assert!(fs::read(fleet.source("cargo")).unwrap() == bytes);
    fleet.put("small", b"small");
    wait_until("the other source to retire", || !fleet.source("small").exists());
    daemon.terminate();
}

#[test]
fn a_directory_that_every_vessel_ignores_keeps_its_files() {
    let plan = Fleet::new().directory("in").directory("mine").openssh("open").key("IgnoreDirs", "mine");
    let Some(fleet) = plan.start() else { return };
    fs::write(fleet.path("shore/mine/note"), b"note").unwrap();
    let daemon = fleet.run();
    fleet.put("cargo", b"cargo");
    fleet.wait_until_retired("cargo");
    assert_eq!(fs::read(fleet.path("shore/mine/note")).unwrap(), b"note", "nobody has got it, so it stays");
    daemon.terminate();
}
