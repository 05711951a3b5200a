//! Several shores over one ledger in PostgreSQL: they share the work, hand it over, and take it over.
//!
//! `CONTENTMONSTER_SHORES_KILLS=200` sets the number of mishaps of the campaign, and `CONTENTMONSTER_SEED` replays one.

mod campaign;

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::plan::FleetPlan;
use crate::fleet::postgres::Place;
use crate::fleet::wait::{never_within, wait_until};

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
