//! What is logged: how much, in which form, and where to.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::fleet::Fleet;
use crate::fleet::namespace::Mounts;
use crate::fleet::wait::wait_until;

#[test]
fn a_log_file_that_was_moved_away_is_opened_anew_on_hangup() {
    let plan = Fleet::new().openssh("tern").monster("LogFile", "log/here.log").monster("LogLevel", "debug");
    let Some(fleet) = plan.start() else { return };
    fs::create_dir(fleet.path("log")).unwrap();
    let (here, away) = (fleet.path("log/here.log"), fleet.path("log/away.log"));
    let says = |file, word: &str| fs::read_to_string(file).is_ok_and(|text| text.contains(word));
    let daemon = fleet.run();
    fleet.put("first", b"one");
    fleet.wait_until_retired("first");
    wait_until("the first delivery to be logged", || says(&here, "DEBUG") && says(&here, "first"));
    fs::rename(&here, &away).unwrap();
    daemon.send(Signal::HUP);
    wait_until("the log to be opened anew", || here.exists());
    fleet.put("second", b"two");
    fleet.wait_until_retired("second");
    wait_until("the second delivery to be logged", || says(&here, "second"));
    assert!(!says(&away, "second") && says(&away, "first"));
    assert!(daemon.log().is_empty(), "{:?}", daemon.log());
    daemon.terminate();
}

#[test]
fn each_line_of_a_json_log_is_an_object() {
    let Some(fleet) = Fleet::new().openssh("tern").monster("LogFormat", "json").start() else { return };
    fleet.put("cargo", b"cargo");
    let daemon = fleet.run();
    let line = daemon.wait_for_log(&["\"message\":\"delivered\""]);
    for word in ["{\"timestamp\":", "\"level\":\"INFO\"", "\"vessel\":\"tern\"", "\"file\":\"cargo\"", "\"bytes\":5"] {
        assert!(line.contains(word), "{word} in {line}");
    }
    assert!(daemon.log().iter().all(|line| line.starts_with('{') && line.ends_with('}')), "{:?}", daemon.log());
    daemon.terminate();
}

#[test]
fn only_what_is_grave_enough_is_logged_unless_the_environment_says_otherwise() {
    let Some(fleet) = Fleet::new().openssh("tern").monster("LogLevel", "warn").start() else { return };
    fleet.put("one", b"cargo");
    let daemon = fleet.run();
    fleet.wait_until_retired("one");
    daemon.terminate();
    assert!(daemon_log_is_empty(&fleet));
    let daemon = fleet.run_logging("info");
    fleet.put("two", b"cargo");
    daemon.wait_for_log(&["delivered", "two"]);
    daemon.terminate();
}

/// Runs once more, with nothing to do.
fn daemon_log_is_empty(fleet: &Fleet) -> bool {
    let daemon = fleet.run();
    fleet.put("again", b"cargo");
    fleet.wait_until_retired("again");
    let is_empty = daemon.log().is_empty();
    daemon.terminate();
    is_empty
}

#[test]
fn the_system_log_gets_a_datagram_for_each_line() {
    let Some(fleet) = Fleet::new().openssh("tern").monster("LogFile", "syslog").start() else { return };
    let socket = fleet.path("log.socket");
    let log = UnixDatagram::bind(&socket).unwrap();
    log.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let dev = fleet.path("dev");
    fs::create_dir(&dev).unwrap();
    std::os::unix::fs::symlink(&socket, dev.join("log")).unwrap();
    for device in ["null", "urandom", "random", "zero", "tty"] {
        std::os::unix::fs::symlink(format!("/proc/1/root/dev/{device}"), dev.join(device)).unwrap();
    }
    let daemon = fleet.run_with(&Mounts::default().bind(&dev, "/dev".as_ref()));
    fleet.put("cargo", b"cargo");
    let mut heard = vec![0; 8192];
    let line = loop {
        let length = log.recv(&mut heard).expect("a line about the delivery comes");
        let line = String::from_utf8_lossy(&heard[..length]).into_owned();
        if line.contains("delivered") {
            break line;
        }
    };
    assert!(
        line.starts_with("<30>contentmonster[") && line.contains("]: delivered") && !line.ends_with('\n'),
        "{line}"
    );
    daemon.terminate();
}

#[test]
fn a_log_file_that_can_not_be_opened_is_named() {
    let Some(fleet) = Fleet::new().openssh("tern").monster("LogFile", "nowhere/here.log").start() else { return };
    let ended = fleet.once();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    ended.must_say(&["LogFile", "nowhere/here.log", "cannot open"]);
}

#[test]
fn lines_that_journald_reads_say_how_grave_they_are_and_leave_the_time_to_it() {
    let Some(fleet) = Fleet::new().openssh("tern").openssh("gull").start() else { return };
    fleet.vessel("gull").stop();
    let journal = fs::File::create(fleet.path("journal")).unwrap();
    let at = journal.metadata().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_contentmonster"));
    command.arg("--settings").arg(fleet.settings()).arg("--once").env("HOME", fleet.path("home"));
    command.env("JOURNAL_STREAM", format!("{}:{}", at.dev(), at.ino())).env_remove("SSH_AUTH_SOCK");
    fleet.put("cargo", b"cargo");
    let ended = command.stderr(journal).output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let journal = fs::read_to_string(fleet.path("journal")).unwrap();
    let has = |start: &str, word: &str| journal.lines().any(|line| line.starts_with(start) && line.contains(word));
    assert!(has("<6>delivered ", "vessel=tern directory=in file=cargo bytes=5 took="), "{journal}");
    assert!(has("<4>Away: 127.0.0.1:", "vessel=gull"), "{journal}");
    assert!(journal.lines().all(|line| line.starts_with('<')), "{journal}");
}
