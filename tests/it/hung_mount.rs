//! A mount whose server stops answering costs its own directory and nothing else: `sshfs`, stopped.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::namespace::Mounts;
use crate::fleet::plan::FleetPlan;
use crate::fleet::process::signal;
use crate::fleet::wait::wait_until;

/// How soon a file arrives, and `status` answers, whatever hangs; a busy machine gets three times what it took before.
const SOON: Duration = Duration::from_secs(1);

/// For what would otherwise hang for ever.
const FOREVER: Duration = Duration::from_secs(10);

/// Two directories; `far` lies on the vessel `store` and is mounted with `sshfs`.
fn plan() -> FleetPlan {
    let fleet = Fleet::new().directory("far").key("RescanInterval", "2s").directory("in");
    fleet.openssh("v").openssh("store").key("IgnoreDirs", "in, far")
}

fn start(plan: FleetPlan) -> Option<Fleet> {
    let able = Path::new("/dev/fuse").exists();
    if !able {
        let message = "\n!!! SKIPPED a test of hung mounts: there is no /dev/fuse, which sshfs needs\n";
        let _ = std::io::stderr().write_all(message.as_bytes());
    }
    able.then(|| plan.start()).flatten()
}

/// The mount, and where the number of its server is written.
fn mounts(fleet: &Fleet) -> Mounts {
    fs::create_dir_all(fleet.vessel("store").path("exports")).unwrap();
    let store = fleet.vessel("store");
    Mounts::default().sshfs(
        (store.port(), &store.remote("exports")),
        (&fleet.path("home/.ssh/id_ed25519"), &fleet.known_hosts()),
        &fleet.path("shore/far"),
        &pid_file(fleet),
    )
}

fn pid_file(fleet: &Fleet) -> std::path::PathBuf {
    fleet.path("sshfs.pid")
}

fn server(fleet: &Fleet) -> u32 {
    fs::read_to_string(pid_file(fleet)).unwrap().trim().parse().unwrap()
}

/// Delivers a file of the other directory and asks how things stand; both must be done within `limit`. Gives the longer time.
#[track_caller]
fn all_else_goes_on(fleet: &Fleet, name: &str, limit: Duration) -> Duration {
    let began = Instant::now();
    fleet.put(name, b"near");
    fleet.wait_until_served("v", name, b"near");
    let took = began.elapsed();
    let asked = Instant::now();
    let status = fleet.call(&["status"], "");
    assert_eq!(status.code, Some(0), "{status:?}");
    let answered = asked.elapsed();
    println!("{name}: delivered in {took:?}, status in {answered:?}");
    assert!(took < limit && answered < limit, "delivered in {took:?}, status in {answered:?}, not {limit:?}");
    took.max(answered)
}

#[test]
fn a_mount_that_hangs_while_its_files_are_sent_delays_nobody_else() {
    let Some(fleet) = start(plan().monster("ChunkSize", "64 KiB")) else { return };
    let exports = fleet.vessel("store").path("exports");
    let daemon = fleet.run_with(&mounts(&fleet));
    daemon.wait_for_log(&["connected"]);
    let before = (0..3).map(|number| all_else_goes_on(&fleet, &format!("before {number}"), FOREVER));
    let limit = SOON.max(before.max().unwrap_or_default() * 3);
    fs::write(exports.join("first"), "far").unwrap();
    wait_until("a file from the mount", || fleet.vessel("v").path("far/first").exists());
    for number in 0..600 {
        fs::write(exports.join(number.to_string()), content(number, 2000)).unwrap();
    }
    for number in 0..4 {
        fs::write(exports.join(format!("large {number}")), content(number, 4 * MIB)).unwrap();
    }
    wait_until("some of it", || fleet.vessel("v").path("far/1").exists());
    signal(server(&fleet), Signal::STOP);
    for number in 0..5 {
        all_else_goes_on(&fleet, &format!("meanwhile {number}"), limit);
    }
    daemon.wait_for_log(&["does not answer"]);
    wait_until("status to tell", || fleet.call(&["status"], "").says(&["far", "does not answer"]));
    all_else_goes_on(&fleet, "still", limit);
    signal(server(&fleet), Signal::CONT);
    wait_until("all of it", || {
        (0..600).all(|number| fleet.vessel("v").path(format!("far/{number}")).exists())
            && (0..4).all(|number| fleet.vessel("v").path(format!("far/large {number}")).exists())
    });
    wait_until("the trouble to be over", || !fleet.call(&["status"], "").says(&["does not answer"]));
    signal(server(&fleet), Signal::STOP);
    std::thread::sleep(Duration::from_millis(500));
    all_else_goes_on(&fleet, "at last", limit);
    // Fails where it takes 10 seconds.
    daemon.terminate();
}

#[test]
fn a_mount_that_hangs_already_keeps_the_program_from_nothing() {
    let Some(fleet) = start(plan()) else { return };
    let hung = mounts(&fleet).stopped(&pid_file(&fleet));
    let daemon = fleet.run_with(&hung);
    // The first one waits for the start-up too.
    fleet.put("first", b"near");
    fleet.wait_until_served("v", "first", b"near");
    all_else_goes_on(&fleet, "second", FOREVER);
    daemon.wait_for_log(&["does not answer"]);
    all_else_goes_on(&fleet, "third", FOREVER);
    daemon.terminate();
    // A single run delivers what can be delivered, and ends.
    fleet.put("fourth", b"near");
    let once = fleet.call_among(&hung, &["--once"]);
    assert_eq!(once.code, Some(1), "{once:?}");
    once.must_say(&["does not answer"]);
    fleet.assert_equal("v", "fourth", b"near");
}

/// Asks within what a person waits; whatever hangs.
#[track_caller]
fn answers(fleet: &Fleet, mounts: &Mounts, arguments: &[&str], words: &[&str]) {
    let asked = Instant::now();
    let answer = fleet.call_among(mounts, arguments);
    let took = asked.elapsed();
    answer.must_say(words);
    assert_ne!(answer.code, Some(0), "{answer:?}");
    // With the mounting, and on a busy machine.
    assert!(took < FOREVER * 3, "{arguments:?} took {took:?}");
    println!("{arguments:?}: {took:?}");
}

#[test]
fn why_and_check_answer_while_a_mount_hangs() {
    let Some(fleet) = start(plan()) else { return };
    let live = mounts(&fleet);
    fs::write(fleet.vessel("store").path("exports/first"), "far").unwrap();
    let daemon = fleet.run_with(&live);
    wait_until("a file from the mount", || fleet.vessel("v").path("far/first").exists());
    daemon.terminate();
    let hung = mounts(&fleet).stopped(&pid_file(&fleet));
    let file = fleet.path("shore/far/first");
    for file in ["far/first", "far/never", file.to_str().unwrap()] {
        answers(&fleet, &hung, &["why", file], &["shore/far does not answer"]);
    }
    answers(&fleet, &hung, &["check"], &["BAD", "directory far", "does not answer", "umount -l"]);
    fleet.call_among(&hung, &["check"]).must_say(&["ok", "vessel v", "[Directory in]"]);
}

/// One directory that goes to the vessel `v` and to a target on this host, which lies on the vessel `store`.
fn with_a_local_target() -> Option<(Fleet, Mounts)> {
    let fleet = start(Fleet::new().directory("in").openssh("v").openssh("store").key("IgnoreDirs", "in"))?;
    let target = fleet.path("target");
    fs::create_dir_all(fleet.vessel("store").path("exports/in")).unwrap();
    fs::create_dir(&target).unwrap();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let place = format!("Transport = local\nTimeout = 2s\nRemoteLocation.in = {}/in", target.display());
    fleet.write_settings(&format!("{text}\n[Vessel disk]\nAddress = localhost\n{place}\n"));
    let store = fleet.vessel("store");
    let mounts = Mounts::default().sshfs(
        (store.port(), &store.remote("exports")),
        (&fleet.path("home/.ssh/id_ed25519"), &fleet.known_hosts()),
        &target,
        &pid_file(&fleet),
    );
    Some((fleet, mounts))
}

#[test]
fn a_local_target_that_hangs_delays_nobody_else_and_goes_on_by_itself() {
    let Some((fleet, mounts)) = with_a_local_target() else { return };
    let there = |name: &str| fleet.vessel("store").path("exports/in").join(name);
    let daemon = fleet.run_with(&mounts);
    let before = (0..3).map(|number| all_else_goes_on(&fleet, &format!("before {number}"), FOREVER));
    let limit = SOON.max(before.max().unwrap_or_default() * 3);
    wait_until("a file on the target", || there("before 2").exists());
    signal(server(&fleet), Signal::STOP);
    for number in 0..5 {
        all_else_goes_on(&fleet, &format!("meanwhile {number}"), limit);
    }
    daemon.wait_for_log(&["disk of the local vessel", "not responded"]);
    wait_until("status to tell", || fleet.call(&["status"], "").says(&["disk", "does not answer"]));
    all_else_goes_on(&fleet, "still", limit);
    signal(server(&fleet), Signal::CONT);
    wait_until("all of it", || {
        ["meanwhile 0", "meanwhile 4", "still"]
            .into_iter()
            .all(|name| fs::read(there(name)).is_ok_and(|held| held == b"near"))
    });
    signal(server(&fleet), Signal::STOP);
    std::thread::sleep(Duration::from_millis(500));
    all_else_goes_on(&fleet, "at last", limit);
    // Fails where it takes 10 seconds.
    daemon.terminate();
}

#[test]
fn a_local_target_that_hangs_already_is_named_and_a_single_run_ends() {
    let Some((fleet, mounts)) = with_a_local_target() else { return };
    let hung = mounts.stopped(&pid_file(&fleet));
    answers(&fleet, &hung, &["check"], &["BAD", "vessel disk", "does not answer"]);
    fleet.put("cargo", b"near");
    let once = fleet.call_among(&hung, &["--once"]);
    assert_eq!(once.code, Some(1), "{once:?}");
    once.must_say(&["disk", "does not answer"]);
    fleet.assert_equal("v", "cargo", b"near");
    let daemon = fleet.run_with(&hung);
    all_else_goes_on(&fleet, "second", FOREVER);
    daemon.wait_for_log(&["disk", "does not answer"]);
    daemon.terminate();
}
