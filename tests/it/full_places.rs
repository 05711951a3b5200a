//! A file system on a vessel that is full, or a TempDir that is not to be used, holds back what needs it and nothing else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::fleet::content::{MIB, content};
use crate::fleet::plan::FleetPlan;
use crate::fleet::vessel::Vessel;
use crate::fleet::wait::wait_until;
use crate::fleet::{Fleet, mode_and_mtime, names_in};

/// A vessel whose files of the directory `charts` go to a small file system, where TempDir is too; those of `in` don't.
fn with_a_small_disk(plan: FleetPlan, size: &str) -> Option<Fleet> {
    let plan = plan.directory("in").directory("charts").openssh("tern").temp_on_tmpfs(size);
    let fleet = plan.start()?;
    let place = fleet.vessel("tern").remote("temp/charts");
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("[Vessel tern]", &format!("[Vessel tern]\nRemoteLocation.charts = {place}")));
    Some(fleet)
}

fn put_chart(fleet: &Fleet, name: &str, bytes: &[u8]) {
    fleet.put_at(&fleet.path("shore/charts").join(name), bytes, 0o644, std::time::SystemTime::now());
}

fn fill(vessel: &Vessel) {
    let ballast = vessel.path("temp/ballast");
    let mut bytes = 64 * MIB;
    // As much as there is room for.
    while bytes > 512 {
        let before = fs::read(&ballast).unwrap_or_default();
        if fs::write(&ballast, [before.clone(), vec![7; bytes]].concat()).is_err() {
            fs::write(&ballast, before).unwrap();
            bytes /= 2;
        }
    }
}

fn holds_chart(fleet: &Fleet, name: &str, bytes: &[u8]) -> bool {
    fs::read(fleet.vessel("tern").path("temp/charts").join(name)).is_ok_and(|held| held == bytes)
}

#[test]
fn a_full_file_system_holds_back_only_the_files_that_go_there() {
    let Some(fleet) = with_a_small_disk(Fleet::new(), "4m") else { return };
    let tern = fleet.vessel("tern");
    fill(tern);
    let charts: Vec<_> = (0..200).map(|n| (format!("chart{n}"), content(n, 10_000))).collect();
    charts.iter().for_each(|(name, bytes)| put_chart(&fleet, name, bytes));
    let daemon = fleet.run();
    println!("{}", daemon.wait_for_log(&["tern", "charts", "because the vessel cannot store them", "full"]));

    let since = Instant::now();
    let cargo: Vec<_> = (0..5).map(|n| (format!("cargo{n}"), content(1_000 + n, 50_000))).collect();
    cargo.iter().for_each(|(name, bytes)| fleet.put(name, bytes));
    cargo.iter().for_each(|(name, bytes)| fleet.wait_until_served("tern", name, bytes));
    println!("five files beside a full place in {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    let said = daemon.log().iter().filter(|line| line.contains("WARN")).count();
    assert!(said < 20, "{said} warnings of one full place");
    let left =
        || names_in(&tern.path("temp/charts")).into_iter().filter(|name| name.to_string_lossy().starts_with('.'));
    wait_until("nothing that did not fit to stay", || left().count() == 0);

    let since = Instant::now();
    fs::remove_file(tern.path("temp/ballast")).unwrap();
    for (name, bytes) in &charts {
        wait_until(&format!("{name} to arrive"), || holds_chart(&fleet, name, bytes));
    }
    println!("200 files of a place that has room again in {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
    daemon.terminate();
}

#[test]
fn a_file_that_does_not_fit_is_not_begun_and_smaller_ones_arrive() {
    let Some(fleet) = with_a_small_disk(Fleet::new().monster("ChunkSize", "1 MiB"), "8m") else { return };
    put_chart(&fleet, "big", &content(1, 30 * MIB));
    let daemon = fleet.run();
    println!("{}", daemon.wait_for_log(&["tern", "big", "temp/charts is full", "bytes are free", "bytes are needed"]));
    assert!(names_in(&fleet.vessel("tern").path("temp/charts")).is_empty(), "it was not begun");
    put_chart(&fleet, "small", b"small");
    wait_until("the small file", || holds_chart(&fleet, "small", b"small"));
    assert!(fleet.path("shore/charts/big").exists());
    daemon.terminate();
}

#[test]
fn a_single_run_ends_on_a_full_place_says_why_and_delivers_the_rest() {
    let Some(fleet) = with_a_small_disk(Fleet::new(), "2m") else { return };
    fill(fleet.vessel("tern"));
    put_chart(&fleet, "chart", &content(1, 100_000));
    fleet.put("cargo", b"cargo");
    let once = fleet.once();
    assert_eq!(once.code, Some(1), "{once:?}");
    once.must_say(&["tern", "charts/chart", "full"]);
    fleet.assert_equal("tern", "cargo", b"cargo");
    fs::remove_file(fleet.vessel("tern").path("temp/ballast")).unwrap();
    assert_eq!(fleet.once().code, Some(0));
}

#[test]
fn a_single_run_ends_on_a_temp_dir_of_somebody_else_and_delivers_the_rest() {
    let Some(fleet) = Fleet::new().monster("ChunkSize", "64 KiB").openssh("tern").start() else { return };
    let temp = fleet.vessel("tern").path("temp/parts");
    fs::create_dir(&temp).unwrap();
    std::os::unix::fs::chown(&temp, Some(65534), Some(65534)).unwrap();
    fleet.put("big", &content(1, MIB));
    fleet.put("small", b"small");
    let once = fleet.once();
    assert_eq!(once.code, Some(1), "{once:?}");
    once.must_say(&["tern", "in/big", "belongs to another user"]);
    fleet.assert_equal("tern", "small", b"small");
}

#[test]
fn a_temp_dir_of_ours_that_others_can_write_to_is_closed_to_them() {
    let Some(fleet) = Fleet::new().monster("ChunkSize", "64 KiB").openssh("tern").start() else { return };
    let temp = fleet.vessel("tern").path("temp/parts");
    fs::create_dir(&temp).unwrap();
    fs::set_permissions(&temp, Permissions::from_mode(0o777)).unwrap();
    let bytes = content(1, MIB);
    fleet.put("cargo", &bytes);
    assert_eq!(fleet.once().code, Some(0));
    fleet.assert_equal("tern", "cargo", &bytes);
    assert_eq!(mode_and_mtime(&temp).0, 0o700);
}

/// All that lies on a vessel.
fn tree(vessel: &Vessel) -> Vec<std::path::PathBuf> {
    let mut found = vec![vessel.path("")];
    let mut at = 0;
    while at < found.len() {
        let inside: Vec<_> = names_in(&found[at]).into_iter().map(|name| found[at].join(name)).collect();
        found.extend(inside);
        at += 1;
    }
    found
}

#[test]
fn check_tries_what_deliveries_do_tells_what_a_vessel_can_and_leaves_nothing_behind() {
    let plan = Fleet::new().directory("in").directory("charts").openssh("open").dropbear("drop").sftp_only("chroot");
    let Some(fleet) = plan.start() else { return };
    let trees = || ["open", "drop", "chroot"].map(|name| tree(fleet.vessel(name)));
    let before = trees();
    let checked = fleet.call(&["check"], "");
    println!("{}", checked.stdout);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert_eq!(trees(), before, "it leaves nothing behind, no directory either");
    for vessel in ["open", "drop"] {
        for ability in [
            "shell",
            "hash",
            "flush",
            "atomic replace",
            "resume",
            "several connections",
            "delta",
            "decompression",
            "small files in one round trip",
        ] {
            checked.must_say(&["ok", vessel, &format!("{ability}: yes")]);
        }
    }
    checked.must_say(&["note", "chroot", "shell: no", "over 1 connection"]);
    checked.must_say(&["note", "chroot", "hash: no", "read back"]);
    checked.must_say(&["ok", "chroot", "resume: yes"]);
    checked.must_say(&["ok", "open", "charts", "created with the first file"]);
}
