//! New settings while it runs: what they don't concern goes on undisturbed, and nothing is lost or sent again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::fleet::content::{MIB, content};
use crate::fleet::daemon::Daemon;
use crate::fleet::wait::{never_within, wait_until};
use crate::fleet::{Fleet, names_in};

/// A settings file, to be changed section by section.
#[derive(Clone)]
struct Text(Vec<(String, String)>);

impl Text {
    fn of(fleet: &Fleet) -> Self {
        let text = std::fs::read_to_string(fleet.settings()).unwrap();
        let section = |section: &str| {
            let (title, keys) = section.split_once("]\n").unwrap();
            (title.to_owned(), keys.to_owned())
        };
        Self(text.split('[').skip(1).map(section).collect())
    }

    fn without(mut self, title: &str) -> Self {
        self.0.retain(|(other, _)| other != title);
        self
    }

    fn with(mut self, title: &str, line: &str) -> Self {
        let section = self.0.iter_mut().find(|(other, _)| other == title).expect("the plan has it");
        section.1 = format!("{line}\n{}", section.1);
        self
    }

    fn write(&self, fleet: &Fleet) {
        let text: String = self.0.iter().map(|(title, keys)| format!("[{title}]\n{keys}")).collect();
        fleet.write_settings(&text);
    }
}

/// Has the daemon read these settings, and waits until it has said what came of it.
#[track_caller]
fn reload(fleet: &Fleet, daemon: &Daemon, text: &Text) {
    let said = || count(daemon, "Settings reloaded:") + count(daemon, "Settings were not reloaded");
    let before = said();
    text.write(fleet);
    daemon.send(Signal::HUP);
    wait_until("the settings to be read anew", || said() > before);
}

fn count(daemon: &Daemon, words: &str) -> usize {
    daemon.log().iter().filter(|line| line.contains(words)).count()
}

/// What the settings say at a step: each time something else, and at every tenth the same.
fn settings_at(step: usize, all: &Text) -> Text {
    let all = all.clone();
    match step % 10 {
        1 => all.with("Vessel one", if step % 20 < 10 { "RateLimit = 1536 KiB/s" } else { "RateLimit = 3 MiB/s" }),
        2 | 3 => all.without("Vessel three"),
        4 => all.with("MONSTER", "ChunkSize = 2 MiB"),
        5 => all.without("Directory extra"),
        6 => all.with("Directory in", "Exclude = *.skip"),
        7 => all.with("Vessel two", "Timeout = 11s"),
        8 => all.with("MONSTER", "RateLimit = 20 MiB/s").without("Directory extra"),
        9 => all.with("Vessel two", "IgnoreDirs = extra"),
        _ => all,
    }
}

#[test]
fn fifty_reloads_under_traffic_lose_nothing_and_start_no_transfer_over() {
    // Nothing may retire while `down` lacks it, whatever comes and goes beside it.
    let plan = Fleet::new().directory("extra").openssh("one").proxied().openssh("two").proxied();
    let plan = plan.openssh("three").proxied().openssh("down").proxied();
    let Some(fleet) = plan.start() else { return };
    let reached = ["one", "two", "three"];
    let all = Text::of(&fleet);
    fleet.vessel("down").stop();
    let link = |vessel: &str| fleet.vessel(vessel).link();
    reached.iter().for_each(|vessel| link(vessel).limit(2 * MIB as u64));
    let put = |directory: &str, name: &str, bytes: &[u8]| {
        let place = fleet.path("shore").join(directory).join(name);
        fleet.put_at(&place, bytes, 0o644, std::time::SystemTime::now());
    };
    let mut files =
        vec![("in", "big".to_owned(), content(1, 24 * MIB)), ("extra", "large".to_owned(), content(2, 12 * MIB))];
    files.iter().for_each(|(directory, name, bytes)| put(directory, name, bytes));

    let daemon = fleet.run();
    wait_until("the first transfers to be under way", || reached.iter().all(|vessel| link(vessel).sent() > MIB as u64));
    for step in 1..=50 {
        let (name, directory) = (format!("small {step}"), if step % 2 == 0 { "in" } else { "extra" });
        let bytes = content(100 + step as u64, 1 + step * 1000);
        put(directory, &name, &bytes);
        files.push((directory, name, bytes));
        if step % 10 == 3 {
            reload(&fleet, &daemon, &Text(vec![("Vessel one".to_owned(), "Adress = 127.0.0.1\n".to_owned())]));
        }
        reload(&fleet, &daemon, &settings_at(step, &all));
    }
    for directory in ["in", "extra"] {
        let processed = names_in(&fleet.path("shore").join(directory).join("processed"));
        assert!(processed.is_empty(), "retired before every vessel had it: {processed:?}");
    }
    let under_way: Vec<u64> = reached.iter().map(|vessel| link(vessel).sent() >> 20).collect();
    println!("MiB sent at the end of the reloads: {under_way:?}");
    reached.iter().for_each(|vessel| link(vessel).limit(0));
    fleet.vessel("down").start();

    for (directory, name, bytes) in &files {
        let place = fleet.path("shore").join(directory);
        wait_until(&format!("{directory}/{name} to retire"), || {
            place.join("processed").join(name).exists() && !place.join(name).exists()
        });
        for vessel in reached.iter().chain(&["down"]) {
            let held = std::fs::read(fleet.vessel(vessel).path(directory).join(name)).unwrap();
            assert!(held == *bytes, "{vessel} holds other bytes as {directory}/{name}");
        }
    }
    let size: usize = files.iter().map(|(_, _, bytes)| bytes.len()).sum();
    for vessel in reached {
        let (over, connected) = (link(vessel).sent() as i64 - size as i64, link(vessel).sent_on_each().len());
        println!("{vessel}: {} KiB sent over the files' size, {connected} connections", over / 1024);
        assert!(over < 6 * MIB as i64, "{over} bytes were sent twice to {vessel}");
    }
    // What concerns the others and its own RateLimit is no reason to connect anew.
    let connected =
        daemon.log().iter().filter(|line| line.contains("Connected") && line.contains("vessel=one")).count();
    assert_eq!(connected, 1, "one was connected to again");
    assert_eq!(count(&daemon, "did you mean Address"), 5, "each broken file was named");
    daemon.terminate();
    reached.iter().for_each(|vessel| fleet.assert_tidy(vessel));
}

#[test]
fn a_bad_settings_file_leaves_everything_as_it_was_and_says_why() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    let text = Text::of(&fleet);
    let daemon = fleet.run();
    fleet.put("before", b"1");
    fleet.wait_until_retired("before");
    let bad = text.clone().with("Vessel tern", "Timeout = soon").with("Directory in", "Recursiv = yes");
    reload(&fleet, &daemon, &bad);
    for words in [["settings.ini:", "Timeout"], ["settings.ini:", "did you mean Recursive"], ["not reloaded", "2"]] {
        daemon.wait_for_log(&words);
    }
    // The command line itself can't use the broken file, so it is asked with the good one.
    text.write(&fleet);
    let status = fleet.call(&["status"], "");
    status.must_say(&["the last reload of the settings failed"]);
    status.must_say(&["settings.ini:", "did you mean Recursive"]);
    fleet.put("meanwhile", b"2");
    fleet.wait_until_retired("meanwhile");

    let fixed = text.clone().with("MONSTER", "Cache = 16 MiB").with("MONSTER", "Database = elsewhere.sqlite3");
    reload(&fleet, &daemon, &fixed);
    daemon.wait_for_log(&["Cache, Database", "restart"]);
    assert!(!fleet.path("elsewhere.sqlite3").exists());
    text.write(&fleet);
    let status = fleet.call(&["status"], "");
    assert!(!status.says(&["failed"]), "{status:?}");
    status.must_say(&["Cache, Database", "restart"]);
    assert_eq!(count(&daemon, "Connected"), 1, "{:?}", daemon.log());
    daemon.terminate();
}

#[test]
fn a_vessel_that_is_removed_is_waited_for_no_more_and_one_that_is_added_gets_what_is_there() {
    let Some(fleet) = Fleet::new().openssh("up").openssh("late").openssh("gone").start() else { return };
    let all = Text::of(&fleet);
    fleet.vessel("gone").stop();
    all.clone().without("Vessel late").write(&fleet);
    let daemon = fleet.run();
    fleet.put("cargo", b"cargo");
    fleet.wait_until_served("up", "cargo", b"cargo");
    never_within(Duration::from_millis(500), "retired without the vessel that is gone", || {
        fleet.retired("cargo").exists()
    });
    reload(&fleet, &daemon, &all);
    fleet.wait_until_served("late", "cargo", b"cargo");
    assert!(fleet.source("cargo").exists(), "it still waits for the vessel that is gone");
    reload(&fleet, &daemon, &all.clone().without("Vessel gone"));
    fleet.wait_until_retired("cargo");
    let status = fleet.call(&["status", "--json"], "");
    assert!(!status.says(&["\"gone\""]), "{status:?}");
    daemon.terminate();
}

#[test]
fn a_directory_that_is_added_is_watched_and_one_that_moved_is_read_where_it_is_now() {
    let Some(fleet) = Fleet::new().directory("extra").openssh("tern").start() else { return };
    let all = Text::of(&fleet);
    all.clone().without("Directory extra").write(&fleet);
    let daemon = fleet.run();
    fleet.put("cargo", b"cargo");
    fleet.wait_until_retired("cargo");
    let extra = |below: &str| fleet.path("shore/extra").join(below);
    std::fs::write(extra("first"), "1").unwrap();
    reload(&fleet, &daemon, &all);
    wait_until("what lay there to retire", || extra("processed/first").exists());
    std::fs::write(extra("second"), "2").unwrap();
    wait_until("what comes to retire", || extra("processed/second").exists());
    // The same directory, going elsewhere.
    let elsewhere = fleet.vessel("tern").remote("elsewhere");
    reload(&fleet, &daemon, &all.with("Directory extra", &format!("RemoteLocation = {elsewhere}")));
    std::fs::write(extra("third"), "3").unwrap();
    wait_until("it to arrive there", || fleet.vessel("tern").path("elsewhere/third").exists());
    assert_eq!(count(&daemon, "Connected"), 1, "{:?}", daemon.log());
    daemon.terminate();
}

#[test]
fn a_hangup_ends_a_single_run_as_a_closed_terminal_should() {
    let Some(fleet) = Fleet::new().openssh("slow").proxied().start() else { return };
    fleet.vessel("slow").link().limit(256 << 10);
    fleet.put("big", &content(3, 64 * MIB));
    let daemon = fleet.begin(&["--once"], "");
    wait_until("the transfer to be under way", || fleet.vessel("slow").link().sent() > MIB as u64 / 2);
    daemon.send(Signal::HUP);
    let ended = daemon.ended();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended.must_say(&["not everything is delivered"]);
}

#[test]
fn it_stops_within_seconds_while_one_vessel_is_slow_and_another_silent() {
    let plan = Fleet::new().openssh("slow").proxied().openssh("silent").proxied().key("Timeout", "60s");
    let Some(fleet) = plan.start() else { return };
    let link = |vessel: &str| fleet.vessel(vessel).link();
    link("slow").limit(64 << 10);
    link("silent").limit(MIB as u64);
    fleet.put("big", &content(4, 64 * MIB));
    (0..20).for_each(|at| fleet.put(format!("small {at}"), &content(at, 50_000)));
    let daemon = fleet.run();
    wait_until("both to be under way", || ["slow", "silent"].iter().all(|vessel| link(vessel).sent() > 300_000));
    fleet.vessel("silent").freeze();
    daemon.terminate();
    fleet.vessel("silent").thaw();
}

/// What the service manager is told, in a thread's reach.
struct Manager {
    socket: std::os::unix::net::UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = std::os::unix::net::UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(crate::fleet::wait::DEADLINE)).unwrap();
        Self { socket, path: path.to_owned() }
    }

    /// The next message that holds all of these words; what comes before is passed over.
    #[track_caller]
    fn hears(&self, words: &[&str]) -> String {
        let mut heard = vec![0; 8192];
        loop {
            let length = self.socket.recv(&mut heard).unwrap_or_else(|error| panic!("no {words:?}: {error}"));
            let message = String::from_utf8_lossy(&heard[..length]).into_owned();
            if words.iter().all(|word| message.contains(word)) {
                return message;
            }
        }
    }
}

#[test]
fn a_service_manager_hears_of_readiness_backlog_reloads_the_end_and_a_regular_heartbeat() {
    let Some(fleet) = Fleet::new().openssh("up").openssh("down").start() else { return };
    fleet.vessel("down").stop();
    let manager = Manager::at(&fleet.path("notify.socket"));
    let environment = [("NOTIFY_SOCKET", manager.path.as_path()), ("WATCHDOG_USEC", Path::new("500000"))];
    let daemon = fleet.run_in(&environment);
    manager.hears(&["READY=1"]);
    fleet.put("cargo", &content(1, 3 * MIB));
    manager.hears(&["STATUS=1 of 2 vessels connected, away: down; 1 file (3.00 MiB) waiting"]);
    for _ in 0..3 {
        manager.hears(&["WATCHDOG=1"]);
    }
    daemon.send(Signal::HUP);
    manager.hears(&["RELOADING=1\nMONOTONIC_USEC="]);
    manager.hears(&["READY=1"]);
    fleet.write_settings("[MONSTER]\n");
    daemon.send(Signal::HUP);
    manager.hears(&["RELOADING=1"]);
    manager.hears(&["STATUS=", "the last reload of the settings failed"]);
    daemon.send(Signal::TERM);
    manager.hears(&["STOPPING=1"]);
    assert_eq!(daemon.ended().code, Some(0));
}
