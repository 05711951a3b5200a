//! Which files go, where to and when: patterns, sizes, ages, vessels, intervals.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::fleet::wait::{never_within, wait_until};
use crate::fleet::{Fleet, at_second, names_in};
use crate::mirror::{mirror, wait_until_equal};

#[test]
fn patterns_and_sizes_say_what_goes() {
    let plan =
        mirror().key("Recursive", "yes").key("Include", "*.txt, /docs/").key("Exclude", "*.log, !keep.log, cache/");
    let Some(fleet) = plan.key("MinSize", "2").key("MaxSize", "1 KiB").openssh("open").start() else { return };
    for directory in ["docs/cache", "docs/deep", "other"] {
        fs::create_dir_all(fleet.source(directory)).unwrap();
    }
    let taken = ["docs/a.bin", "docs/deep/keep.log", "other/b.txt"];
    let left = ["docs/x.log", "docs/cache/a.txt", "other/b.bin"];
    taken.iter().chain(&left).for_each(|name| fleet.put(name, name.as_bytes()));
    fleet.put("tiny.txt", b"1");
    fleet.put("huge.txt", &[0; 1025]);
    let daemon = fleet.run();
    taken.iter().for_each(|name| fleet.wait_until_served("open", name, name.as_bytes()));
    fleet.put("later.txt", b"later");
    fleet.put("later.bin", b"later");
    fleet.wait_until_served("open", "later.txt", b"later");
    daemon.terminate();
    assert!(left.iter().all(|name| fleet.held("open", name).is_none()));
    assert_eq!(names_in(&fleet.vessel("open").path("in")), ["docs", "later.txt", "other"]);
}

#[test]
fn a_file_goes_when_it_is_old_enough() {
    let Some(fleet) = mirror().key("MinAge", "3s").openssh("open").start() else { return };
    let daemon = fleet.run();
    fleet.put_as("old", b"old", 0o644, at_second(1_600_000_000));
    fleet.put("new", b"new");
    fleet.wait_until_served("open", "old", b"old");
    never_within(Duration::from_millis(500), "too early", || fleet.held("open", "new").is_some());
    fleet.wait_until_served("open", "new", b"new");
    daemon.terminate();
}

#[test]
fn changes_within_an_interval_go_out_together() {
    let Some(fleet) = mirror().key("Interval", "4s").key("RescanInterval", "10m").openssh("open").start() else {
        return;
    };
    let daemon = fleet.run();
    fleet.put("first", b"first");
    fleet.wait_until_served("open", "first", b"first");
    // Brings the gate to a known state: whatever was open is shut after this.
    fleet.put("second", b"second");
    fleet.wait_until_served("open", "second", b"second");
    let shut = Instant::now();
    ["third", "fourth"].iter().for_each(|name| fleet.put(name, name.as_bytes()));
    never_within(Duration::from_millis(1500), "before the interval is over", || fleet.held("open", "third").is_some());
    fleet.wait_until_served("open", "third", b"third");
    fleet.wait_until_served("open", "fourth", b"fourth");
    assert!(shut.elapsed() < Duration::from_secs(15), "{:?}", shut.elapsed());
    daemon.terminate();
}

#[test]
fn a_vessel_takes_the_directories_it_names() {
    let plan = Fleet::new().directory("in").directory("more").openssh("all").openssh("some").key("Dirs", "more");
    let Some(fleet) = plan.start() else { return };
    fleet.put("a", b"a");
    fs::write(fleet.path("shore/more/b"), b"b").unwrap();
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let held = |vessel: &str, below: &str| names_in(&fleet.vessel(vessel).path(below));
    assert_eq!((held("all", "in").len(), held("all", "more").len()), (1, 1));
    assert_eq!((held("some", "in").len(), held("some", "more").len()), (0, 1));
}

#[test]
fn two_mirrors_of_one_location_keep_their_own_ways() {
    let plan = Fleet::new().directory("in").key("Mode", "mirror").directory("texts").key("Mode", "mirror");
    let Some(fleet) = plan.key("Include", "*.txt").openssh("open").start() else { return };
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let (texts, location) = (fleet.path("shore/texts"), fleet.path("shore/in"));
    let remote = fleet.vessel("open").remote("texts");
    let text = text.replace(
        &format!("Location = {}", texts.display()),
        &format!("Location = {}\nRemoteLocation = {remote}", location.display()),
    );
    fleet.write_settings(&text);
    fleet.put("a.txt", b"text");
    fleet.put("b.bin", b"binary");
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    wait_until_equal(&fleet, "open");
    assert_eq!(names_in(&fleet.vessel("open").path("texts")), ["a.txt"]);
}

#[test]
fn owner_and_group_are_set_where_that_is_asked_for() {
    let Some(fleet) = mirror().key("Owner", "yes").key("Recursive", "yes").openssh("open").start() else { return };
    let chown = |name: &str, owner| std::os::unix::fs::chown(fleet.source(name), Some(owner), Some(owner + 1)).unwrap();
    fs::create_dir(fleet.source("d")).unwrap();
    fleet.put("d/f", b"bytes");
    chown("d", 1234);
    chown("d/f", 2345);
    let daemon = fleet.run();
    let owner = |name: &str| {
        let meta = fleet.vessel("open").path("in").join(name).metadata();
        meta.map(|meta| (meta.uid(), meta.gid())).ok()
    };
    wait_until("the owners", || owner("d") == Some((1234, 1235)) && owner("d/f") == Some((2345, 2346)));
    chown("d/f", 77);
    wait_until("another owner", || owner("d/f") == Some((77, 78)));
    wait_until_equal(&fleet, "open");
    daemon.terminate();
}
