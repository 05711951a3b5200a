//! Real servers that are killed, fill up, change their key or lock the account, and a shore whose own disk is full.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::namespace::Mounts;
use crate::fleet::wait::{never_within, wait_until};

#[test]
fn a_server_killed_again_and_again_during_traffic_gets_everything() {
    let plan = Fleet::new().monster("ChunkSize", "1 MiB").openssh("open").key("Timeout", "5s").proxied();
    // A server that is killed right after a login may leave a session that never answers. The start of SFTP has six times
    // Timeout.
    let plan = plan.sftp_only("chroot").key("Timeout", "5s").proxied();
    let Some(fleet) = plan.start() else { return };
    let vessels = ["open", "chroot"];
    vessels.iter().for_each(|vessel| fleet.vessel(vessel).link().limit(8 * MIB as u64));
    let daemon = fleet.run();
    let mut files = Vec::new();
    for round in 0..8 {
        for file in 0..4 {
            let bytes = content(round * 10 + file, if file == 0 { 3 * MIB } else { 20_000 });
            let name = format!("{round}-{file}");
            fleet.put(&name, &bytes);
            files.push((name, bytes));
        }
        std::thread::sleep(Duration::from_millis(fastrand::u64(50..700)));
        let vessel = fleet.vessel(vessels[fastrand::usize(..2)]);
        vessel.stop();
        std::thread::sleep(Duration::from_millis(fastrand::u64(..300)));
        vessel.start();
    }
    vessels.iter().for_each(|vessel| fleet.vessel(vessel).link().limit(0));
    for (name, bytes) in &files {
        fleet.wait_until_retired(name);
        vessels.iter().for_each(|vessel| fleet.assert_equal(vessel, name, bytes));
    }
    vessels.iter().for_each(|vessel| fleet.wait_until_tidy(vessel));
    daemon.terminate();
}

#[test]
fn a_full_vessel_parks_with_the_numbers_and_goes_on_by_itself_when_there_is_room() {
    for shell in [true, false] {
        let plan = Fleet::new().monster("ChunkSize", "1 MiB");
        let plan = if shell { plan.openssh("full") } else { plan.sftp_only("full") };
        let Some(fleet) = plan.temp_on_tmpfs("8m").start() else { return };
        // What goes there goes to the small file system.
        let text = fs::read_to_string(fleet.settings()).unwrap();
        let place = format!("RemoteLocation.in = {}", fleet.vessel("full").remote("temp/in"));
        let text = text.replace(&format!("RemoteLocation.in = {}", fleet.vessel("full").remote("in")), "");
        fleet.write_settings(&text.replace("[Vessel full]", &format!("[Vessel full]\n{place}")));
        let ballast = fleet.vessel("full").path("temp/ballast");
        fs::write(&ballast, content(1, 7 * MIB)).unwrap();
        let big = content(2, 3 * MIB);
        fleet.put("cargo", &big);
        let daemon = fleet.run();
        println!("{}", daemon.wait_for_log(&["full", "bytes are free", "bytes are needed", "free some space there"]));
        assert!(fleet.source("cargo").exists());
        let room = Instant::now();
        fs::remove_file(&ballast).unwrap();
        fleet.wait_until_retired("cargo");
        println!("shell {shell}: delivered {:.1?} after there was room", room.elapsed());
        assert_eq!(fs::read(fleet.vessel("full").path("temp/in/cargo")).unwrap(), big);
        daemon.terminate();
    }
}

#[test]
fn a_host_key_that_changes_is_refused_until_somebody_says_that_it_is_right() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    fleet.put("first", b"first");
    let daemon = fleet.run();
    fleet.wait_until_retired("first");
    let vessel = fleet.vessel("open");
    vessel.stop();
    vessel.change_host_key();
    vessel.start();
    fleet.put("second", b"second");
    println!("{}", daemon.wait_for_log(&["open", "host key", "has another"]));
    let served = || fleet.held("open", "second").is_some();
    never_within(Duration::from_secs(3), "served in spite of its key", served);
    fs::write(fleet.known_hosts(), vessel.known_hosts_line()).unwrap();
    fleet.wait_until_retired("second");
    daemon.terminate();
}

/// How often the server's log holds these words.
fn times_logged(fleet: &Fleet, vessel: &str, words: &str) -> usize {
    let log = fs::read(fleet.vessel(vessel).etc("../log")).unwrap_or_default();
    String::from_utf8_lossy(&log).matches(words).count()
}

#[test]
fn a_locked_account_is_left_in_peace_and_served_when_it_is_open_again() {
    let Some(fleet) = Fleet::new().openssh("locked").openssh("good").start() else { return };
    let shadow = fleet.vessel("locked").etc("shadow");
    let open = fs::read_to_string(&shadow).unwrap();
    fs::write(&shadow, open.replacen("root:", "root:!", 1)).unwrap();
    fleet.put("cargo", b"cargo");
    let daemon = fleet.run();
    fleet.wait_until_served("good", "cargo", b"cargo");
    println!("{}", daemon.wait_for_log(&["locked", "refuses the login"]));
    let tried = || times_logged(&fleet, "locked", "Connection from");
    let before = tried();
    never_within(Duration::from_secs(3), "more than one further login", || tried() > before + 1);
    fs::write(&shadow, open).unwrap();
    daemon.terminate();
    let daemon = fleet.run();
    fleet.wait_until_retired("cargo");
    daemon.terminate();
}

#[test]
fn an_account_whose_shell_is_nologin_is_named_with_what_it_lacks() {
    let Some(fleet) = Fleet::new().openssh("bad").openssh("good").start() else { return };
    let passwd = fleet.vessel("bad").etc("passwd");
    let text = fs::read_to_string(&passwd).unwrap();
    fs::write(&passwd, text.replace("/bin/sh", "/usr/sbin/nologin")).unwrap();
    fleet.put("cargo", b"cargo");
    let daemon = fleet.run();
    fleet.wait_until_served("good", "cargo", b"cargo");
    println!("{}", daemon.wait_for_log(&["bad", "succeeded, but the server offers no SFTP", "not available"]));
    assert!(fleet.source("cargo").exists());
    daemon.terminate();
}

#[test]
fn without_room_for_its_ledger_the_program_stops_and_says_so() {
    let plan = Fleet::new().monster("Database", "db/ledger.sqlite3").monster("MinFree", "0");
    let Some(fleet) = plan.openssh("open").start() else { return };
    let place = fleet.path("db");
    fs::create_dir(&place).unwrap();
    fleet.put("first", b"first");
    let mut daemon = fleet.run_with(&Mounts::default().tmpfs("2m", &place));
    fleet.wait_until_retired("first");
    fill(&daemon.seen(&place).join("ballast"));
    let mut file = 0;
    wait_until("the program to end", || {
        file += 1;
        fleet.put(format!("{file:0>200}"), &content(file, 2_000));
        !daemon.runs()
    });
    let ended = daemon.ended();
    assert_eq!(ended.code, Some(4), "{ended:?}");
    ended.must_say(&["ledger", "check the free space"]);
    let lost = (1..=file).map(|file| format!("{file:0>200}")).find(|name| {
        let retired = fleet.retired(name).exists() && fleet.held("open", name).is_some();
        !(retired || fleet.source(name).exists())
    });
    assert_eq!(lost, None, "lost, or retired without being delivered");
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for piece in [64 << 10, 4 << 10, 1] {
        let bytes = vec![1; piece];
        while file.write_all(&bytes).is_ok() {}
    }
}
