//! What counts as a file to deliver, and when it counts as finished.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fleet::content::{MIB, content};
use crate::fleet::daemon::Daemon;
use crate::fleet::wait::{never_within, wait_until};
use crate::fleet::{Fleet, at_second, names_in};

#[test]
fn a_file_that_is_being_written_is_sent_only_when_it_is_closed() {
    let plan = Fleet::new().directory("in").key("SettleTime", "10m").openssh("open");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    // An old file: once it is delivered, the daemon surely watches.
    fleet.put_as("ready", b"ready", 0o644, at_second(1_000_000_000));
    fleet.wait_until_retired("ready");
    let mut file = File::create(fleet.source("slow")).unwrap();
    for piece in [b"one", b"two", b"six"] {
        file.write_all(piece).unwrap();
        let early = || fleet.held("open", "slow").is_some() || fleet.retired("slow").exists();
        never_within(Duration::from_millis(400), "sent before it was closed", early);
    }
    drop(file);
    fleet.wait_until_retired("slow");
    fleet.assert_equal("open", "slow", b"onetwosix");
    daemon.terminate();
}

#[test]
fn a_file_that_grows_faster_than_the_settle_time_waits_for_its_end() {
    // Here the daemon comes when the writer is already at it: nobody saw it opened.
    let plan = Fleet::new().directory("in").key("SettleTime", "2s").openssh("open");
    let Some(fleet) = plan.start() else { return };
    let mut file = File::create(fleet.source("slow")).unwrap();
    file.write_all(b"0").unwrap();
    let daemon = fleet.run();
    for piece in 1..=8 {
        write!(file, "{piece}").unwrap();
        never_within(Duration::from_millis(400), "sent while it grew", || fleet.held("open", "slow").is_some());
    }
    drop(file);
    fleet.wait_until_retired("slow");
    fleet.assert_equal("open", "slow", b"012345678");
    daemon.terminate();
}

#[test]
fn a_file_moved_in_is_sent_and_so_is_an_empty_one() {
    let plan = Fleet::new().directory("in").key("SettleTime", "10m").key("RescanInterval", "10m").openssh("open");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    fleet.put_as("first", b"first", 0o644, at_second(1_000_000_000));
    fleet.wait_until_retired("first");
    fleet.put("moved", b"moved");
    File::create(fleet.source("empty")).unwrap();
    fleet.wait_until_retired("moved");
    fleet.wait_until_retired("empty");
    fleet.assert_equal("open", "moved", b"moved");
    fleet.assert_equal("open", "empty", b"");
    daemon.terminate();
}

#[test]
fn names_of_unfinished_files_are_left_alone_until_they_are_renamed() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let ignored = ["a.part", "b.partial", "c.tmp", "d~", ".e.swp", "f.crdownload", "g.filepart"];
    ignored.iter().for_each(|name| fleet.put(name, b"unfinished"));
    let daemon = fleet.run();
    fleet.put("done", b"done");
    fleet.wait_until_retired("done");
    fs::rename(fleet.source("a.part"), fleet.source("a")).unwrap();
    fleet.wait_until_retired("a");
    daemon.terminate();
    assert_eq!(names_in(&fleet.vessel("open").path("in")), ["a", "done"]);
    assert!(ignored[1..].iter().all(|name| fleet.source(name).exists()));
}

#[test]
fn ignored_names_are_a_setting() {
    let plan = Fleet::new().directory("in").key("IgnoreNames", "*.draft").openssh("open");
    let Some(fleet) = plan.start() else { return };
    fleet.put("letter.draft", b"draft");
    fleet.put("letter.tmp", b"an ordinary name here");
    let daemon = fleet.run();
    fleet.wait_until_retired("letter.tmp");
    daemon.terminate();
    assert!(fleet.source("letter.draft").exists());
    assert!(fleet.held("open", "letter.draft").is_none());
}

#[test]
fn what_is_no_file_is_skipped_with_one_line() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    assert!(Command::new("mkfifo").arg(fleet.source("a-fifo")).status().unwrap().success());
    let _socket = UnixListener::bind(fleet.source("a-socket")).unwrap();
    fs::write(fleet.path("secret"), b"outside").unwrap();
    std::os::unix::fs::symlink(fleet.path("secret"), fleet.source("a-link")).unwrap();
    let daemon = fleet.run();
    fleet.put("first", b"first");
    fleet.wait_until_retired("first");
    fleet.put("second", b"second");
    fleet.wait_until_retired("second");
    for name in ["a-fifo", "a-socket", "a-link"] {
        daemon.wait_for_log(&[name]);
        let lines = daemon.log().into_iter().filter(|line| line.contains(name)).count();
        assert_eq!(lines, 1, "{name} is named once");
        assert!(fleet.source(name).symlink_metadata().is_ok(), "{name} stays");
    }
    daemon.terminate();
    assert_eq!(names_in(&fleet.vessel("open").path("in")), ["first", "second"]);
}

#[test]
fn directories_inside_are_not_entered() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    fs::create_dir(fleet.source("inner")).unwrap();
    fs::write(fleet.source("inner/file"), b"inner").unwrap();
    let daemon = fleet.run();
    fleet.put("cargo", b"cargo");
    fleet.wait_until_retired("cargo");
    daemon.terminate();
    assert_eq!(names_in(&fleet.vessel("open").path("in")), ["cargo"]);
    assert!(fleet.source("inner/file").exists());
}

#[test]
fn a_source_deleted_before_delivery_is_dropped_and_leaves_no_parts() {
    let plan = Fleet::new().monster("ChunkSize", "1 MiB").openssh("open").proxied();
    let Some(fleet) = plan.start() else { return };
    let link = fleet.vessel("open").link();
    link.limit(4 * MIB as u64);
    let daemon = fleet.run();
    fleet.put("doomed", &content(13, 30 * MIB));
    wait_until("some parts to be sent", || link.sent() > 6 * MIB as u64);
    fleet.vessel("open").stop();
    fs::remove_file(fleet.source("doomed")).unwrap();
    link.limit(0);
    fleet.vessel("open").start();
    fleet.put("next", b"next");
    fleet.wait_until_retired("next");
    wait_until("the parts to be swept", || names_in(&fleet.vessel("open").path("temp/parts")).is_empty());
    daemon.terminate();
    fleet.assert_tidy("open");
    assert_eq!(names_in(&fleet.vessel("open").path("in")), ["next"]);
    assert_eq!(names_in(&fleet.path("shore/in/processed")), ["next"]);
}

#[test]
fn a_source_deleted_while_its_vessel_is_down_is_forgotten() {
    let Some(fleet) = Fleet::new().openssh("open").openssh("down").start() else { return };
    fleet.vessel("down").stop();
    let daemon = fleet.run();
    fleet.put("doomed", b"doomed");
    fleet.wait_until_served("open", "doomed", b"doomed");
    fs::remove_file(fleet.source("doomed")).unwrap();
    fleet.put("next", b"next");
    fleet.wait_until_served("open", "next", b"next");
    fleet.vessel("down").start();
    fleet.wait_until_retired("next");
    daemon.terminate();
    assert!(fleet.held("down", "doomed").is_none());
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "nothing is left to deliver: {done:?}");
}

#[test]
fn a_location_that_appears_later_is_picked_up() {
    let plan = Fleet::new().directory("in").key("RescanInterval", "1s").openssh("open");
    let Some(fleet) = plan.start() else { return };
    fs::remove_dir(fleet.path("shore/in")).unwrap();
    let daemon = fleet.run();
    daemon.wait_for_log(&["shore/in"]);
    fs::create_dir(fleet.path("shore/in")).unwrap();
    fleet.put("cargo", b"cargo");
    fleet.wait_until_retired("cargo");
    fleet.assert_equal("open", "cargo", b"cargo");
    daemon.terminate();
}

#[test]
fn a_location_that_is_moved_away_and_comes_back_is_watched_again() {
    let plan = Fleet::new().directory("in").key("RescanInterval", "1s").openssh("open");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    fleet.put("first", b"first");
    fleet.wait_until_retired("first");
    fs::rename(fleet.path("shore/in"), fleet.path("away")).unwrap();
    fs::create_dir(fleet.path("shore/in")).unwrap();
    fleet.put("second", b"second");
    fleet.wait_until_retired("second");
    fleet.assert_equal("open", "second", b"second");
    daemon.terminate();
}

/// How many files are made at once: more than hints are kept for, each of which makes several.
const BURST: usize = 20_000;

#[test]
fn a_burst_of_files_costs_few_scans_and_is_taken_in_all_the_while() {
    let target = tempfile::tempdir().unwrap();
    let plan = Fleet::new().directory("in").key("RescanInterval", "10m").openssh("open");
    let Some(fleet) = plan.start() else { return };
    // To a directory of this host, so that taking in is what takes time.
    let text = format!(
        "[Directory in]\nLocation = {}\nRemoteLocation = {}\nSettleTime = 300ms\nRescanInterval = 10m\n[Vessel disk]\nAddress = localhost\n\
         Transport = local\n",
        fleet.path("shore/in").display(),
        target.path().display()
    );
    fleet.write_settings(&text);
    let daemon = fleet.run_logging("contentmonster=debug");
    fleet.put("first", b"first");
    wait_until("the daemon to watch", || !fleet.source("first").exists());
    let scans = || daemon.log().iter().filter(|line| line.contains("Scanning the directory")).count();
    let (before, start) = (scans(), Instant::now());
    for number in 0..BURST {
        fs::write(fleet.source(format!("f{number}")), "x").unwrap();
    }
    let made = start.elapsed();
    let last = wait_for_all(&daemon, BURST, Duration::from_secs(240));
    let (scans, took) = (scans() - before, start.elapsed());
    println!("{BURST} files: made in {made:?}, all taken in after {took:?}, {scans} scans");
    assert!(scans as u64 <= 3 + took.as_secs(), "{scans} scans in {took:?}");
    assert!(last, "all are taken in within 240 s");
    daemon.terminate();
}

fn wait_for_all(daemon: &Daemon, files: usize, within: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < within {
        if daemon.log().iter().filter(|line| line.contains("Taken in")).count() > files {
            return true;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    false
}
