//! Files that are still being written: nothing is sent of them, none is moved away, and every byte arrives in the end.
//!
//! `CONTENTMONSTER_WRITERS=200` has the runs of many writers last minutes, with pauses of up to 20 s.

mod many;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::fleet::content::content;
use crate::fleet::daemon::Daemon;
use crate::fleet::wait::{never_within, wait_until};
use crate::fleet::{Fleet, at_second, mode_and_mtime, names_in};

/// A fleet whose daemon surely watches, and which takes a file that nobody was seen to close after 300 ms.
fn watching(keep_processed: &str) -> Option<(Fleet, Daemon)> {
    let plan = Fleet::new().directory("in").key("KeepProcessed", keep_processed).openssh("open");
    let fleet = plan.start()?;
    let daemon = fleet.run();
    fleet.put_as("ready", b"ready", 0o644, at_second(1_000_000_000));
    wait_until("the daemon to watch", || !fleet.source("ready").exists());
    Some((fleet, daemon))
}

fn is_taken(fleet: &Fleet, name: &str) -> bool {
    fleet.held("open", name).is_some() || !fleet.source(name).exists()
}

#[test]
fn a_file_that_is_still_open_is_not_taken_however_quiet_it_is() {
    for keep_processed in ["forever", "no"] {
        let Some((fleet, daemon)) = watching(keep_processed) else { return };
        let mut file = File::create(fleet.source("big.csv")).unwrap();
        for _ in 0..2 {
            file.write_all(&[b'x'; 7000]).unwrap();
            never_within(Duration::from_millis(1200), "taken while it was open", || is_taken(&fleet, "big.csv"));
        }
        drop(file);
        wait_until("the file to retire", || !fleet.source("big.csv").exists());
        fleet.assert_equal("open", "big.csv", &[b'x'; 14_000]);
        daemon.terminate();
    }
}

#[test]
fn a_file_that_was_open_before_the_daemon_came_is_not_taken() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let mut file = File::create(fleet.source("old.csv")).unwrap();
    file.write_all(b"one,").unwrap();
    file.set_modified(at_second(1_000_000_000)).unwrap();
    let daemon = fleet.run();
    never_within(Duration::from_millis(1500), "taken while it was open", || is_taken(&fleet, "old.csv"));
    file.write_all(b"two").unwrap();
    drop(file);
    fleet.wait_until_retired("old.csv");
    fleet.assert_equal("open", "old.csv", b"one,two");
    daemon.terminate();
}

#[test]
fn an_empty_file_that_is_open_is_not_taken() {
    let Some((fleet, daemon)) = watching("forever") else { return };
    let mut file = File::create(fleet.source("empty")).unwrap();
    never_within(Duration::from_millis(1500), "taken while it was open", || is_taken(&fleet, "empty"));
    file.write_all(b"not empty").unwrap();
    drop(file);
    fleet.wait_until_retired("empty");
    fleet.assert_equal("open", "empty", b"not empty");
    daemon.terminate();
}

#[test]
fn a_file_that_is_opened_again_after_its_delivery_does_not_retire_before_it_is_closed() {
    for keep_processed in ["forever", "no"] {
        let Some((fleet, daemon)) = watching(keep_processed) else { return };
        let mut file = File::create(fleet.source("log")).unwrap();
        file.write_all(b"one ").unwrap();
        let mut again = OpenOptions::new().append(true).open(fleet.source("log")).unwrap();
        drop(file);
        never_within(Duration::from_millis(1200), "taken while it was open", || !fleet.source("log").exists());
        again.write_all(b"two").unwrap();
        drop(again);
        wait_until("the file to retire", || !fleet.source("log").exists());
        fleet.assert_equal("open", "log", b"one two");
        daemon.terminate();
    }
}

#[test]
fn a_program_that_appends_a_row_a_second_loses_none() {
    let plan = Fleet::new().directory("in").key("SettleTime", "3s").openssh("open");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    let mut rows = String::new();
    for row in 0..5 {
        let row = format!("row {row}\n");
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(fleet.source("rows"))
            .unwrap()
            .write_all(row.as_bytes())
            .unwrap();
        rows.push_str(&row);
        sleep(Duration::from_millis(700));
    }
    fleet.wait_until_retired("rows");
    fleet.assert_equal("open", "rows", rows.as_bytes());
    assert_eq!(names_in(&fleet.path("shore/in/processed")), ["rows"], "one file holds all rows");
    daemon.terminate();
}

#[test]
fn mode_and_time_that_are_set_just_after_the_close_reach_the_vessel() {
    let plan = Fleet::new().directory("in").key("SettleTime", "1s").openssh("open");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    fleet.put_as("ready", b"ready", 0o644, at_second(1_000_000_000));
    fleet.wait_until_retired("ready");
    for (name, mode) in [("first", 0o600), ("second", 0o640)] {
        fs::write(fleet.source(name), name).unwrap();
        fleet.wait_until_served("open", name, name.as_bytes());
        fs::set_permissions(fleet.source(name), fs::Permissions::from_mode(mode)).unwrap();
        if name == "second" {
            File::open(fleet.source(name)).unwrap().set_modified(at_second(1_234_567_890)).unwrap();
        }
        fleet.wait_until_retired(name);
        let there = mode_and_mtime(&fleet.vessel("open").path("in").join(name));
        assert_eq!(there, mode_and_mtime(&fleet.retired(name)));
        assert_eq!(there.0, mode);
    }
    daemon.terminate();
}

#[test]
fn a_file_that_is_mapped_for_writing_is_not_taken() {
    let Some((fleet, daemon)) = watching("forever") else { return };
    let script = "import mmap,os,sys,time\nfd=os.open(sys.argv[1],os.O_RDWR|os.O_CREAT)\nos.ftruncate(fd,8192)\n\
                  m=mmap.mmap(fd,8192)\nos.close(fd)\nm[0:5]=b'first'\ntime.sleep(1.5)\nm[8187:8192]=b'ended'\n";
    let mut writer = Command::new("python3").args(["-c", script]).arg(fleet.source("map")).spawn().unwrap();
    wait_until("the writer to begin", || fleet.source("map").exists());
    // The mapping ends with the program, a moment before it is known to have ended.
    let is_whole = |bytes: Vec<u8>| bytes.ends_with(b"ended");
    while writer.try_wait().unwrap().is_none() {
        assert!(fleet.held("open", "map").is_none_or(is_whole), "taken while it was mapped");
        sleep(Duration::from_millis(10));
    }
    fleet.wait_until_retired("map");
    let bytes = [&b"first"[..], &[0; 8182], b"ended"].concat();
    fleet.assert_equal("open", "map", &bytes);
    daemon.terminate();
}

#[test]
fn rsync_into_the_location_succeeds_however_slow_it_is() {
    let Some((fleet, daemon)) = watching("forever") else { return };
    let bytes = content(3, 20_000);
    fs::write(fleet.path("src.bin"), &bytes).unwrap();
    for (name, way) in [("renamed", "--no-inplace"), ("inplace", "--inplace")] {
        let mut rsync = Command::new("rsync");
        rsync.args(["-t", "--bwlimit=8", way]).arg(fleet.path("src.bin")).arg(fleet.source(name));
        assert!(rsync.status().unwrap().success(), "{way}");
        fleet.wait_until_retired(name);
        fleet.assert_equal("open", name, &bytes);
    }
    assert_eq!(names_in(&fleet.vessel("open").path("in")), ["inplace", "ready", "renamed"], "no temporary name");
    daemon.terminate();
}

#[test]
fn a_file_that_is_cut_by_its_name_is_taken_all_the_same() {
    let Some((fleet, daemon)) = watching("forever") else { return };
    let script = "import os,sys\nopen(sys.argv[1],'w').write('0123456789')\nos.truncate(sys.argv[1], 5)\n";
    assert!(Command::new("python3").args(["-c", script]).arg(fleet.source("cut")).status().unwrap().success());
    fleet.wait_until_retired("cut");
    fleet.assert_equal("open", "cut", b"01234");
    daemon.terminate();
}

#[test]
fn a_single_run_waits_for_a_file_that_was_written_just_now_and_retires_it() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    fs::write(fleet.source("fresh"), "fresh").unwrap();
    let start = Instant::now();
    let ended = fleet.once();
    assert!(ended.code == Some(0), "{ended:?}");
    assert!(fleet.retired("fresh").exists() && start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_single_run_leaves_a_file_that_is_open() {
    let plan = Fleet::new().directory("in").key("SettleTime", "100ms").openssh("open");
    let Some(fleet) = plan.start() else { return };
    let file = File::create(fleet.source("open")).unwrap();
    fs::write(fleet.source("closed"), "closed").unwrap();
    fleet.once();
    assert!(fleet.retired("closed").exists() && !is_taken(&fleet, "open"));
    drop(file);
}

/// Prints how long it takes from a close to the whole file on the vessel: less than 300 ms on a machine that has nothing else
/// to do, which is not asked of one that runs other tests.
#[test]
fn a_closed_file_is_on_the_vessel_at_once() {
    let Some((fleet, daemon)) = watching("forever") else { return };
    let mut times: Vec<Duration> = (0..21).map(|number| time_to_the_vessel(&fleet, &format!("f{number}"))).collect();
    times.sort();
    println!("from close to delivered: median {:?}, longest {:?}", times[10], times[20]);
    assert!(times[10] < Duration::from_secs(2), "{times:?}");
    daemon.terminate();
}

fn time_to_the_vessel(fleet: &Fleet, name: &str) -> Duration {
    let place = fleet.vessel("open").path("in").join(name);
    fs::write(fleet.source(name), name).unwrap();
    let start = Instant::now();
    while !Path::new(&place).exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "{name} does not arrive");
        sleep(Duration::from_millis(1));
    }
    start.elapsed()
}
