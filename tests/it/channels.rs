//! Several ways to a vessel at once: what they carry arrives whole, whichever of them ends, and nothing stays in TempDir.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::fleet::content::{MIB, content};
use crate::fleet::daemon::Daemon;
use crate::fleet::plan::FleetPlan;
use crate::fleet::process::signal;
use crate::fleet::proxy::Proxy;
use crate::fleet::wait::wait_until;
use crate::fleet::{Fleet, mode_and_mtime, names_in};

const SIZE: usize = 24 * MIB;
/// What SSH and SFTP wrap around the bytes of such a file, and a handful of logins.
const WRAPPING: usize = MIB;

/// A vessel with four connections, on a link so slow that all of them get something to carry.
fn four_connections() -> FleetPlan {
    Fleet::new().openssh("open").key("Connections", "4").key("RateLimit", "8 MiB/s").proxied()
}

/// Waits until so many connections, and no more, each carry the file.
fn wait_until_carried_by(link: &Proxy, connections: usize) {
    wait_until("all connections to carry the file", || {
        let sent = link.sent_on_each();
        sent.len() == connections && sent.iter().all(|sent| *sent > MIB as u64 / 2)
    });
}

fn connected(daemon: &Daemon) -> usize {
    daemon.log().iter().filter(|line| line.contains("Connected")).count()
}

#[track_caller]
fn assert_sent_at_most(link: &Proxy, bytes: usize) {
    let sent = link.sent();
    println!("{:.2} MiB were sent for {} MiB", sent as f64 / MIB as f64, SIZE / MIB);
    assert!(sent <= bytes as u64, "{sent} bytes were sent for {SIZE}");
}

#[test]
fn a_file_goes_over_four_connections_and_leaves_nothing_in_temp_dir() {
    let Some(fleet) = four_connections().start() else { return };
    let bytes = content(31, SIZE);
    fleet.put("big", &bytes);
    let daemon = fleet.run();
    wait_until_carried_by(fleet.vessel("open").link(), 4);
    fleet.wait_until_retired("big");
    fleet.assert_equal("open", "big", &bytes);
    fleet.assert_tidy("open");
    assert_sent_at_most(fleet.vessel("open").link(), SIZE + WRAPPING);
    assert!(daemon.logged(&["warn"]).is_none(), "{:?}", daemon.log());
    daemon.terminate();
}

/// Ends one of four channels that is not the first, in the middle of a file.
fn one_of_four_ends(end: impl Fn(&Fleet)) {
    let Some(fleet) = four_connections().start() else { return };
    let bytes = content(32, SIZE);
    let link = fleet.vessel("open").link();
    fleet.put("big", &bytes);
    let daemon = fleet.run();
    wait_until_carried_by(link, 4);
    end(&fleet);
    fleet.wait_until_retired("big");
    fleet.assert_equal("open", "big", &bytes);
    fleet.assert_tidy("open");
    assert_eq!(connected(&daemon), 1, "it arrives in the same visit: {:?}", daemon.log());
    assert!(daemon.logged(&["warn"]).is_none(), "{:?}", daemon.log());
    // A window for each piece that was on its way.
    assert_sent_at_most(link, SIZE + WRAPPING + 4 * MIB);
    daemon.terminate();
}

#[test]
fn when_one_of_four_connections_ends_the_others_carry_on() {
    one_of_four_ends(|fleet| fleet.vessel("open").link().cut_one(3));
}

#[test]
fn when_the_server_of_one_of_four_connections_is_killed_the_others_carry_on() {
    one_of_four_ends(|fleet| {
        let servers = fleet.vessel("open").processes("sftp-server");
        signal(*servers.last().unwrap(), Signal::KILL);
    });
}

#[test]
fn when_the_first_of_four_connections_ends_the_next_visit_goes_on_where_all_were() {
    let Some(fleet) = four_connections().start() else { return };
    let bytes = content(33, SIZE);
    let link = fleet.vessel("open").link();
    fleet.put("big", &bytes);
    let daemon = fleet.run();
    wait_until_carried_by(link, 4);
    link.cut_one(0);
    fleet.wait_until_retired("big");
    fleet.assert_equal("open", "big", &bytes);
    fleet.wait_until_tidy("open");
    assert_eq!(connected(&daemon), 2, "{:?}", daemon.log());
    wait_until("what the first visit had opened to end", || fleet.vessel("open").processes("sftp-server").len() <= 4);
    assert!(daemon.logged(&["damaged"]).is_none(), "{:?}", daemon.log());
    assert_sent_at_most(link, SIZE * 13 / 10);
    daemon.terminate();
}

#[test]
fn killed_with_four_connections_it_goes_on_where_all_were() {
    let Some(fleet) = four_connections().start() else { return };
    let bytes = content(34, SIZE);
    let link = fleet.vessel("open").link();
    fleet.put("big", &bytes);
    let daemon = fleet.run();
    wait_until_carried_by(link, 4);
    daemon.kill9();
    assert!(fleet.held("open", "big").is_none(), "a name appears with complete bytes only");
    let daemon = fleet.run();
    fleet.wait_until_retired("big");
    fleet.assert_equal("open", "big", &bytes);
    fleet.wait_until_tidy("open");
    assert!(daemon.logged(&["damaged"]).is_none(), "{:?}", daemon.log());
    assert_sent_at_most(link, SIZE * 13 / 10);
    daemon.terminate();
}

#[test]
fn a_temp_dir_too_small_for_all_channels_slows_nothing_down_but_them() {
    let Some(fleet) = four_connections().temp_on_tmpfs("2m").start() else { return };
    let bytes = content(35, SIZE);
    fleet.put("big", &bytes);
    let daemon = fleet.run();
    fleet.wait_until_retired("big");
    fleet.assert_equal("open", "big", &bytes);
    fleet.wait_until_tidy("open");
    assert!(daemon.logged(&["parked"]).is_none(), "{:?}", daemon.log());
    daemon.wait_for_log(&["open", "temp/parts", "full"]);
    // What was on its way to the parts when there was no more room: up to a window for each.
    assert_sent_at_most(fleet.vessel("open").link(), SIZE + WRAPPING + 8 * 2 * MIB);
    daemon.terminate();
}

#[test]
fn a_direct_assembly_needs_no_temp_dir_and_goes_on_where_it_was() {
    let plan = Fleet::new().openssh("open").key("Assembly", "direct").key("RateLimit", "12 MiB/s");
    // The loop for small files needs TempDir, and a busy host may look like a long path.
    let plan = plan.key("Connections", "4").key("SmallFiles", "sftp");
    let Some(fleet) = plan.proxied().start() else { return };
    let bytes = content(36, SIZE);
    let link = fleet.vessel("open").link();
    fleet.put("big", &bytes);
    let daemon = fleet.run();
    wait_until("half of the file to be sent", || link.sent() > SIZE as u64 / 2);
    link.cut();
    fleet.wait_until_retired("big");
    fleet.assert_equal("open", "big", &bytes);
    fleet.assert_tidy("open");
    assert!(!fleet.vessel("open").path("temp/parts").exists(), "TempDir is not needed, so it is not made");
    assert_sent_at_most(link, SIZE + WRAPPING + 4 * MIB);
    daemon.terminate();
}

#[test]
fn a_vessel_that_allows_two_sessions_and_two_logins_at_once_still_gets_everything() {
    let plan = Fleet::new().openssh("tight").key("Connections", "8").key("RateLimit", "12 MiB/s").proxied();
    let Some(fleet) = plan.start() else { return };
    fleet.vessel("tight").configure("MaxSessions 2\nMaxStartups 2:100:2");
    let big = content(37, SIZE);
    fleet.put("big", &big);
    let small: Vec<_> = (0..20).map(|at| (format!("small {at}"), content(at, 1000))).collect();
    small.iter().for_each(|(name, bytes)| fleet.put(name, bytes));
    let daemon = fleet.run();
    fleet.wait_until_retired("big");
    fleet.assert_equal("tight", "big", &big);
    for (name, bytes) in &small {
        fleet.wait_until_retired(name);
        fleet.assert_equal("tight", name, bytes);
    }
    fleet.assert_tidy("tight");
    let connections = fleet.vessel("tight").link().sent_on_each();
    assert!(connections.len() > 1, "further connections were tried");
    assert!(daemon.logged(&["warn"]).is_none(), "{:?}", daemon.log());
    daemon.terminate();
}

/// Sends a file over one connection on a path of some length, and says how many channels carried it at the most.
fn channels_on_one_connection(plan: FleetPlan, vessel: &str) -> usize {
    let Some(fleet) = plan.monster("ChunkSize", "1 MiB").key("Connections", "1").proxied().start() else { return 0 };
    let bytes = content(38, SIZE / 2);
    let link = fleet.vessel(vessel).link();
    link.lengthen(3);
    let daemon = fleet.run();
    daemon.wait_for_log(&[vessel, "connected"]);
    fleet.put("big", &bytes);
    let mut most = 0;
    wait_until("the file to be sent", || {
        most = most.max(fleet.vessel(vessel).processes("sftp-server").len());
        fleet.retired("big").exists()
    });
    fleet.assert_equal(vessel, "big", &bytes);
    fleet.assert_tidy(vessel);
    assert_eq!(link.sent_on_each().len(), 1, "on one connection");
    daemon.terminate();
    most
}

#[test]
fn a_vessel_with_small_windows_gets_several_channels() {
    let channels = channels_on_one_connection(Fleet::new().dropbear("drop"), "drop");
    assert!([0, 8].contains(&channels), "{channels}");
}

#[test]
fn a_vessel_with_large_windows_gets_one_channel_where_that_is_enough() {
    let channels = channels_on_one_connection(Fleet::new().openssh("open"), "open");
    assert!([0, 1].contains(&channels), "{channels}");
}

#[test]
fn many_small_files_arrive_where_no_file_system_can_be_flushed_as_a_whole() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let vessel = fleet.vessel("open");
    let (programs, log) = (vessel.etc("bin"), vessel.etc("flushed"));
    fs::create_dir(&programs).unwrap();
    // Knows files, as the coreutils' does, but not `-f`.
    let sync = format!(
        "#!/bin/sh\ncase $1 in --help) echo FILE;; -*) exit 1;; *) echo $# >>{log:?}; exec /bin/sync \"$@\";; esac\n"
    );
    fs::write(programs.join("sync"), sync).unwrap();
    fs::set_permissions(programs.join("sync"), fs::Permissions::from_mode(0o755)).unwrap();
    vessel.configure(&format!("SetEnv PATH={}:/usr/bin:/bin", programs.display()));
    let files: Vec<_> = (0..300).map(|at| (format!("small {at}"), content(at, 100 + at as usize))).collect();
    files.iter().for_each(|(name, bytes)| fleet.put(name, bytes));
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    for (name, bytes) in &files {
        assert!(fleet.retired(name).exists(), "{name}: {done:?}");
        assert_eq!(mode_and_mtime(&vessel.path("in").join(name)).0, 0o644, "{name}");
        fleet.assert_equal("open", name, bytes);
    }
    fleet.assert_tidy("open");
    assert!(names_in(&fleet.path("shore/in/processed")).len() == files.len());
    assert!(log.exists(), "the vessel's own sync was asked");
    assert!(!done.says(&["warn"]), "{done:?}");
}
