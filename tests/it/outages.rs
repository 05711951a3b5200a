//! Vessels that go and come back, links that break, and a shore that is killed: nothing is lost, little is sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::fleet::content::{MIB, content};
use crate::fleet::wait::{never_within, wait_until};
use crate::fleet::{Fleet, names_in};

#[test]
fn a_vessel_that_is_down_delays_nobody_and_is_served_when_it_is_back() {
    let Some(fleet) = Fleet::new().openssh("up").dropbear("down").sftp_only("chroot").start() else { return };
    fleet.vessel("down").stop();
    let daemon = fleet.run();
    fleet.put("cargo", b"cargo");
    fleet.wait_until_served("up", "cargo", b"cargo");
    fleet.wait_until_served("chroot", "cargo", b"cargo");
    daemon.wait_for_log(&["down"]);
    assert!(fleet.source("cargo").exists(), "the source waits for the vessel that is down");
    assert!(!fleet.retired("cargo").exists());

    let back = Instant::now();
    fleet.vessel("down").start();
    fleet.wait_until_served("down", "cargo", b"cargo");
    println!("served {:?} after the vessel came back", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(20), "it took {:?}", back.elapsed());
    fleet.wait_until_retired("cargo");
    daemon.terminate();
}

#[test]
fn a_vessel_that_answers_nothing_delays_nobody() {
    let plan = Fleet::new().openssh("up").openssh("stuck").key("Timeout", "2s");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    fleet.put("first", b"first");
    fleet.wait_until_retired("first");
    fleet.vessel("stuck").freeze();
    fleet.put("second", b"second");
    fleet.wait_until_served("up", "second", b"second");
    daemon.wait_for_log(&["stuck"]);
    never_within(Duration::from_secs(3), "retired without the vessel that is stuck", || {
        fleet.retired("second").exists()
    });
    fleet.vessel("stuck").thaw();
    fleet.wait_until_served("stuck", "second", b"second");
    fleet.wait_until_retired("second");
    daemon.terminate();
}

#[test]
fn a_port_that_closes_every_connection_is_tried_again_until_it_answers() {
    let Some(fleet) = Fleet::new().openssh("up").openssh("mute").proxied().start() else { return };
    // The link still takes connections, and closes them because nobody is behind it.
    fleet.vessel("mute").stop();
    let daemon = fleet.run();
    fleet.put("cargo", b"cargo");
    fleet.wait_until_served("up", "cargo", b"cargo");
    daemon.wait_for_log(&["mute", "127.0.0.1"]);
    fleet.vessel("mute").start();
    fleet.wait_until_retired("cargo");
    fleet.assert_equal("mute", "cargo", b"cargo");
    daemon.terminate();
}

#[test]
fn killed_halfway_through_a_big_file_it_sends_no_complete_chunk_again() {
    let Some(fleet) = Fleet::new().openssh("open").proxied().start() else { return };
    killed_halfway(&fleet, "open");
}

#[test]
fn killed_halfway_it_goes_on_where_it_was_without_a_shell_too() {
    let Some(fleet) = Fleet::new().sftp_only("chroot").proxied().start() else { return };
    killed_halfway(&fleet, "chroot");
}

fn killed_halfway(fleet: &Fleet, vessel: &str) {
    let size = 200 * MIB;
    let bytes = content(4, size);
    fleet.put("big", &bytes);
    let link = fleet.vessel(vessel).link();
    link.limit(64 * MIB as u64);
    let daemon = fleet.run();
    wait_until("half of the file to be sent", || link.sent() > size as u64 / 2);
    daemon.kill9();
    assert!(fleet.held(vessel, "big").is_none(), "a name appears with complete bytes only");
    link.limit(0);

    let daemon = fleet.run();
    fleet.wait_until_retired("big");
    fleet.assert_equal(vessel, "big", &bytes);
    fleet.assert_tidy(vessel);
    let over = link.sent() as i64 - size as i64;
    println!("{} KiB sent over the file's size in both runs", over / 1024);
    // What was in flight, and what SSH and SFTP wrap around the bytes: less than two chunks in all.
    assert!(over < 16 * MIB as i64, "{over} bytes were sent twice");
    daemon.terminate();
}

#[test]
fn a_link_that_breaks_again_and_again_costs_only_what_was_in_flight() {
    let plan = Fleet::new().monster("ChunkSize", "4 MiB").openssh("open").proxied();
    let Some(fleet) = plan.start() else { return };
    let size = 40 * MIB;
    let bytes = content(5, size);
    let link = fleet.vessel("open").link();
    link.limit(20 * MIB as u64);
    let daemon = fleet.run();
    fleet.put("big", &bytes);
    for quarter in 1..4 {
        wait_until("another quarter to be sent", || link.sent() > (size / 4 * quarter) as u64);
        link.cut();
    }
    fleet.wait_until_retired("big");
    fleet.assert_equal("open", "big", &bytes);
    let over = link.sent() as i64 - size as i64;
    println!("{} KiB sent over the file's size with three cuts", over / 1024);
    assert!(over < 12 * MIB as i64, "{over} bytes were sent twice");
    daemon.terminate();
    fleet.assert_tidy("open");
}

#[test]
fn a_connection_that_falls_silent_is_replaced_long_before_it_is_given_up() {
    let plan = Fleet::new().monster("ChunkSize", "4 MiB").openssh("open").key("Timeout", "60s").proxied();
    let Some(fleet) = plan.start() else { return };
    let bytes = content(15, 24 * MIB);
    let link = fleet.vessel("open").link();
    link.limit(8 * MIB as u64);
    let daemon = fleet.run();
    fleet.put("big", &bytes);
    wait_until("a third to be sent", || link.sent() > 8 * MIB as u64);
    link.stall();
    daemon.wait_for_log(&["stopped answering; the connection was replaced", "open"]);
    fleet.wait_until_retired("big");
    fleet.assert_equal("open", "big", &bytes);
    let over = link.sent() as i64 - bytes.len() as i64;
    assert!(over < 4 * MIB as i64, "{over} bytes were sent twice");
    daemon.terminate();
    fleet.assert_tidy("open");
}

#[test]
fn on_a_long_path_a_spare_connection_goes_on_as_soon_as_the_link_is_back() {
    let plan = Fleet::new().monster("ChunkSize", "2 MiB").openssh("open").key("Timeout", "60s").proxied();
    let Some(fleet) = plan.start() else { return };
    let bytes = content(16, 7 * MIB);
    let link = fleet.vessel("open").link();
    // A round trip longer than that of a short path, and with it half a megabyte per second.
    link.lengthen(30);
    let daemon = fleet.run();
    fleet.put("big", &bytes);
    wait_until("the spare connection to be logged in", || {
        let sent = link.sent_on_each();
        sent.len() >= 2 && sent[0] > 2 * MIB as u64 && sent[1..].iter().all(|sent| *sent > 2000)
    });
    let before = link.sent_on_each();
    link.stall_one(0);
    link.take_down(true);
    wait_until("another connection to be tried", || link.sent_on_each().len() > before.len());
    // A moment, not a condition: the spare is not asked before a link that is up could have repaired its losses.
    std::thread::sleep(Duration::from_secs(3));
    link.take_down(false);
    daemon.wait_for_log(&["stopped answering; the connection was replaced", "open"]);
    fleet.wait_until_retired("big");
    fleet.assert_equal("open", "big", &bytes);
    let after = link.sent_on_each();
    println!("sent on each connection: {before:?} before, {after:?} after");
    let on_spares: u64 = after[1..before.len()].iter().sum();
    assert!(on_spares > 2 * MIB as u64, "{before:?} {after:?}");
    daemon.terminate();
    fleet.assert_tidy("open");
}

#[test]
fn a_restart_sends_nothing_that_was_acknowledged() {
    let plan = Fleet::new().openssh("up").proxied().openssh("down");
    let Some(fleet) = plan.start() else { return };
    fleet.vessel("down").stop();
    let bytes = content(6, 8 * MIB);
    fleet.put("cargo", &bytes);
    let daemon = fleet.run();
    fleet.wait_until_served("up", "cargo", &bytes);
    daemon.wait_for_log(&["up", "cargo"]);
    daemon.terminate();
    let before = fleet.vessel("up").link().sent();
    let daemon = fleet.run();
    fleet.vessel("down").start();
    fleet.wait_until_retired("cargo");
    fleet.assert_equal("down", "cargo", &bytes);
    daemon.terminate();
    let again = fleet.vessel("up").link().sent() - before;
    assert!(again < MIB as u64, "{again} bytes went again to the vessel that had acknowledged");
}

#[test]
fn killed_at_any_moment_it_needs_nobodys_help() {
    let plan = Fleet::new().monster("ChunkSize", "1 MiB").openssh("open").dropbear("drop").sftp_only("chroot");
    let Some(fleet) = plan.start() else { return };
    let files: Vec<_> =
        (0..12).map(|at| (format!("file {at}"), content(100 + at, MIB / 2 * (at as usize + 1)))).collect();
    files.iter().for_each(|(name, bytes)| fleet.put(name, bytes));
    // Each run lives a little longer than the one before, whatever it is doing by then.
    for life in 1..=8 {
        let daemon = fleet.run();
        std::thread::sleep(Duration::from_millis(150 * life));
        daemon.kill9();
    }
    let daemon = fleet.run();
    for (name, bytes) in &files {
        fleet.wait_until_retired(name);
        ["open", "drop", "chroot"].into_iter().for_each(|vessel| fleet.assert_equal(vessel, name, bytes));
    }
    daemon.terminate();
    ["open", "drop", "chroot"].into_iter().for_each(|vessel| fleet.assert_tidy(vessel));
    assert_eq!(names_in(&fleet.path("shore/in/processed")).len(), files.len(), "each file retires once");
}

/// Replaces or rewrites a file while it is on its way, and watches what the vessel shows under its name.
fn changed_while_it_is_sent(vessel_is: &str, change: impl Fn(&Fleet, &[u8])) {
    let plan = Fleet::new().monster("ChunkSize", "2 MiB");
    let plan = if vessel_is == "chroot" { plan.sftp_only("chroot") } else { plan.openssh("open") };
    let Some(fleet) = plan.proxied().start() else { return };
    let (old, new) = (content(7, 20 * MIB), content(8, 20 * MIB - 777));
    let link = fleet.vessel(vessel_is).link();
    link.limit(12 * MIB as u64);
    let daemon = fleet.run();
    let watch = Watch::start(fleet.vessel(vessel_is).path("in/cargo"), vec![old.clone(), new.clone()]);
    fleet.put("cargo", &old);
    wait_until("some of the old version to be sent", || link.sent() > 6 * MIB as u64);
    change(&fleet, &new);
    link.limit(0);
    fleet.wait_until_retired("cargo");
    fleet.assert_equal(vessel_is, "cargo", &new);
    assert!(std::fs::read(fleet.retired("cargo")).unwrap() == new, "only what was delivered retires");
    assert_eq!(names_in(&fleet.path("shore/in/processed")), ["cargo"]);
    fleet.wait_until_tidy(vessel_is);
    watch.end();
    daemon.terminate();
    fleet.assert_equal(vessel_is, "cargo", &new);
}

#[test]
fn a_file_replaced_while_it_is_sent_never_shows_mixed() {
    changed_while_it_is_sent("open", |fleet, new| fleet.put("cargo", new));
}

#[test]
fn a_file_rewritten_in_place_while_it_is_sent_never_shows_mixed() {
    changed_while_it_is_sent("open", |fleet, new| std::fs::write(fleet.source("cargo"), new).unwrap());
}

#[test]
fn a_file_rewritten_in_place_never_shows_mixed_without_a_shell_either() {
    changed_while_it_is_sent("chroot", |fleet, new| std::fs::write(fleet.source("cargo"), new).unwrap());
}

/// Looks at a file all the time and remembers whether it was ever anything but one of the whole versions.
struct Watch {
    ended: Arc<AtomicBool>,
    looking: std::thread::JoinHandle<Result<(), String>>,
}

impl Watch {
    fn start(file: std::path::PathBuf, versions: Vec<Vec<u8>>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let stop = ended.clone();
        let looking = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match std::fs::read(&file) {
                    Ok(seen) if !versions.contains(&seen) => {
                        return Err(format!("{} bytes of neither version", seen.len()));
                    }
                    _ => std::thread::sleep(Duration::from_millis(2)),
                }
            }
            Ok(())
        });
        Self { ended, looking }
    }

    #[track_caller]
    fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        assert_eq!(self.looking.join().unwrap(), Ok(()));
    }
}
