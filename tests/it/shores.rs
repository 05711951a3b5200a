//! Several shores over one ledger in PostgreSQL: they share the work, hand it over, and take it over.
//!
//! The variables of the campaign are described in `campaign`.

mod campaign;
mod database_path;
mod mishaps;
mod traffic;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fleet::content::{MIB, content};
use crate::fleet::daemon::Daemon;
use crate::fleet::plan::FleetPlan;
use crate::fleet::postgres::Place;
use crate::fleet::wait::{never_within, wait_until};
use crate::fleet::{Fleet, names_in};

const VESSELS: [&str; 4] = ["auk", "gull", "skua", "tern"];
/// The pieces of work of the fleet: its vessels, two directories, and the housekeeping.
const WORK: usize = 7;

/// Four vessels that take a directory whose files retire, and a mirror.
fn plan() -> FleetPlan {
    let plan = VESSELS.iter().fold(Fleet::new(), |plan, name| plan.openssh(name));
    plan.directory("charts").key("Mode", "mirror").key("Delete", "yes").monster("ChunkSize", "1 MiB")
}

fn fleet(plan: FleetPlan, place: &Place) -> Option<Fleet> {
    plan.monster("Database", &place.url()).monster("LeaseTime", "3s").start()
}

/// How much work a shore has, of one kind or of all.
fn work_of(place: &Place, shore: &str, kind: &str) -> usize {
    // The first shore makes the tables.
    if place.psql("SELECT to_regproc('contentmonster.fence_work') IS NOT NULL") == "f" {
        return 0;
    }
    let query = format!(
        "SELECT count(*) FROM contentmonster.lease l JOIN contentmonster.lease s ON s.token = l.shore
         WHERE s.name = 'shore {shore}' AND l.name LIKE '{kind}%'"
    );
    place.psql(&query).parse().unwrap()
}

/// Returns whether a shore of this name runs.
fn is_member(place: &Place, shore: &str) -> bool {
    place.psql("SELECT to_regclass('contentmonster.lease') IS NOT NULL") == "t"
        && place.psql(&format!("SELECT count(*) FROM contentmonster.lease WHERE name = 'shore {shore}'")) == "1"
}

/// Waits until two shores share the vessels evenly, and all work is done.
fn wait_until_shared(place: &Place) {
    wait_until("the shores to share the work", || {
        let vessels = ["one", "two"].map(|shore| work_of(place, shore, "vessel"));
        vessels == [2, 2] && work_of(place, "one", "") + work_of(place, "two", "") == WORK
    });
}

fn put_chart(fleet: &Fleet, name: &str, bytes: &[u8]) {
    fleet.put_at(&fleet.path("shore/charts").join(name), bytes, 0o644, std::time::SystemTime::now());
}

fn chart(fleet: &Fleet, vessel: &str, name: &str) -> Option<Vec<u8>> {
    std::fs::read(fleet.vessel(vessel).path("charts").join(name)).ok()
}

fn wait_until_charted(fleet: &Fleet, name: &str, bytes: &[u8]) {
    for vessel in VESSELS {
        wait_until(&format!("the chart {name} on {vessel}"), || {
            chart(fleet, vessel, name).is_some_and(|held| held == bytes)
        });
    }
}

/// New files and changes of both directories arrive everywhere, deletions too, and sources retire.
fn assert_delivers(fleet: &Fleet, round: u64) {
    let (small, large) = (content(round, 2000), content(round + 1000, 3 * MIB + 1));
    let name = format!("file {round}");
    fleet.put(&name, &large);
    put_chart(fleet, "chart", &small);
    put_chart(fleet, "gone", b"gone");
    fleet.wait_until_retired(&name);
    VESSELS.iter().for_each(|vessel| fleet.assert_equal(vessel, &name, &large));
    wait_until_charted(fleet, "chart", &small);
    wait_until_charted(fleet, "gone", b"gone");
    std::fs::remove_file(fleet.path("shore/charts/gone")).unwrap();
    wait_until("the deletion everywhere", || VESSELS.iter().all(|vessel| chart(fleet, vessel, "gone").is_none()));
}

#[test]
fn shores_share_the_work_and_hand_it_over_when_one_comes_drains_or_ends() {
    let place = Place::new();
    let Some(fleet) = fleet(plan(), &place) else { return };
    let one = fleet.run_shore("one");
    wait_until("one shore to have all work", || work_of(&place, "one", "") == WORK);
    assert_delivers(&fleet, 1);
    let two = fleet.run_shore("two");
    wait_until_shared(&place);
    assert_delivers(&fleet, 2);

    // Both tell of both.
    for shore in ["one", "two"] {
        let listed = fleet.call_shore(shore, &["shores", "--json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
        let names: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["one", "two"]);
        assert!(listed[0]["vessels"].as_array().unwrap().len() == 2 && listed[0]["latency_us"].is_number());
        let status = fleet.call_shore(shore, &["status"]);
        assert!(status.says(&["shore one on"]) && status.says(&["shore two on"]), "{status:?}");
        assert!(status.says(&["on two"]) || status.says(&["on one"]), "{status:?}");
    }
    // A second program of the same name on another host, and a single run, are refused.
    let refused = fleet.once();
    assert_eq!(refused.code, Some(4), "{refused:?}");
    refused.must_say(&["in use", "ShoreName"]);

    // An order reaches the shore that serves the vessel, wherever it is given.
    for shore in ["one", "two"] {
        for vessel in VESSELS {
            assert_eq!(fleet.call_shore(shore, &["pause", vessel]).code, Some(0));
        }
        std::thread::sleep(Duration::from_millis(500));
        fleet.put(format!("paused {shore}"), b"paused");
        never_within(Duration::from_secs(1), "a paused vessel is served", || {
            VESSELS.iter().any(|vessel| fleet.held(vessel, format!("paused {shore}")).is_some())
        });
        for vessel in VESSELS {
            assert_eq!(fleet.call_shore(shore, &["resume", vessel]).code, Some(0));
        }
        fleet.wait_until_retired(format!("paused {shore}"));
    }

    let drained = fleet.call_shore("one", &["drain"]);
    assert_eq!(drained.code, Some(0), "{drained:?}");
    wait_until("the other shore to have all work", || work_of(&place, "two", "") == WORK);
    assert_eq!(work_of(&place, "one", ""), 0);
    assert_delivers(&fleet, 3);
    assert_eq!(fleet.call_shore("one", &["drain", "--end"]).code, Some(0));
    wait_until_shared(&place);

    let asked = Instant::now();
    two.send(Signal::TERM);
    wait_until("the work to be handed over", || work_of(&place, "one", "") == WORK);
    let took = asked.elapsed();
    println!("the work of a shore that ended was handed over in {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(two.ended().code, Some(0));
    assert_delivers(&fleet, 4);
    one.terminate();
    assert_eq!(place.psql("SELECT count(*) FROM contentmonster.lease WHERE holder IS NOT NULL"), "0");
    VESSELS.iter().for_each(|vessel| fleet.assert_tidy(vessel));
}

/// Much work changes hands at once, some of it back and forth. The vessels are away, because only the shares matter.
#[test]
fn many_vessels_are_shared_by_shores_that_start_and_drain_at_the_same_time() {
    const MANY: usize = 100;
    let place = Place::new();
    let Some(fleet) = Fleet::new().start() else { return };
    let (url, shore) = (place.url(), fleet.path("shore/in").display().to_string());
    fleet.write_settings(&format!(
        "[MONSTER]
Database = {url}

[DEFAULT]
Address = 127.0.0.1:1
Username = nobody

[Directory in]
Location = {shore}
RemoteLocation = in/{{vessel}}

[Vessel ship{{001..{MANY}}}]
"
    ));
    let names = ["one", "two", "three"];
    let mut shores = names.map(|name| fleet.run_shore(name));
    let is_shared = |among: &[&str]| {
        let vessels: Vec<usize> = among.iter().map(|name| work_of(&place, name, "vessel")).collect();
        vessels.iter().sum::<usize>() == MANY && vessels.iter().all(|count| count.abs_diff(MANY / among.len()) <= 1)
    };
    wait_until("three shores to share the vessels", || is_shared(&names));
    for _round in 0..3 {
        for name in ["one", "three"] {
            assert_eq!(fleet.call_shore(name, &["drain"]).code, Some(0));
        }
        wait_until("one shore to have all vessels", || is_shared(&["two"]));
        for name in ["one", "three"] {
            assert_eq!(fleet.call_shore(name, &["drain", "--end"]).code, Some(0));
        }
        wait_until("three shores to share the vessels", || is_shared(&names));
        shores.iter_mut().for_each(|shore| assert!(shore.runs(), "{:?}", shore.log()));
    }
    shores.into_iter().for_each(Daemon::terminate);
}

#[test]
fn a_shore_that_is_killed_is_followed_when_its_lease_has_run_out() {
    let place = Place::new();
    let Some(fleet) = fleet(plan(), &place) else { return };
    let (one, two) = (fleet.run_shore("one"), fleet.run_shore("two"));
    wait_until_shared(&place);
    // Long enough for a shore to take over: see the book.
    std::thread::sleep(Duration::from_secs(10));
    let large = content(7, 20 * MIB);
    fleet.put("large", &large);
    wait_until("the transfer to begin", || {
        place.psql("SELECT count(*) FROM contentmonster.delivery WHERE touched") != "0"
    });
    let killed = Instant::now();
    one.kill9();
    wait_until("the work to be taken over", || work_of(&place, "two", "") == WORK);
    let took = killed.elapsed();
    println!("the work of a killed shore was taken over after {took:?} (LeaseTime = 3s)");
    assert!(took < Duration::from_secs(5), "{took:?}");
    fleet.wait_until_retired("large");
    VESSELS.iter().for_each(|vessel| fleet.assert_equal(vessel, "large", &large));
    assert_delivers(&fleet, 1);
    // It comes back under its name.
    let again = fleet.run_shore("one");
    wait_until_shared(&place);
    assert_delivers(&fleet, 2);
    again.terminate();
    two.terminate();
}

#[test]
fn a_shore_that_was_stopped_for_longer_than_its_lease_publishes_nothing_old_when_it_wakes() {
    let place = Place::new();
    let Some(fleet) = fleet(plan(), &place) else { return };
    let (mut one, two) = (fleet.run_shore("one"), fleet.run_shore("two"));
    wait_until_shared(&place);
    std::thread::sleep(Duration::from_secs(10));
    let names: Vec<String> = (0..200).map(|at| format!("chart {at}")).collect();
    for name in &names {
        put_chart(&fleet, name, b"old");
    }
    put_chart(&fleet, "large", &content(1, 12 * MIB));
    wait_until("the transfers to begin", || {
        place.psql("SELECT count(*) FROM contentmonster.delivery WHERE state = 'acknowledged'") != "0"
    });
    one.send(Signal::STOP);
    for name in &names {
        put_chart(&fleet, name, b"new");
    }
    let large = content(2, 12 * MIB);
    put_chart(&fleet, "large", &large);
    fleet.put("file", b"file");
    wait_until("the work to be taken over", || work_of(&place, "two", "") == WORK);
    names.iter().for_each(|name| wait_until_charted(&fleet, name, b"new"));
    wait_until_charted(&fleet, "large", &large);
    fleet.wait_until_retired("file");
    one.send(Signal::CONT);
    never_within(Duration::from_secs(3), "an old chart is published", || {
        VESSELS.iter().any(|vessel| {
            names.iter().any(|name| chart(&fleet, vessel, name).as_deref() != Some(b"new"))
                || chart(&fleet, vessel, "large").as_deref() != Some(&large[..])
        })
    });
    wait_until("the first shore to end", || !one.runs());
    let ended = one.ended();
    assert_eq!(ended.code, Some(4), "{ended:?}");
    ended.must_say(&["has taken over"]);
    assert_delivers(&fleet, 1);
    two.terminate();
}

/// The temporary files beside the delivered ones, with their sizes.
fn assemblies(fleet: &Fleet, vessel: &str) -> Vec<(OsString, u64)> {
    let place = fleet.vessel(vessel).path("in");
    let hidden = names_in(&place).into_iter().filter(|name| name.as_encoded_bytes().starts_with(b"."));
    // A file may be renamed meanwhile.
    let sized = |name: OsString| std::fs::metadata(place.join(&name)).ok().map(|metadata| (name, metadata.len()));
    hidden.filter_map(sized).collect()
}

#[test]
fn a_shore_that_takes_over_renames_what_the_other_one_has_begun_and_sends_it_on() {
    let place = Place::new();
    // Without a shell, parts can't be joined, so the file grows in its assembly.
    let plan = Fleet::new().sftp_only("auk").proxied().monster("ChunkSize", "256 KiB");
    let Some(fleet) = fleet(plan, &place) else { return };
    let link = fleet.vessel("auk").link();
    link.limit(MIB as u64);
    let shores = ["one", "two"].map(|name| (name, fleet.run_shore(name)));
    wait_until("both shores", || shores.iter().all(|(name, _)| is_member(&place, name)));
    // Long enough for a shore to take over: see the book.
    std::thread::sleep(Duration::from_secs(10));
    let (mut busy, other): (Vec<_>, Vec<_>) =
        shores.into_iter().partition(|(name, _)| work_of(&place, name, "vessel") == 1);
    let ((_, mut busy), (name, other)) = (busy.remove(0), other.into_iter().next().unwrap());
    let large = content(1, 8 * MIB);
    fleet.put("large", &large);
    let begun = || assemblies(&fleet, "auk").into_iter().find(|(_, size)| *size > 2 * MIB as u64);
    wait_until("the file to grow", || begun().is_some());
    let former = begun().unwrap().0;
    busy.send(Signal::STOP);
    wait_until("the work to be taken over", || work_of(&place, name, "vessel") == 1);
    wait_until("the file to grow under another name", || begun().is_some_and(|(now, _)| now != former));
    assert!(assemblies(&fleet, "auk").iter().all(|(name, _)| *name != former));
    fleet.wait_until_retired("large");
    fleet.assert_equal("auk", "large", &large);
    assert!(link.sent() < 10 * MIB as u64, "{} bytes were sent", link.sent());
    busy.send(Signal::CONT);
    wait_until("the stopped shore to end", || !busy.runs());
    fleet.wait_until_tidy("auk");
    fleet.assert_equal("auk", "large", &large);
    other.terminate();
}

/// The settings without a directory.
fn without_directory(settings: &str, name: &str) -> String {
    let sections = settings.split_inclusive("\n\n").filter(|one| !one.starts_with(&format!("[Directory {name}]")));
    let lines: Vec<_> = sections.flat_map(str::lines).collect();
    let kept = lines.into_iter().filter(|line| !line.starts_with(&format!("RemoteLocation.{name} ")));
    kept.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn what_a_shore_has_begun_is_taken_over_after_its_directory_was_missing_from_the_settings() {
    let place = Place::new();
    let plan = Fleet::new().sftp_only("auk").proxied().directory("in").directory("charts").key("Mode", "mirror");
    let Some(fleet) = fleet(plan.monster("ChunkSize", "256 KiB"), &place) else { return };
    let link = fleet.vessel("auk").link();
    link.limit(MIB as u64);
    let one = fleet.run_shore("one");
    let large = content(1, 8 * MIB);
    fleet.put("large", &large);
    let begun = || assemblies(&fleet, "auk").into_iter().find(|(_, size)| *size > 3 * MIB as u64);
    wait_until("the file to grow", || begun().is_some());
    one.kill9();
    let former = begun().unwrap().0;

    // The next shore serves the vessel, but does not know where the file belongs.
    let settings = std::fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&without_directory(&settings, "in"));
    let two = fleet.run_shore("two");
    put_chart(&fleet, "chart", b"chart");
    wait_until("the chart", || chart(&fleet, "auk", "chart").is_some());
    two.terminate();
    assert_eq!(begun().map(|(name, _)| name).as_ref(), Some(&former));

    fleet.write_settings(&settings);
    let two = fleet.run_shore("two");
    // It was parked while its directory was missing.
    wait_until("the file to be retried", || fleet.call_shore("two", &["retry", "in/large"]).code == Some(0));
    fleet.wait_until_retired("large");
    fleet.assert_equal("auk", "large", &large);
    assert!(link.sent() < 10 * MIB as u64, "{} bytes were sent", link.sent());
    fleet.wait_until_tidy("auk");
    wait_until("the names to be forgotten", || {
        place.psql("SELECT count(*) FROM contentmonster.former_assembly") == "0"
    });
    two.terminate();
}

#[test]
fn a_directory_and_its_vessels_are_bound_to_a_shore() {
    let place = Place::new();
    let bound =
        Fleet::new().openssh("auk").openssh("gull").key("IgnoreDirs", "in").directory("charts").key("Mode", "mirror");
    let Some(fleet) = fleet(bound.directory("in").key("Shore", "two"), &place) else { return };
    let one = fleet.run_shore("one");
    wait_until("the vessel of no shore", || work_of(&place, "one", "vessel gull") == 1);
    fleet.put("file", b"file");
    never_within(Duration::from_secs(2), "another shore serves it", || fleet.held("auk", "file").is_some());
    let two = fleet.run_shore("two");
    fleet.wait_until_retired("file");
    assert_eq!((work_of(&place, "two", "vessel auk"), work_of(&place, "two", "directory in")), (1, 1));
    two.terminate();
    fleet.put("next", b"next");
    never_within(Duration::from_secs(2), "another shore serves it", || fleet.held("auk", "next").is_some());
    one.terminate();
}
