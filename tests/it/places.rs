//! The place is part of what was delivered: another directory or host on a vessel gets everything, a vessel that has lost
//! something gets it by `resend`, and times that SFTP can't carry keep nobody from deleting.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::fleet::wait::{never_within, wait_until};
use crate::fleet::{Fleet, at_second, names_in};
use crate::mirror::{mirror, wait_until_equal};

/// Changes the settings file.
fn change(fleet: &Fleet, from: &str, to: &str) {
    let text = fs::read_to_string(fleet.settings()).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    fleet.write_settings(&text.replacen(from, to, 1));
}

/// Has files go to another directory on a vessel.
fn move_place(fleet: &Fleet, vessel: &str, location: &str) {
    let section = format!("[Vessel {vessel}]\n");
    change(fleet, &section, &format!("{section}RemoteLocation.in = {}\n", fleet.vessel(vessel).remote(location)));
}

#[test]
fn a_mirror_that_moves_on_a_vessel_is_delivered_to_its_new_place_and_nothing_goes_from_the_old_one() {
    let Some(fleet) = mirror().key("Delete", "yes").openssh("open").openssh("other").start() else { return };
    let vessel = fleet.vessel("open");
    (0..3).for_each(|n| fleet.put(format!("{n}"), b"bytes"));
    assert_eq!(fleet.once().code, Some(0));
    fs::remove_file(fleet.vessel("other").path("in/2")).unwrap();
    move_place(&fleet, "open", "elsewhere");
    let moved = fleet.once();
    assert_eq!(moved.code, Some(0), "{moved:?}");
    assert_eq!(names_in(&vessel.path("elsewhere")), ["0", "1", "2"]);
    assert_eq!(names_in(&vessel.path("in")), ["0", "1", "2"]);
    assert_eq!(names_in(&fleet.vessel("other").path("in")), ["0", "1"], "nothing has changed for this one");
    fs::remove_file(fleet.source("1")).unwrap();
    assert_eq!(fleet.once().code, Some(0));
    assert_eq!(names_in(&vessel.path("elsewhere")), ["0", "2"]);
    assert_eq!(names_in(&vessel.path("in")), ["0", "1", "2"], "nobody has asked for that");
    fleet.assert_tidy("open");
}

#[test]
fn a_place_that_changes_while_it_runs_is_delivered_to_without_a_restart() {
    let Some(fleet) = mirror().openssh("open").start() else { return };
    (0..3).for_each(|n| fleet.put(format!("{n}"), b"bytes"));
    let daemon = fleet.run();
    wait_until_equal(&fleet, "open");
    move_place(&fleet, "open", "elsewhere");
    daemon.send(Signal::HUP);
    let there = fleet.vessel("open").path("elsewhere");
    wait_until("all to be at the new place", || there.exists() && names_in(&there) == ["0", "1", "2"]);
    daemon.terminate();
}

#[test]
fn another_name_for_a_host_sends_nothing_again_and_another_host_gets_everything() {
    let Some(fleet) = mirror().openssh("open").start() else { return };
    let vessel = fleet.vessel("open");
    (0..3).for_each(|n| fleet.put(format!("{n}"), b"bytes"));
    assert_eq!(fleet.once().code, Some(0));
    fs::remove_file(vessel.path("in/1")).unwrap();
    change(&fleet, "Address = 127.0.0.1", &format!("HostKey = {}\nAddress = localhost", vessel.fingerprint()));
    let renamed = fleet.once();
    assert!(renamed.code == Some(0) && !renamed.says(&["host or account has changed"]), "{renamed:?}");
    assert_eq!(names_in(&vessel.path("in")), ["0", "2"], "it is the same host");
    let before = vessel.fingerprint();
    vessel.stop();
    vessel.change_host_key();
    vessel.start();
    change(&fleet, &before, &vessel.fingerprint());
    let other = fleet.once();
    assert!(other.code == Some(0) && other.says(&["host or account has changed"]), "{other:?}");
    assert_eq!(names_in(&vessel.path("in")), ["0", "1", "2"]);
}

#[test]
fn what_a_vessel_has_lost_is_sent_again_and_nothing_else() {
    let Some(fleet) = mirror().directory("outbox").openssh("open").openssh("other").start() else { return };
    let (vessel, other) = (fleet.vessel("open"), fleet.vessel("other"));
    ["a", "b", "c"].into_iter().for_each(|name| fleet.put(name, name.as_bytes()));
    fleet.put_at(&fleet.path("shore/outbox/letter"), b"letter", 0o644, at_second(1_600_000_000));
    assert_eq!(fleet.once().code, Some(0));
    let lose = |name: &str| {
        fs::remove_file(vessel.path("in").join(name)).unwrap();
        fs::remove_file(other.path("in").join(name)).unwrap();
    };
    ["a", "b"].into_iter().for_each(lose);
    // Without a running program: it is entered in the ledger.
    let one = fleet.call(&["resend", "in/a", "--vessel", "open"], "");
    assert_eq!(one.code, Some(0), "{one:?}");
    one.must_say(&["in/a", "open", "again"]);
    assert_eq!(fleet.once().code, Some(0));
    assert_eq!((names_in(&vessel.path("in")), names_in(&other.path("in")).len()), (vec!["a".into(), "c".into()], 1));
    // To the running program.
    let daemon = fleet.run();
    daemon.wait_for_log(&["connected", "open"]);
    let all = fleet.call(&["resend", "in"], "");
    all.must_say(&["3 paths of in", "open"]);
    all.must_say(&["3 paths of in", "other"]);
    wait_until_equal(&fleet, "open");
    wait_until_equal(&fleet, "other");
    daemon.terminate();
    // What can't be, and what isn't there.
    let retired = fleet.call(&["resend", "outbox/letter"], "");
    assert_eq!(retired.code, Some(1), "{retired:?}");
    retired.must_say(&["retired", "copy it from processed/ back into"]);
    fleet.call(&["resend", "outbox"], "").must_say(&["processed", "copy them"]);
    for (arguments, words) in [
        (vec!["resend", "outbax"], vec!["no [Directory outbax]", "did you mean outbox"]),
        (vec!["resend", "in", "--vessel", "opne"], vec!["no [Vessel opne]", "open"]),
        (vec!["resend", "nothing/at/all"], vec!["nothing/at/all is in no directory of the settings"]),
    ] {
        let refused = fleet.call(&arguments, "");
        assert_ne!(refused.code, Some(0), "{refused:?}");
        refused.must_say(&words);
    }
}

/// Gives a file a time that is not between 1970 and 2106.
fn touch(path: &Path, time: &str) {
    assert!(Command::new("touch").args(["-m", "-d", time]).arg(path).status().unwrap().success());
}

fn seconds(path: &Path) -> i64 {
    std::os::unix::fs::MetadataExt::mtime(&fs::metadata(path).unwrap())
}

#[test]
fn times_before_1970_and_after_2106_are_kept_where_a_vessel_can_and_deletions_work_everywhere() {
    let plan = mirror().key("Delete", "yes").openssh("open").dropbear("small").sftp_only("chroot");
    let Some(fleet) = plan.start() else { return };
    let disk = fleet.path("disk/in");
    fs::create_dir_all(&disk).unwrap();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let local = format!(
        "{text}\n[Vessel disk]\nAddress = localhost\nTransport = local\nRemoteLocation.in = {}\n",
        disk.display()
    );
    fleet.write_settings(&local);
    let times = [("old", "1955-11-05T06:15:00Z", -446_751_900), ("late", "2150-01-01T00:00:00Z", 5_680_281_600)];
    fleet.put("stays", b"stays");
    for (name, time, _) in times {
        fleet.put(name, name.as_bytes());
        touch(&fleet.source(name), time);
    }
    let sent = fleet.once();
    assert_eq!(sent.code, Some(0), "{sent:?}");
    for (name, _, second) in times {
        assert_eq!(seconds(&fleet.source(name)), second);
        for place in [fleet.vessel("open").path("in"), fleet.vessel("small").path("in"), disk.clone()] {
            assert_eq!(seconds(&place.join(name)), second, "{}", place.display());
        }
        assert_ne!(seconds(&fleet.vessel("chroot").path("in").join(name)), second);
    }
    sent.must_say(&["chroot", "cannot keep times before 1970"]);
    assert!(!fleet.once().says(&["verified"]), "nothing is sent again");
    times.into_iter().for_each(|(name, ..)| fs::remove_file(fleet.source(name)).unwrap());
    let deleted = fleet.once();
    assert!(deleted.code == Some(0) && !deleted.says(&["kept"]), "{deleted:?}");
    for vessel in ["open", "small", "chroot"] {
        assert_eq!(names_in(&fleet.vessel(vessel).path("in")), ["stays"], "{vessel}");
    }
    assert_eq!(names_in(&disk), ["stays"]);
}

#[test]
fn a_deletion_that_was_not_done_is_not_called_one() {
    let Some(fleet) = mirror().key("Delete", "yes").openssh("open").start() else { return };
    ["a", "b"].into_iter().for_each(|name| fleet.put(name, b"bytes"));
    assert_eq!(fleet.once().code, Some(0));
    fs::write(fleet.vessel("open").path("in/a"), b"somebody else's").unwrap();
    fs::remove_file(fleet.source("a")).unwrap();
    let kept = fleet.once();
    kept.must_say(&["kept on the vessel"]);
    kept.must_say(&["not deleted", "a"]);
    assert!(!kept.says(&["INFO deleted"]), "{kept:?}");
    assert_eq!(fleet.held("open", "a").unwrap(), b"somebody else's");
}

#[test]
fn a_file_that_can_not_retire_is_not_tried_again_at_every_acknowledgement() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    // A directory that has the name of the file and of all that it could be called instead can't be made: so a file takes
    // the place of processed/.
    fs::create_dir_all(fleet.source("processed")).unwrap();
    fs::remove_dir(fleet.source("processed")).unwrap();
    fs::write(fleet.source("processed"), b"in the way").unwrap();
    let daemon = fleet.run_logging("contentmonster=debug");
    fleet.put("first", b"first");
    daemon.wait_for_log(&["can't retire"]);
    (0..20).for_each(|n| {
        fleet.put(format!("{n}"), b"bytes");
        fleet.wait_until_served("open", format!("{n}"), b"bytes");
    });
    let tries =
        || daemon.log().iter().filter(|line| line.contains("Cannot retire the file") && line.contains("first")).count();
    assert_eq!(tries(), 1, "{:?}", daemon.log());
    never_within(Duration::from_millis(300), "tried again", || tries() > 1);
    fs::remove_file(fleet.source("processed")).unwrap();
    daemon.terminate();
    assert_eq!(fleet.once().code, Some(0));
    assert!(fleet.retired("first").exists());
}

#[test]
fn a_location_that_changes_while_it_runs_deletes_nothing_by_itself() {
    let Some(fleet) = mirror().key("Delete", "yes").openssh("open").start() else { return };
    ["a", "b", "c"].into_iter().for_each(|name| fleet.put(name, b"bytes"));
    let daemon = fleet.run();
    wait_until_equal(&fleet, "open");
    let other = fleet.path("other");
    fs::create_dir(&other).unwrap();
    ["a", "b", "d"].into_iter().for_each(|name| fs::write(other.join(name), b"another").unwrap());
    let before = format!("Location = {}", fleet.path("shore/in").display());
    // Its place on the vessel stays what it was.
    let place = fleet.path("shore/in");
    change(&fleet, &before, &format!("Location = {}\nRemoteLocation = {}", other.display(), place.display()));
    daemon.send(Signal::HUP);
    daemon.wait_for_log(&["nothing is deleted on the vessels"]);
    let there = fleet.vessel("open").path("in");
    wait_until("what is new to be there", || names_in(&there) == ["a", "b", "c", "d"]);
    daemon.terminate();
}
