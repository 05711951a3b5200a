//! Small files go to a loop in the vessel's shell, each in one round trip, and arrive as they do over SFTP.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fleet::content::{MIB, content};
use crate::fleet::daemon::Daemon;
use crate::fleet::plan::FleetPlan;
use crate::fleet::wait::wait_until;
use crate::fleet::{Fleet, at_second, mode_and_mtime, names_in};

fn by_shell(plan: FleetPlan) -> FleetPlan {
    plan.key("SmallFiles", "shell")
}

/// What the log says of such a file.
const BY_LOOP: &str = "Sent the file through a script";

/// The lines of the log that say that a file went to the loop.
fn by_loop(daemon: &Daemon) -> usize {
    daemon.log().iter().filter(|line| line.contains(BY_LOOP)).count()
}

/// Contents that would do harm if they were run as commands, or were taken for the next header.
fn contents() -> Vec<Vec<u8>> {
    let mut contents: Vec<Vec<u8>> = ["", "\n", "exit\n", "touch ran\n", "rm -rf -- *\n", ": more\n", "go\n", "stop\n"]
        .map(|text| text.as_bytes().to_vec())
        .into();
    contents.extend([vec![0; 5000], vec![b'\n'; 70_000], (0..=255).cycle().take(200_003).collect()]);
    contents.push(b"$(touch ran)`touch ran`;touch ran\n".repeat(300));
    contents.extend([content(3, 4096), content(4, 65_536), content(5, MIB)]);
    contents
}

fn names() -> Vec<OsString> {
    let odd: [&[u8]; 12] = [
        b"plain",
        b"-rf",
        b"two words ",
        b" leading",
        b"quote ' \" `id`",
        b"$(touch ran)",
        b"back\\slash\\n",
        b"*",
        b"caf\xe9",
        b"tab\there",
        b"line\nbreak",
        b"~root",
    ];
    odd.map(|name| OsString::from_vec(name.to_vec())).into()
}

#[test]
fn whatever_files_are_called_and_hold_they_arrive_as_they_are() {
    let plan = by_shell(by_shell(Fleet::new().openssh("open")).dropbear("drop"));
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run_logging("debug");
    let mut sent = BTreeMap::new();
    for (number, bytes) in contents().into_iter().enumerate() {
        for (mode, name) in [0o600, 0o644, 0o755, 0o400].into_iter().cycle().zip(names()).skip(number % 3).step_by(3) {
            let mut name = name.into_vec();
            name.extend(format!(" {number}").into_bytes());
            let (name, second) = (OsString::from_vec(name), 1_000_000_000 + number as u64);
            fleet.put_as(&name, &bytes, mode, at_second(second));
            sent.insert(name, (bytes.clone(), mode, second));
        }
    }
    for (name, (bytes, mode, second)) in &sent {
        fleet.wait_until_retired(name);
        for vessel in ["open", "drop"] {
            fleet.assert_equal(vessel, name, bytes);
            let there = fleet.vessel(vessel).path("in").join(name);
            assert_eq!(mode_and_mtime(&there), (*mode, *second as i64), "{name:?} on {vessel}");
        }
    }
    assert!(by_loop(&daemon) > sent.len(), "{} of {} files twice", by_loop(&daemon), sent.len());
    assert!(daemon.logged(&["warn"]).is_none(), "{:?}", daemon.log());
    for vessel in ["open", "drop"] {
        fleet.assert_tidy(vessel);
        let home = fleet.vessel(vessel).path("in").join("ran");
        assert!(!home.exists(), "content was run as a command");
    }
    daemon.terminate();
}

#[test]
fn over_a_long_path_the_loop_is_used_by_itself_and_a_short_one_uses_sftp() {
    let plan = Fleet::new().openssh("far").proxied().openssh("near");
    let Some(fleet) = plan.start() else { return };
    fleet.vessel("far").link().lengthen(40);
    let daemon = fleet.run_logging("debug");
    for number in 0..3 {
        let bytes = content(number, 2000);
        fleet.put(number.to_string(), &bytes);
        fleet.wait_until_retired(number.to_string());
    }
    let by_loop: Vec<_> = daemon.log().into_iter().filter(|line| line.contains(BY_LOOP)).collect();
    assert!(by_loop.len() == 3 && by_loop.iter().all(|line| line.contains("far")), "{by_loop:?}");
    daemon.terminate();
}

#[test]
fn what_the_loop_may_not_do_goes_over_sftp_and_is_told_as_ever() {
    let Some(fleet) = by_shell(Fleet::new().openssh("open")).start() else { return };
    let daemon = fleet.run_logging("debug");
    fleet.put("first", b"1");
    fleet.wait_until_retired("first");
    // `mv` would put the file into a directory of that name.
    let taken = fleet.vessel("open").path("in").join("taken");
    fs::create_dir_all(taken.join("something")).unwrap();
    fleet.put("taken", b"2");
    daemon.wait_for_log(&["parked", "is a directory"]);
    assert_eq!(names_in(&taken), ["something"]);
    fs::remove_dir_all(&taken).unwrap();
    assert_eq!(fleet.call(&["retry", "in/taken"], "").code, Some(0));
    fleet.wait_until_retired("taken");
    fleet.assert_equal("open", "taken", b"2");
    // A file that was there is replaced, and so is a link, which is not followed.
    let outside = fleet.path("outside");
    fs::write(&outside, "untouched").unwrap();
    std::os::unix::fs::symlink(&outside, fleet.vessel("open").path("in").join("link")).unwrap();
    fleet.put("link", b"3");
    fleet.wait_until_retired("link");
    fleet.assert_equal("open", "link", b"3");
    assert_eq!(fs::read(&outside).unwrap(), b"untouched");
    fleet.assert_tidy("open");
    daemon.terminate();
}

#[test]
fn tools_that_are_not_suited_are_not_used() {
    // A `head` that reads ahead, as busybox's does, and no `dd` that counts bytes.
    let Some(fleet) = by_shell(Fleet::new().openssh("open")).start() else { return };
    let tools = fleet.path("tools");
    fs::create_dir(&tools).unwrap();
    for (name, script) in [
        ("head", "#!/bin/sh\nexec perl -e 'read STDIN, $b, 1 << 20; print substr $b, 0, $ARGV[1]' -- \"$@\"\n"),
        ("dd", "#!/bin/sh\nexit 1\n"),
    ] {
        fs::write(tools.join(name), script).unwrap();
        fs::set_permissions(tools.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fleet.vessel("open").configure(&format!("SetEnv PATH={}:/usr/bin:/bin", tools.display()));
    let daemon = fleet.run_logging("debug");
    for number in 0..4u64 {
        fleet.put(number.to_string(), &content(number, 3000));
        fleet.wait_until_retired(number.to_string());
        fleet.assert_equal("open", number.to_string(), &content(number, 3000));
    }
    assert_eq!(by_loop(&daemon), 0);
    daemon.terminate();
}

/// Cuts the connection at many moments, while files are on their way.
fn cut_again_and_again(cuts: u64, consume: impl Fn(&Path) + Sync) -> Fleet {
    let plan = by_shell(Fleet::new().openssh("open")).key("ReconnectWait", "1s").proxied();
    let fleet = plan.start().expect("an sshd");
    let daemon = fleet.run_logging("debug");
    fleet.put("first", b"1");
    fleet.wait_until_retired("first");
    let (over, place) = (AtomicBool::new(false), fleet.vessel("open").path("in"));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                consume(&place);
                thread::sleep(Duration::from_millis(1));
            }
        });
        let mut dice = fastrand::Rng::with_seed(7);
        for cut in 0..cuts {
            for file in 0..8 {
                fleet.put(format!("{cut}-{file}"), &content(cut * 8 + file, dice.usize(1..60_000)));
            }
            thread::sleep(Duration::from_millis(dice.u64(0..60)));
            fleet.vessel("open").link().cut();
        }
        let started = Instant::now();
        for cut in 0..cuts {
            (0..8).for_each(|file| fleet.wait_until_retired(format!("{cut}-{file}")));
        }
        println!("{cuts} cuts, {} files through the loop, settled after {:.1?}", by_loop(&daemon), started.elapsed());
        over.store(true, Ordering::Relaxed);
    });
    assert!(by_loop(&daemon) > 0);
    daemon.terminate();
    fleet
}

fn bytes_of(cuts: u64) -> BTreeMap<String, Vec<u8>> {
    let mut dice = fastrand::Rng::with_seed(7);
    let mut all = BTreeMap::new();
    for cut in 0..cuts {
        for file in 0..8 {
            all.insert(format!("{cut}-{file}"), content(cut * 8 + file, dice.usize(1..60_000)));
        }
        dice.u64(0..60);
    }
    all
}

const CUTS: u64 = 12;

#[test]
fn when_the_link_is_cut_at_any_moment_no_name_shows_half_a_file_and_all_arrive() {
    let wanted = bytes_of(CUTS);
    let fleet = cut_again_and_again(CUTS, |place| {
        for name in names_in(place) {
            let Some(wanted) = name.to_str().and_then(|name| wanted.get(name)) else { continue };
            let there = fs::read(place.join(&name)).unwrap();
            assert!(there == *wanted, "{name:?} shows {} of {} bytes", there.len(), wanted.len());
        }
    });
    wanted.iter().for_each(|(name, bytes)| fleet.assert_equal("open", name, bytes));
    fleet.assert_tidy("open");
}

#[test]
fn a_program_that_takes_files_at_once_gets_each_of_them_once() {
    let wanted = bytes_of(CUTS);
    let taken = std::sync::Mutex::new(BTreeMap::<OsString, u32>::new());
    let fleet = cut_again_and_again(CUTS, |place| {
        for name in names_in(place) {
            let Some(wanted) = name.to_str().and_then(|name| wanted.get(name)) else { continue };
            let there = place.join(&name);
            assert!(fs::read(&there).unwrap() == *wanted, "{name:?}");
            fs::remove_file(&there).unwrap();
            *taken.lock().unwrap().entry(name).or_default() += 1;
        }
    });
    let taken = taken.into_inner().unwrap();
    assert_eq!(taken.len(), wanted.len(), "{taken:?}");
    let twice: Vec<_> = taken.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    wait_until("nothing of ours to be left", || names_in(&fleet.vessel("open").path("in")) == ["first"]);
}

#[test]
fn a_small_file_does_not_wait_behind_a_large_one() {
    let plan = Fleet::new().openssh("far").key("RateLimit", "2 MiB/s").proxied().monster("ChunkSize", "1 MiB");
    let Some(fleet) = plan.start() else { return };
    fleet.vessel("far").link().lengthen(40);
    let daemon = fleet.run_logging("debug");
    fleet.put("first", b"1");
    fleet.wait_until_retired("first");
    // The proxy passes 16 KiB in 40 ms, so this takes half a minute.
    let large = content(9, 12 * MIB);
    fleet.put("large", &large);
    // The first connection, and one that small files have for themselves.
    wait_until("a connection beside the large file", || fleet.vessel("far").link().sent_on_each().len() > 1);
    for number in 0..20u64 {
        fleet.put(format!("small {number}"), &content(number, 1000));
        fleet.wait_until_retired(format!("small {number}"));
    }
    assert!(!fleet.retired("large").exists(), "the large file is still on its way");
    assert_eq!(by_loop(&daemon), 21);
    fleet.wait_until_retired("large");
    fleet.assert_equal("far", "large", &large);
    fleet.assert_tidy("far");
    daemon.terminate();
}
