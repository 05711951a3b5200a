//! Files arrive: every kind of vessel, every kind of name, whole, with mode and time, and nothing else is left behind.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::SystemTime;

use crate::fleet::content::{MIB, content};
use crate::fleet::{Fleet, at_second, mode_and_mtime, names_in};

struct Sample {
    name: OsString,
    bytes: Vec<u8>,
    mode: u32,
    mtime: u64,
}

/// Files whose names and sizes have broken other programs.
fn samples() -> Vec<Sample> {
    let names: [&[u8]; 7] =
        [b"plain.bin", b"empty", b"with space 'quote\" $(x).bin", b"-rf", b"two\nlines", b"caf\xe9 \xff", &[b'n'; 200]];
    let sizes = [25 * MIB + 1, 0, 70_000, 1, 4096, 12_345, 100];
    let modes = [0o640, 0o644, 0o755, 0o600, 0o664, 0o444, 0o711];
    let sample = |at: usize| Sample {
        name: OsString::from_vec(names[at].to_vec()),
        bytes: content(at as u64, sizes[at]),
        mode: modes[at],
        mtime: 1_600_000_000 + at as u64,
    };
    (0..names.len()).map(sample).collect()
}

#[test]
fn three_kinds_of_vessels_get_files_of_every_name_with_mode_and_time() {
    let plan =
        Fleet::new().openssh("open").dropbear("drop").sftp_only("chroot").openssh("idle").key("IgnoreDirs", "in");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    let samples = samples();
    for sample in &samples {
        fleet.put_as(&sample.name, &sample.bytes, sample.mode, at_second(sample.mtime));
    }
    for sample in &samples {
        fleet.wait_until_retired(&sample.name);
        let expected = (sample.mode, i64::try_from(sample.mtime).unwrap());
        assert_eq!(mode_and_mtime(&fleet.retired(&sample.name)), expected, "{:?} in processed/", sample.name);
        for vessel in ["open", "drop", "chroot"] {
            fleet.assert_equal(vessel, &sample.name, &sample.bytes);
            let held = fleet.vessel(vessel).path("in").join(&sample.name);
            assert_eq!(mode_and_mtime(&held), expected, "{:?} on {vessel}", sample.name);
        }
    }
    daemon.terminate();
    ["open", "drop", "chroot", "idle"].into_iter().for_each(|vessel| fleet.assert_tidy(vessel));
    assert_eq!(names_in(&fleet.vessel("idle").path("in")), Vec::<OsString>::new());
    assert_eq!(names_in(&fleet.path("shore/in")), ["processed"], "nothing else stays on the shore");
}

#[test]
fn files_that_were_there_before_the_daemon_are_delivered_at_once() {
    // A settle time longer than the test's patience: old files must not wait for it.
    let plan = Fleet::new().directory("in").key("SettleTime", "10m").openssh("open");
    let Some(fleet) = plan.start() else { return };
    fleet.put_as("old", b"old", 0o644, at_second(1_000_000_000));
    let daemon = fleet.run();
    fleet.wait_until_retired("old");
    fleet.assert_equal("open", "old", b"old");
    daemon.terminate();
}

#[test]
fn a_temp_dir_on_another_file_system_than_the_destination_works() {
    let plan = Fleet::new().openssh("open").temp_on_tmpfs("64m").dropbear("drop").temp_on_tmpfs("64m");
    let Some(fleet) = plan.start() else { return };
    let bytes = content(1, 25 * MIB + 1);
    fleet.put("plain.bin", &bytes);
    let daemon = fleet.run();
    fleet.wait_until_retired("plain.bin");
    for vessel in ["open", "drop"] {
        fleet.assert_equal(vessel, "plain.bin", &bytes);
        fleet.assert_tidy(vessel);
    }
    daemon.terminate();
}

#[test]
fn two_directories_go_where_each_vessel_wants_them() {
    let plan = Fleet::new().directory("in").directory("charts").openssh("open").openssh("picky");
    let Some(fleet) = plan.start() else { return };
    let elsewhere = fleet.vessel("picky").remote("else where");
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(
        &text.replace(
            "[Vessel picky]",
            &format!("[Vessel picky]\nIgnoreDirs = in\nRemoteLocation.charts = {elsewhere}"),
        ),
    );
    fleet.put("for in", b"in");
    fleet.put_at(&fleet.path("shore/charts/for charts"), b"charts", 0o644, SystemTime::now());
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    fleet.assert_equal("open", "for in", b"in");
    assert_eq!(fs::read(fleet.vessel("open").path("charts/for charts")).unwrap(), b"charts");
    assert_eq!(fs::read(fleet.vessel("picky").path("else where/for charts")).unwrap(), b"charts");
    assert_eq!(names_in(&fleet.vessel("picky").path("in")), Vec::<OsString>::new());
}

#[test]
fn a_file_on_the_vessel_is_replaced_by_the_new_version_of_its_name() {
    let Some(fleet) = Fleet::new().openssh("open").dropbear("drop").sftp_only("chroot").start() else { return };
    for vessel in ["open", "drop", "chroot"] {
        let at = fleet.vessel(vessel).path("in");
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("name"), b"what was there before").unwrap();
    }
    fleet.put("name", b"new");
    let daemon = fleet.run();
    fleet.wait_until_retired("name");
    ["open", "drop", "chroot"].into_iter().for_each(|vessel| fleet.assert_equal(vessel, "name", b"new"));
    daemon.terminate();
}

#[test]
fn many_small_files_arrive_and_none_is_left_out() {
    let Some(fleet) = Fleet::new().openssh("open").dropbear("drop").sftp_only("chroot").start() else { return };
    let daemon = fleet.run();
    let files: Vec<_> = (0..200).map(|at| (format!("small {at}"), content(at, 4096 + at as usize))).collect();
    files.iter().for_each(|(name, bytes)| fleet.put(name, bytes));
    for (name, bytes) in &files {
        fleet.wait_until_retired(name);
        ["open", "drop", "chroot"].into_iter().for_each(|vessel| fleet.assert_equal(vessel, name, bytes));
    }
    daemon.terminate();
    ["open", "drop", "chroot"].into_iter().for_each(|vessel| fleet.assert_tidy(vessel));
}

#[test]
fn a_big_file_takes_no_more_memory_than_a_small_one() {
    let Some(fleet) = Fleet::new().openssh("open").sftp_only("chroot").start() else { return };
    let bytes = content(3, 300 * MIB);
    fleet.put("big", &bytes);
    let daemon = fleet.run();
    fleet.wait_until_retired("big");
    let peak = daemon.peak_memory_kib() / 1024;
    ["open", "chroot"].into_iter().for_each(|vessel| fleet.assert_equal(vessel, "big", &bytes));
    println!("peak memory: {peak} MiB");
    assert!(peak < 160, "a 300 MiB file took {peak} MiB of memory");
    daemon.terminate();
}

#[test]
fn what_another_shore_left_in_temp_dir_is_not_touched() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let temp = fleet.vessel("open").path("temp/parts");
    fs::DirBuilder::new().create(&temp).unwrap();
    fs::set_permissions(&temp, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let foreign = ["00000000000000ff-1.0.part", "somebody's notes"];
    foreign.iter().for_each(|name| fs::write(temp.join(name), b"not yours").unwrap());
    fleet.put("name", b"bytes");
    let daemon = fleet.run();
    fleet.wait_until_retired("name");
    daemon.terminate();
    assert_eq!(names_in(&temp), foreign.map(|name| OsStr::from_bytes(name.as_bytes()).to_owned()));
}

#[test]
fn zeros_cost_little_on_the_wire_and_none_of_them_is_lost() {
    for assembly in ["cat", "direct"] {
        let plan = Fleet::new().monster("ChunkSize", "8 MiB").openssh("open").proxied().key("Assembly", assembly);
        let Some(fleet) = plan.start() else { return };
        // Data, a hole, data that is no whole piece, and zeros to the end.
        let mut bytes = vec![0; 64 * MIB + 77];
        bytes[..MIB].copy_from_slice(&content(1, MIB));
        bytes[40 * MIB + 5..41 * MIB].copy_from_slice(&content(2, MIB - 5));
        fleet.put("sparse", &bytes);
        let link = fleet.vessel("open").link();
        let daemon = fleet.run();
        fleet.wait_until_retired("sparse");
        daemon.terminate();
        fleet.assert_equal("open", "sparse", &bytes);
        let sent = link.sent();
        println!("{assembly}: {sent} bytes for {}", bytes.len());
        assert!(sent < 5 * MIB as u64, "{assembly}: {sent} bytes were sent");
    }
}
