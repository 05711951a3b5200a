//! `why` names the true reason of a failure, and a mend that works: ten of them staged, told, and mended.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::daemon::Daemon;
use crate::fleet::plan::FleetPlan;
use crate::fleet::vessel::PASSWORD;
use crate::fleet::wait::wait_for;

/// A daemon that has a file for `bad`, which fails.
struct Stage {
    fleet: Fleet,
    daemon: Daemon,
    cargo: Vec<u8>,
}

impl Stage {
    fn set(plan: FleetPlan, size: usize, break_it: impl FnOnce(&Fleet)) -> Option<Self> {
        let fleet = plan.start()?;
        break_it(&fleet);
        let cargo = content(3, size);
        fleet.put("cargo", &cargo);
        Some(Self { daemon: fleet.run(), fleet, cargo })
    }

    /// Waits until `why` says all of these words in one line, and prints the story.
    #[track_caller]
    fn why(&self, words: &[&str]) {
        let said = wait_for(&format!("why to say {words:?}"), || {
            let said = self.fleet.call(&["why", "in/cargo", "--vessel", "bad"], "");
            said.says(words).then_some(said)
        });
        println!("{}", said.stdout);
        assert_eq!(said.code, Some(1), "it is not delivered: {said:?}");
        said.must_say(&["you can:"]);
    }

    /// Starts the daemon again with other settings.
    fn restart_with(self, change: impl FnOnce(String) -> String) -> Self {
        self.daemon.terminate();
        let text = fs::read_to_string(self.fleet.settings()).unwrap();
        self.fleet.write_settings(&change(text));
        Self { daemon: self.fleet.run(), ..self }
    }

    fn order(&self, arguments: &[&str]) {
        let ended = self.fleet.call(arguments, "");
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }

    /// Has it tried again at once, and sees it arrive.
    #[track_caller]
    fn delivered_after(self, arguments: &[&str]) {
        self.order(arguments);
        self.delivered();
    }

    #[track_caller]
    fn delivered(self) {
        self.fleet.wait_until_retired("cargo");
        if self.fleet.vessel("bad").path("in/cargo").exists() {
            self.fleet.assert_equal("bad", "cargo", &self.cargo);
        }
        let said = self.fleet.call(&["why", "cargo"], "");
        assert_eq!(said.code, Some(0), "{said:?}");
        said.must_say(&["bad", "delivered"]);
        self.daemon.terminate();
    }
}

#[test]
fn a_wrong_password() {
    let plan = Fleet::new().openssh("bad").without_key().key("Password", "hunter2hunter2");
    let Some(stage) = Stage::set(plan, 5, |_| ()) else { return };
    stage.why(&["bad", "away", "refuses the login", "check Username, Password"]);
    assert!(!stage.fleet.call(&["why", "cargo"], "").says(&["hunter2"]), "a secret on the screen");
    stage.restart_with(|text| text.replace("hunter2hunter2", PASSWORD)).delivered();
}

#[test]
fn a_changed_host_key() {
    let Some(stage) = Stage::set(Fleet::new().openssh("bad"), 5, |fleet| {
        fleet.vessel("bad").stop();
        fleet.vessel("bad").change_host_key();
        fleet.vessel("bad").start();
    }) else {
        return;
    };
    stage.why(&["bad", "away", "host key", "known_hosts:1"]);
    fs::write(stage.fleet.known_hosts(), stage.fleet.vessel("bad").known_hosts_line()).unwrap();
    stage.delivered_after(&["retry", "--vessel", "bad"]);
}

#[test]
fn a_full_disk() {
    let plan = Fleet::new().sftp_only("bad").temp_on_tmpfs("2m");
    let Some(fleet) = Stage::set(plan, MIB, |fleet| {
        let text = fs::read_to_string(fleet.settings()).unwrap();
        fleet.write_settings(&text.replace("RemoteLocation.in = /in", "RemoteLocation.in = /temp/in"));
        fs::write(fleet.vessel("bad").path("temp/ballast"), content(9, MIB + MIB / 2)).unwrap();
    }) else {
        return;
    };
    fleet.why(&["bad", "full", "free some space there"]);
    fs::remove_file(fleet.fleet.vessel("bad").path("temp/ballast")).unwrap();
    fleet.delivered_after(&["retry", "in/cargo"]);
}

#[test]
fn a_read_only_file_system() {
    let Some(stage) = Stage::set(Fleet::new().openssh("bad").read_only("in"), 5, |_| ()) else { return };
    stage.why(&["bad", "read-only", "RemoteLocation"]);
    let elsewhere = stage.fleet.vessel("bad").remote("elsewhere");
    let mend = format!("[Vessel bad]\nRemoteLocation.in = {elsewhere}");
    stage.restart_with(|text| text.replace("[Vessel bad]", &mend)).delivered();
}

#[test]
fn a_name_that_is_too_long_there() {
    let Some(stage) = Stage::set(Fleet::new().openssh("bad"), 5, |fleet| {
        let long = fleet.vessel("bad").remote(&"n".repeat(300));
        let text = fs::read_to_string(fleet.settings()).unwrap();
        fleet.write_settings(&text.replace("[Vessel bad]", &format!("[Vessel bad]\nRemoteLocation.in = {long}")));
    }) else {
        return;
    };
    stage.why(&["bad", "parked", "is too long for the vessel", "RemoteLocation"]);
    stage.restart_with(|text| text.replace(&"n".repeat(300), "short")).delivered();
}

#[test]
fn an_account_without_a_shell_to_run_sftp() {
    let Some(stage) = Stage::set(Fleet::new().openssh("bad"), 5, |fleet| {
        let passwd = fleet.vessel("bad").etc("passwd");
        let text = fs::read_to_string(&passwd).unwrap();
        // Written in place: the file is mounted.
        fs::write(&passwd, text.replace("/bin/sh", "/usr/sbin/nologin")).unwrap();
    }) else {
        return;
    };
    stage.why(&["bad", "away", "offers no SFTP", "internal-sftp"]);
    let config = stage.fleet.vessel("bad").etc("sshd_config");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("/usr/lib/openssh/sftp-server", "internal-sftp")).unwrap();
    stage.fleet.vessel("bad").stop();
    stage.fleet.vessel("bad").start();
    stage.delivered_after(&["retry", "--vessel", "bad"]);
}

#[test]
fn a_dead_link() {
    let Some(stage) = Stage::set(Fleet::new().openssh("bad"), 5, |fleet| fleet.vessel("bad").stop()) else { return };
    stage.why(&["bad", "away", "can't be reached"]);
    stage.fleet.vessel("bad").start();
    stage.delivered();
}

#[test]
fn a_source_that_goes_on_changing() {
    let plan = Fleet::new().monster("ChunkSize", "64 KiB").openssh("bad").proxied();
    let Some(mut stage) = Stage::set(plan, 2 * MIB, |fleet| fleet.vessel("bad").link().limit(64 << 10)) else { return };
    stage.daemon.wait_for_log(&["bad", "connected"]);
    wait_for("it to be under way", || {
        stage.fleet.call(&["why", "in/cargo"], "").says(&["bad", "in progress"]).then_some(())
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let source = stage.fleet.source("cargo");
        let writer = scope.spawn(|| {
            let mut file = File::options().append(true).open(source).unwrap();
            let mut added = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"more").unwrap();
                added.extend_from_slice(b"more");
                std::thread::sleep(Duration::from_millis(50));
            }
            added
        });
        stage.why(&["changed after it was taken in", "not changed for"]);
        stop.store(true, Ordering::Relaxed);
        stage.cargo.extend(writer.join().unwrap());
    });
    stage.fleet.vessel("bad").link().limit(0);
    stage.delivered();
}

/// An SFTP server in front of the real one that changes the last byte of each write while the file beside it is there.
const DAMAGING_SERVER: &str = r#"#!/usr/bin/python3
import os, struct, subprocess, sys
while_there = os.path.join(os.path.dirname(os.path.abspath(__file__)), "damaging")
server = subprocess.Popen(["/usr/lib/openssh/sftp-server"], stdin=subprocess.PIPE)
def read(size):
    data = sys.stdin.buffer.read(size)
    if len(data) < size:
        server.stdin.close()
        sys.exit(server.wait())
    return data
while True:
    (length,) = struct.unpack(">I", read(4))
    packet = bytearray(read(length))
    SSH_FXP_WRITE = 6
    if packet[0] == SSH_FXP_WRITE and os.path.exists(while_there):
        packet[-1] ^= 1
    server.stdin.write(struct.pack(">I", length) + packet)
    server.stdin.flush()
"#;

#[test]
fn a_vessel_that_damages_what_it_holds() {
    let Some(stage) = Stage::set(Fleet::new().openssh("bad"), MIB, |fleet| {
        let vessel = fleet.vessel("bad");
        let (server, config) = (vessel.etc("sftp-server"), vessel.etc("sshd_config"));
        fs::write(&server, DAMAGING_SERVER).unwrap();
        fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(vessel.etc("damaging"), "").unwrap();
        let text = fs::read_to_string(&config).unwrap();
        let text = text.replace("/usr/lib/openssh/sftp-server", server.to_str().unwrap());
        fs::write(&config, text).unwrap();
        vessel.stop();
        vessel.start();
    }) else {
        return;
    };
    stage.why(&["bad", "parked", "arrived damaged", "check the vessel's disk"]);
    fs::remove_file(stage.fleet.vessel("bad").etc("damaging")).unwrap();
    stage.delivered_after(&["retry", "in/cargo", "--vessel", "bad"]);
}

#[test]
fn a_paused_vessel() {
    let Some(stage) = Stage::set(Fleet::new().openssh("bad"), 5, |fleet| {
        fleet.vessel("bad").stop();
        fleet.put("before", b"before");
        fleet.once();
        fleet.call(&["pause", "bad"], "");
        fleet.vessel("bad").start();
    }) else {
        return;
    };
    stage.why(&["bad", "paused since"]);
    stage.why(&["you can", "resume bad"]);
    stage.delivered_after(&["resume", "bad"]);
}

#[test]
fn a_file_that_nobody_knows_or_takes_is_told_apart() {
    let Some(fleet) = Fleet::new().openssh("bad").start() else { return };
    assert_eq!(fleet.once().code, Some(0));
    fs::write(fleet.source("draft.part"), "draft").unwrap();
    fleet.call(&["why", "in/draft.part"], "").must_say(&["skipped", "IgnoreNames"]);
    std::os::unix::fs::symlink("draft.part", fleet.source("link")).unwrap();
    fleet.call(&["why", "in/link"], "").must_say(&["skipped", "symbolic link"]);
    fleet.put("cargo", b"cargo");
    fleet.call(&["why", "in/cargo"], "").must_say(&["not taken in yet", "not running"]);
    let nowhere = fleet.call(&["why", "nowhere"], "");
    assert_eq!(nowhere.code, Some(2));
    nowhere.must_say(&["nowhere is in no directory of the settings"]);
}
