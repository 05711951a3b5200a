//! Requests of a lost connection that reach the vessel after another connection has done what they ask for, or more.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::daemon::Daemon;
use crate::fleet::plan::FleetPlan;
use crate::fleet::wait::{never_within, wait_until};

fn held_back(plan: FleetPlan, small_files: &str) -> Option<Fleet> {
    plan.openssh("tern").key("SmallFiles", small_files).key("ReconnectWait", "1s").proxied().start()
}

/// Takes the connection away from the shore when `held` bytes at least are on the way, and waits for another one.
fn reconnect(fleet: &Fleet, daemon: &Daemon, held: usize) {
    let link = fleet.vessel("tern").link();
    wait_until("the requests to be on the way", || link.held() >= held);
    link.close_for_shore();
    daemon.wait_for_log(&["tern", "Connected again"]);
}

/// Checks that the vessel does not get `bytes` before the held requests, sends these to the vessel, and checks that the
/// vessel then gets `bytes` and keeps them.
fn ends_with(fleet: &Fleet, bytes: &[u8], arrived: impl Fn() -> bool) {
    let is_there = || fleet.held("tern", "hot").as_deref() == Some(bytes);
    never_within(Duration::from_secs(3), "the newer version", is_there);
    fleet.vessel("tern").link().release();
    wait_until("the late request to arrive", arrived);
    wait_past_locks("the newer version", is_there);
    never_within(Duration::from_secs(2), "another content", || !is_there());
}

/// Waits longer than other tests, because a path is locked for 30 s.
fn wait_past_locks(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(90), "waited 90 s for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_file_that_was_on_the_way_does_not_replace_a_newer_version() {
    let plan = Fleet::new().directory("in").key("Mode", "mirror");
    let Some(fleet) = held_back(plan, "shell") else { return };
    let daemon = fleet.run_logging("debug");
    fleet.put("hot", b"first");
    daemon.wait_for_log(&["delivered", "hot"]);
    let link = fleet.vessel("tern").link();
    link.hold();
    fleet.put("hot", &content(1, 3000));
    wait_until("the file to be on the way", || link.held() >= 3000);
    let newer = content(2, 2000);
    fleet.put("hot", &newer);
    daemon.wait_for_log(&["Taken in", "bytes=2000"]);
    reconnect(&fleet, &daemon, 3000);
    ends_with(&fleet, &newer, || fleet.held("tern", "hot") == Some(content(1, 3000)));
    fleet.wait_until_tidy("tern");
    daemon.terminate();
}

#[test]
fn a_deletion_that_was_on_the_way_does_not_delete_a_newer_file() {
    let plan = Fleet::new().directory("in").key("Mode", "mirror").key("Delete", "yes");
    let Some(fleet) = held_back(plan, "auto") else { return };
    let daemon = fleet.run();
    for name in ["other", "hot"] {
        fleet.put(name, b"as it was");
        daemon.wait_for_log(&["delivered", name]);
    }
    let link = fleet.vessel("tern").link();
    // The first request reads the file's attributes; the second one removes the file.
    link.hold_after(1);
    fs::remove_file(fleet.source("hot")).unwrap();
    reconnect(&fleet, &daemon, 40);
    daemon.wait_for_log(&["deleted", "hot"]);
    // Shows when the late request arrives.
    fs::write(fleet.vessel("tern").path("in/hot"), "there meanwhile").unwrap();
    fleet.put("hot", b"newer");
    ends_with(&fleet, b"newer", || fleet.held("tern", "hot").is_none());
    daemon.terminate();
    fleet.assert_tidy("tern");
}

#[test]
fn a_daemon_that_is_killed_leaves_no_bytes_to_be_sent_later() {
    let Some(fleet) = held_back(Fleet::new(), "auto") else { return };
    let link = fleet.vessel("tern").link();
    for (name, is_killed) in [("first", false), ("second", true)] {
        let daemon = fleet.run();
        fleet.put(name, b"bytes");
        fleet.wait_until_retired(name);
        if is_killed {
            daemon.kill9();
            // The kernel discards what it has not sent.
            wait_until("the connection to be reset", || link.resets() > 0);
        } else {
            daemon.terminate();
            assert_eq!(link.resets(), 0);
        }
    }
}

#[test]
fn temporary_files_that_late_requests_create_are_removed() {
    let Some(fleet) = held_back(Fleet::new(), "sftp") else { return };
    let daemon = fleet.run_logging("debug");
    fleet.put("hot", b"first");
    fleet.wait_until_retired("hot");
    let link = fleet.vessel("tern").link();
    link.hold();
    (0..20).for_each(|n| fleet.put(format!("file {n}"), &content(n, 3000)));
    reconnect(&fleet, &daemon, 20 * 100);
    (0..20).for_each(|n| fleet.wait_until_retired(format!("file {n}")));
    link.release();
    let there = || fs::read_dir(fleet.vessel("tern").path("in")).unwrap().count();
    wait_until("the requests to arrive", || there() > 21);
    wait_past_locks("the temporary files to be removed", || there() == 21);
    (0..20).for_each(|n| fleet.assert_equal("tern", format!("file {n}"), &content(n, 3000)));
    daemon.terminate();
    fleet.assert_tidy("tern");
}

#[test]
fn a_file_that_the_vessel_is_about_to_publish_does_not_replace_a_newer_version() {
    let plan = Fleet::new().directory("in").key("Mode", "mirror").monster("ChunkSize", "1 MiB");
    let Some(fleet) = plan.openssh("tern").key("SmallFiles", "shell").start() else { return };
    // A vessel that takes long to hash a large file.
    let (tools, waits, goes_on) = (fleet.path("tools"), fleet.path("waits"), fleet.path("goes on"));
    fs::create_dir(&tools).unwrap();
    let wait = format!(
        "size=$(cat | tee >(sha256sum >&3) | wc -c); [ $size -gt 2000000 ] && touch {0:?} && \
         for i in $(seq 80); do [ -e {1:?} ] && break; sleep 0.1; done",
        waits, goes_on
    );
    let tool = format!("#!/bin/bash\nPATH=/usr/bin:/bin\nexec 3>&1\n{wait}\nwait\n");
    for (name, script) in [("sha256sum", &tool[..]), ("openssl", "#!/bin/sh\nexit 1\n")] {
        fs::write(tools.join(name), script).unwrap();
        fs::set_permissions(tools.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fleet.vessel("tern").configure(&format!("SetEnv PATH={}:/usr/bin:/bin", tools.display()));
    let daemon = fleet.run();
    fleet.put("hot", &content(1, 3 * MIB));
    wait_until("the vessel to hash", || waits.exists());
    let newer = content(2, 2000);
    fleet.put("hot", &newer);
    let is_there = || fleet.held("tern", "hot").as_deref() == Some(&newer[..]);
    never_within(Duration::from_secs(3), "the newer version", is_there);
    fs::write(&goes_on, "").unwrap();
    wait_past_locks("the newer version", is_there);
    never_within(Duration::from_secs(2), "another content", || !is_there());
    daemon.terminate();
    fleet.assert_tidy("tern");
}
