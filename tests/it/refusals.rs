//! What goes wrong is said in one line that names the place and the cure; all others go on, and nothing is lost.

use std::fs;

use crate::fleet::content::{MIB, content};
use crate::fleet::plan::FleetPlan;
use crate::fleet::vessel::PASSWORD;
use crate::fleet::wait::wait_until;
use crate::fleet::{Fleet, names_in};

/// Runs a fleet in which `bad` refuses and `good` does not: `good` is served, one line of the log holds all the words,
/// and the source stays.
#[track_caller]
fn refused(plan: FleetPlan, bytes: &[u8], words: &[&str]) {
    let Some(fleet) = plan.openssh("good").start() else { return };
    refused_in(&fleet, bytes, words);
}

#[track_caller]
fn refused_in(fleet: &Fleet, bytes: &[u8], words: &[&str]) {
    fleet.put("cargo", bytes);
    let daemon = fleet.run();
    fleet.wait_until_served("good", "cargo", bytes);
    let line = daemon.wait_for_log(words);
    println!("{line}");
    assert!(fleet.source("cargo").exists() && !fleet.retired("cargo").exists(), "the source waits");
    assert!(fleet.held("bad", "cargo").is_none());
    daemon.terminate();
}

#[test]
fn a_wrong_password_is_named_and_never_shown() {
    let plan = Fleet::new().openssh("bad").without_key().key("Password", "hunter2hunter2").openssh("good");
    let Some(fleet) = plan.start() else { return };
    fleet.put("cargo", b"cargo");
    let daemon = fleet.run();
    fleet.wait_until_served("good", "cargo", b"cargo");
    println!("{}", daemon.wait_for_log(&["bad", "password"]));
    assert!(daemon.logged(&["hunter2"]).is_none(), "a secret in the log");
    assert!(fleet.source("cargo").exists());
    daemon.terminate();
    let checked = fleet.call(&["check"], "");
    assert_ne!(checked.code, Some(0));
    assert!(!checked.says(&["hunter2"]), "a secret on the screen: {checked:?}");
}

#[test]
fn the_right_password_opens_both_kinds_of_server() {
    let plan = Fleet::new().openssh("open").without_key().key("Password", PASSWORD);
    let plan = plan.dropbear("drop").without_key().key("PasswordFile", "secret");
    let Some(fleet) = plan.start() else { return };
    fs::write(fleet.path("secret"), format!("{PASSWORD}\n")).unwrap();
    fs::set_permissions(fleet.path("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fleet.put("cargo", b"cargo");
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    ["open", "drop"].into_iter().for_each(|vessel| fleet.assert_equal(vessel, "cargo", b"cargo"));
}

#[test]
fn an_unknown_host_key_is_refused_with_the_command_that_mends_it() {
    refused(Fleet::new().openssh("bad").unknown(), b"cargo", &["bad", "host key", "contentmonster", "trust bad"]);
}

#[test]
fn a_changed_host_key_is_refused_with_the_way_to_mend_it() {
    let Some(fleet) = Fleet::new().openssh("bad").openssh("good").start() else { return };
    fleet.vessel("bad").stop();
    fleet.vessel("bad").change_host_key();
    fleet.vessel("bad").start();
    refused_in(&fleet, b"cargo", &["bad", "host key", "has another", "known_hosts:1"]);
}

#[test]
fn a_pinned_host_key_is_taken_and_any_other_refused() {
    let Some(fleet) = Fleet::new().openssh("bad").unknown().openssh("good").unknown().start() else { return };
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let pin = format!("HostKey = {}", fleet.vessel("good").fingerprint());
    let text = text.replace("[Vessel good]", &format!("[Vessel good]\n{pin}"));
    fleet.write_settings(&text.replace("[Vessel bad]", &format!("[Vessel bad]\n{pin}")));
    refused_in(&fleet, b"cargo", &["bad", "HostKey"]);
}

#[test]
fn accept_new_takes_a_first_key_but_never_a_changed_one() {
    let plan = Fleet::new().openssh("bad").unknown().key("HostKeyPolicy", "accept-new").openssh("good");
    let Some(fleet) = plan.start() else { return };
    fleet.put("first", b"first");
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    fleet.vessel("bad").stop();
    fleet.vessel("bad").change_host_key();
    fleet.vessel("bad").start();
    refused_in(&fleet, b"cargo", &["bad", "host key", "has another"]);
}

#[test]
fn a_read_only_destination_is_named() {
    refused(Fleet::new().openssh("bad").read_only("in"), b"cargo", &["bad", "shore/in"]);
}

#[test]
fn a_read_only_destination_is_named_without_a_shell_too() {
    refused(Fleet::new().sftp_only("bad").read_only("in"), b"cargo", &["bad", "/in"]);
}

/// Has the last vessel take large files over two connections, which needs parts, and slowly enough for both to come about.
fn several_channels(plan: FleetPlan) -> FleetPlan {
    plan.key("Connections", "2").key("RateLimit", "2 MiB/s")
}

#[test]
fn a_full_temp_dir_is_named_and_smaller_files_still_arrive() {
    let Some(fleet) = several_channels(Fleet::new().openssh("bad")).temp_on_tmpfs("128k").openssh("good").start()
    else {
        return;
    };
    let big = content(9, 12 * MIB);
    fleet.put("cargo", &big);
    let daemon = fleet.run();
    fleet.wait_until_served("good", "cargo", &big);
    println!("{}", daemon.wait_for_log(&["bad", "temp/parts", "full"]));
    fleet.put("small", b"small");
    fleet.wait_until_served("bad", "small", b"small");
    fleet.wait_until_retired("small");
    assert!(fleet.source("cargo").exists());
    daemon.terminate();
}

#[test]
fn a_temp_dir_that_becomes_full_and_is_emptied_again_needs_nobodys_help() {
    let plan = several_channels(Fleet::new().monster("ChunkSize", "1 MiB").openssh("bad"));
    let Some(fleet) = plan.temp_on_tmpfs("16m").openssh("good").start() else { return };
    let ballast = fleet.vessel("bad").path("temp/ballast");
    // Not even the shortest part fits.
    fs::write(&ballast, content(10, 16 * MIB - 100 * 1024)).unwrap();
    let big = content(11, 6 * MIB);
    fleet.put("cargo", &big);
    let daemon = fleet.run();
    fleet.wait_until_served("good", "cargo", &big);
    daemon.wait_for_log(&["bad", "full"]);
    fs::remove_file(&ballast).unwrap();
    // What a person mends is tried again within a minute or so: ask for it instead of waiting.
    daemon.terminate();
    let daemon = fleet.run();
    fleet.wait_until_retired("cargo");
    fleet.assert_equal("bad", "cargo", &big);
    daemon.terminate();
}

#[test]
fn a_missing_location_is_named_and_the_other_directories_go_on() {
    let Some(fleet) = Fleet::new().directory("in").directory("lost").openssh("open").start() else { return };
    fs::remove_dir(fleet.path("shore/lost")).unwrap();
    fleet.put("cargo", b"cargo");
    let daemon = fleet.run();
    fleet.wait_until_retired("cargo");
    println!("{}", daemon.wait_for_log(&["lost", fleet.path("shore/lost").to_str().unwrap()]));
    daemon.terminate();
}

#[test]
fn a_temp_dir_of_somebody_else_is_not_used() {
    let Some(fleet) = Fleet::new().monster("ChunkSize", "64 KiB").openssh("bad").openssh("good").start() else {
        return;
    };
    let temp = fleet.vessel("bad").path("temp/parts");
    fs::create_dir(&temp).unwrap();
    std::os::unix::fs::chown(&temp, Some(65534), Some(65534)).unwrap();
    refused_in(&fleet, &content(14, MIB), &["bad", "temp/parts"]);
    assert_eq!(names_in(&temp).len(), 0);
}

#[test]
fn a_temp_dir_that_is_a_link_is_not_followed() {
    let Some(fleet) = Fleet::new().monster("ChunkSize", "64 KiB").openssh("bad").openssh("good").start() else {
        return;
    };
    let elsewhere = fleet.vessel("bad").path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink("../elsewhere", fleet.vessel("bad").path("temp/parts")).unwrap();
    refused_in(&fleet, &content(14, MIB), &["bad", "temp/parts", "link"]);
    assert_eq!(names_in(&elsewhere).len(), 0);
}

#[test]
fn one_bad_file_delays_no_other() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    // A directory stands where the file should go: no rename can replace it.
    fs::create_dir_all(fleet.vessel("open").path("in/cargo/inside")).unwrap();
    let daemon = fleet.run();
    fleet.put("cargo", b"cargo");
    println!("{}", daemon.wait_for_log(&["open", "cargo", "directory"]));
    fleet.put("other", b"other");
    fleet.wait_until_retired("other");
    assert!(fleet.source("cargo").exists());
    daemon.terminate();
}

#[test]
fn a_broken_settings_file_is_refused_with_all_its_errors_at_once() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("Username", "Usrname").replace("SettleTime = 300ms", "SettleTime = soon"));
    fleet.put("cargo", b"cargo");
    let refused = fleet.call(&[], "");
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    let file = fleet.settings().display().to_string();
    refused.must_say(&[&format!("{file}:"), "Usrname", "Username", "Vessel open"]);
    refused.must_say(&[&format!("{file}:"), "SettleTime", "soon", "Directory in"]);
    assert!(fleet.source("cargo").exists());
}

#[test]
fn a_settings_file_that_is_not_there_is_named() {
    let Some(fleet) = Fleet::new().start() else { return };
    fs::remove_file(fleet.settings()).unwrap();
    let refused = fleet.call(&[], "");
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    refused.must_say(&[fleet.settings().to_str().unwrap()]);
}

#[test]
fn a_vessel_with_a_full_disk_at_the_destination_is_named() {
    let Some(fleet) = Fleet::new().sftp_only("bad").temp_on_tmpfs("2m").openssh("good").start() else { return };
    // The destination lies on the small file system: everything goes there at once on a vessel without a shell.
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("RemoteLocation.in = /in", "RemoteLocation.in = /temp/in"));
    let big = content(12, 6 * MIB);
    fleet.put("cargo", &big);
    let daemon = fleet.run();
    fleet.wait_until_served("good", "cargo", &big);
    println!("{}", daemon.wait_for_log(&["bad", "full"]));
    wait_until("the source to wait", || fleet.source("cargo").exists());
    assert!(!fleet.vessel("bad").path("temp/in/cargo").exists());
    daemon.terminate();
}
