//! What goes first, what goes only in its window, and what expires.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde_json::Value;

use crate::fleet::clocked::SetClock;
use crate::fleet::content::content;
use crate::fleet::daemon::Daemon;
use crate::fleet::namespace::Mounts;
use crate::fleet::wait::{never_within, wait_for, wait_until};
use crate::fleet::web::{get, page_of};
use crate::fleet::{Fleet, at_second, names_in};

const KIB: usize = 1 << 10;

fn put(fleet: &Fleet, directory: &str, name: &str, bytes: &[u8]) {
    fleet.put_at(&fleet.path("shore").join(directory).join(name), bytes, 0o644, SystemTime::now());
}

/// The file on the vessel.
fn there(fleet: &Fleet, vessel: &str, directory: &str, name: &str) -> Option<Vec<u8>> {
    fs::read(fleet.vessel(vessel).path(directory).join(name)).ok()
}

fn json(fleet: &Fleet, arguments: &[&str]) -> Value {
    serde_json::from_str(&fleet.call(arguments, "").stdout).unwrap()
}

/// The receipts, in their order.
fn receipts(fleet: &Fleet) -> Vec<Value> {
    let lines = fleet.call(&["receipts", "--json"], "").stdout;
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn wait_for_why(fleet: &Fleet, file: &str, words: &[&str]) {
    wait_until(&format!("why {file} to say {words:?}"), || fleet.call(&["why", file], "").says(words));
}

/// How many bytes of running deliveries the first vessel has.
fn taken(fleet: &Fleet) -> u64 {
    let Ok(status) = serde_json::from_str::<Value>(&fleet.call(&["status", "--json"], "").stdout) else { return 0 };
    let transfers = status["vessels"][0]["transfers"].as_array().unwrap();
    transfers.iter().map(|transfer| transfer["taken"].as_u64().unwrap()).sum()
}

#[test]
fn an_urgent_file_passes_those_that_are_being_sent_and_they_go_on_where_they_were() {
    let plan = Fleet::new().monster("ChunkSize", "256 KiB").directory("films").key("Priority", "bulk");
    let plan = plan.directory("storms").key("Priority", "urgent").openssh("ship").key("RateLimit", "256 KiB/s");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    let film = content(1, 3 << 20);
    put(&fleet, "films", "film", &film);
    put(&fleet, "films", "other", &film[..1 << 20]);
    wait_until("some of the film", || taken(&fleet) > 300 << 10);
    for (name, size) in [("small", KIB), ("large", 512 * KIB)] {
        let (warning, begun) = (content(2, size), Instant::now());
        put(&fleet, "storms", name, &warning);
        wait_until("the warning", || there(&fleet, "ship", "storms", name).is_some_and(|bytes| bytes == warning));
        // The bucket's debt, the warning's own bytes, and what the daemon takes to find it.
        let most = Duration::from_secs_f64(3.0 + size as f64 / 256e3);
        assert!(begun.elapsed() < most, "{name}: {:?}", begun.elapsed());
        assert!(there(&fleet, "ship", "films", "film").is_none(), "the film is still being sent");
    }
    wait_until("the film", || there(&fleet, "ship", "films", "film").is_some_and(|bytes| bytes == film));
    wait_until("its receipt", || receipts(&fleet).len() == 4);
    let all = receipts(&fleet);
    let film = all.iter().find(|receipt| receipt["file"] == "film").unwrap();
    assert_eq!(film["written_bytes"], 3 << 20, "nothing is sent twice: {film}");
    daemon.terminate();
}

#[test]
fn a_low_priority_is_not_starved() {
    let plan = Fleet::new().monster("ChunkSize", "64 KiB").directory("low").key("Priority", "low");
    let plan = plan.directory("high").key("Priority", "high").openssh("ship").key("RateLimit", "512 KiB/s");
    let Some(fleet) = plan.start() else { return };
    for number in 0..40 {
        put(&fleet, "high", &format!("{number}"), &content(number, 128 * KIB));
    }
    let daemon = fleet.run();
    wait_until("a high one", || there(&fleet, "ship", "high", "0").is_some());
    put(&fleet, "low", "cargo", &content(1, 100 * KIB));
    wait_until("the low one", || there(&fleet, "ship", "low", "cargo").is_some());
    let names = names_in(&fleet.vessel("ship").path("high"));
    let high = names.iter().filter(|name| !name.as_encoded_bytes().starts_with(b".")).count();
    assert!((4..40).contains(&high), "5 % of the bytes are its own: {high} others came first");
    daemon.terminate();
}

#[test]
fn the_newest_file_goes_first_where_the_order_says_so_and_the_oldest_now_and_then() {
    let plan = Fleet::new().monster("ChunkSize", "64 KiB").directory("maps").key("Order", "newest");
    let Some(fleet) = plan.openssh("ship").key("RateLimit", "1 MiB/s").start() else { return };
    for number in 0..30 {
        let place = fleet.path("shore/maps").join(format!("{number:02}"));
        fleet.put_at(&place, &content(number, 96 * KIB), 0o644, at_second(1_600_000_000 + number));
    }
    let daemon = fleet.run();
    wait_until("all of them", || receipts(&fleet).len() == 30);
    let order: Vec<String> = receipts(&fleet).iter().map(|one| one["file"].as_str().unwrap().to_owned()).collect();
    println!("{order:?}");
    let place = |name: &str| order.iter().position(|other| other == name).unwrap();
    assert!(place("29") < 8 && place("20") < 20 && place("01") > 20, "{order:?}");
    let reload = fs::read_to_string(fleet.settings()).unwrap().replace("Order = newest", "Order = name");
    fleet.write_settings(&reload);
    daemon.reload();
    daemon.wait_for_log(&["Settings reloaded"]);
    put(&fleet, "maps", "more", b"more");
    wait_until("one more", || there(&fleet, "ship", "maps", "more").is_some());
    daemon.terminate();
}

#[test]
fn what_expires_is_told_and_its_source_goes_where_it_belongs() {
    let plan = Fleet::new().monster("Listen", "127.0.0.1:0").directory("news").key("Expire", "3s").openssh("near");
    let Some(fleet) = plan.openssh("far").start() else { return };
    fleet.vessel("far").stop();
    let daemon = fleet.run();
    put(&fleet, "news", "one", b"one");
    wait_until("the near one", || there(&fleet, "near", "news", "one").is_some());
    wait_until("it to retire", || fleet.path("shore/news/processed/one").exists());
    daemon.wait_for_log(&["expired", "far", "one"]);
    fleet.call(&["why", "news/one"], "").must_say(&["far: expired", "not sent any more"]);
    assert_eq!(fleet.call(&["why", "news/one"], "").code, Some(0), "nothing is left to do");
    fleet.vessel("near").stop();
    let large = content(7, 12 << 20);
    put(&fleet, "news", "two", &large);
    wait_until("it to be set aside", || fleet.path("shore/news/expired/two").exists());
    assert!(fs::read(fleet.path("shore/news/expired/two")).unwrap() == large);
    assert!(!fleet.path("shore/news/two").exists() && !fleet.path("shore/news/processed/two").exists());
    fleet.call(&["why", "news/two"], "").must_say(&["expired before any vessel received it", "expired/two"]);
    let expired = fleet.call(&["receipts", "--expired"], "");
    expired.must_say(&["far", "news/one"]);
    expired.must_say(&["near", "news/two"]);
    let status = json(&fleet, &["status", "--json"]);
    let counts: Vec<_> = status["vessels"].as_array().unwrap().iter().map(|vessel| vessel["expired"].clone()).collect();
    assert_eq!(counts, [1, 2]);
    let metrics = get(&page_of(&daemon), "/metrics").body;
    assert!(metrics.contains("contentmonster_expired_files_total{vessel=\"far\"} 2"), "{metrics}");
    // Both are back: what expired does not come any more, what is new does.
    fleet.vessel("near").start();
    fleet.vessel("far").start();
    put(&fleet, "news", "three", b"three");
    wait_until("the next one", || there(&fleet, "far", "news", "three").is_some());
    assert!(there(&fleet, "far", "news", "one").is_none() && there(&fleet, "near", "news", "two").is_none());
    daemon.terminate();
}

/// A window of 2 h that begins this many hours from now, in UTC.
fn window_in(hours: i64) -> String {
    let hour = |later: i64| {
        let time = Timestamp::now() + jiff::SignedDuration::from_hours(later);
        format!("{:02}:00", time.to_zoned(jiff::tz::TimeZone::UTC).hour())
    };
    format!("{}-{}", hour(hours), hour(hours + 2))
}

fn clocked(fleet: &Fleet) -> (Daemon, SetClock, Daemon) {
    let mounts = fleet.keep_mounts(&Mounts::default());
    let clock = SetClock::new(fleet.path("clock"));
    let daemon = fleet.run_clocked(&mounts, &clock);
    (daemon, clock, mounts)
}

#[test]
fn outside_of_its_window_a_vessel_gets_only_what_is_exempt() {
    let plan = Fleet::new().directory("storms").key("Priority", "urgent").openssh("ship");
    let plan = plan.key("Schedule", &window_in(4)).key("Schedule.tz", "UTC").key("ScheduleExempt", "urgent");
    let Some(fleet) = plan.start() else { return };
    let (daemon, clock, _mounts) = clocked(&fleet);
    fleet.put("cargo", b"cargo");
    wait_for_why(&fleet, "in/cargo", &["waits for the Schedule of [Vessel ship]", "opens at"]);
    put(&fleet, "storms", "warning", b"warning");
    wait_until("the warning", || there(&fleet, "ship", "storms", "warning").is_some());
    never_within(Duration::from_secs(2), "the cargo came", || fleet.held("ship", "cargo").is_some());
    clock.set(5 * 3600);
    fleet.wait_until_served("ship", "cargo", b"cargo");
    clock.set(9 * 3600);
    fleet.put("late", b"late");
    never_within(Duration::from_secs(2), "the late one came", || fleet.held("ship", "late").is_some());
    clock.set(5 * 3600);
    fleet.wait_until_served("ship", "late", b"late");
    daemon.terminate();
}

#[test]
fn a_window_that_closes_stops_a_large_file_which_goes_on_in_the_next() {
    let plan = Fleet::new().monster("ChunkSize", "256 KiB").directory("films").key("Schedule", &window_in(0));
    let plan = plan.key("Schedule.tz", "UTC").openssh("ship").key("RateLimit", "512 KiB/s");
    let Some(fleet) = plan.start() else { return };
    let (daemon, clock, _mounts) = clocked(&fleet);
    let film = content(1, 4 << 20);
    put(&fleet, "films", "film", &film);
    wait_until("some of the film", || taken(&fleet) > 500 << 10);
    clock.set(4 * 3600);
    wait_for_why(&fleet, "films/film", &["waits for the Schedule of [Directory films]"]);
    wait_until("the film to stop", || taken(&fleet) == 0);
    // The vessel is still served.
    fleet.put("cargo", b"cargo");
    fleet.wait_until_served("ship", "cargo", b"cargo");
    never_within(Duration::from_secs(2), "the film went on", || taken(&fleet) > 0);
    clock.set(0);
    wait_until("the film", || there(&fleet, "ship", "films", "film").is_some_and(|bytes| bytes == film));
    let written = wait_for("its receipt", || {
        let all = receipts(&fleet);
        all.iter().find(|receipt| receipt["file"] == "film").map(|receipt| receipt["written_bytes"].as_u64().unwrap())
    });
    assert!(written <= film.len() as u64 + (64 << 10), "nothing is sent twice: {written}");
    daemon.terminate();
}

#[test]
fn a_mirrors_deletions_wait_for_the_window_too() {
    let plan = Fleet::new().directory("site").key("Mode", "mirror").key("Delete", "yes");
    let plan = plan.key("Schedule", &window_in(0)).key("Schedule.tz", "UTC").openssh("ship");
    let Some(fleet) = plan.start() else { return };
    let (daemon, clock, _mounts) = clocked(&fleet);
    put(&fleet, "site", "other", b"other");
    put(&fleet, "site", "page", b"page");
    wait_until("the page", || there(&fleet, "ship", "site", "page").is_some());
    clock.set(4 * 3600);
    fs::remove_file(fleet.path("shore/site/page")).unwrap();
    wait_for_why(&fleet, "site/page", &["waits for the Schedule of [Directory site]"]);
    never_within(Duration::from_secs(2), "the page went", || there(&fleet, "ship", "site", "page").is_none());
    clock.set(0);
    wait_until("the page to go", || there(&fleet, "ship", "site", "page").is_none());
    daemon.terminate();
}

#[test]
fn a_single_run_outside_of_the_window_ends_and_leaves_the_files() {
    let plan = Fleet::new().openssh("ship").key("Schedule", &window_in(4)).key("Schedule.tz", "UTC");
    let Some(fleet) = plan.start() else { return };
    fleet.put("cargo", b"cargo");
    let ended = fleet.once();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(fleet.source("cargo").exists() && fleet.held("ship", "cargo").is_none());
}

#[test]
fn the_plan_tells_windows_and_queues_in_the_order_of_sending() {
    let plan = Fleet::new().directory("storms").key("Priority", "urgent").directory("films").key("Priority", "bulk");
    let plan = plan.key("Schedule", &window_in(4)).key("Schedule.tz", "UTC").openssh("ship");
    let Some(fleet) = plan.start() else { return };
    fleet.vessel("ship").stop();
    let daemon = fleet.run();
    for directory in ["films", "in", "storms"] {
        put(&fleet, directory, "cargo", &content(1, 10 * KIB));
    }
    wait_until("all of them in the plan", || {
        let plan = fleet.call(&["plan", "--json"], "").stdout;
        plan.matches("\"files\": 1").count() == 3
    });
    let plan = json(&fleet, &["plan", "--json"]);
    let queues = plan["vessels"][0]["queues"].as_array().unwrap().clone();
    let names: Vec<_> = queues.iter().map(|queue| queue["directory"].as_str().unwrap()).collect();
    assert_eq!(names, ["storms", "in", "films"], "{plan}");
    assert_eq!(queues[2]["waiting"]["files"], 1, "{plan}");
    let opens: Timestamp = queues[2]["windows"][0]["from"].as_str().unwrap().parse().unwrap();
    let hours = opens.duration_since(Timestamp::now()).as_hours();
    assert!((2..=4).contains(&hours), "{plan}");
    let said = fleet.call(&["plan", "--vessel", "ship"], "");
    said.must_say(&["films", "bulk", "1 file"]);
    assert_eq!(fleet.call(&["plan", "--vessel", "nobody"], "").code, Some(2));
    daemon.terminate();
}
