//! What may go over a link, what is kept for urgent files, and several links at once.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::fleet::Fleet;
use crate::fleet::clocked::SetClock;
use crate::fleet::content::{MIB, content};
use crate::fleet::namespace::Mounts;
use crate::fleet::plan::FleetPlan;
use crate::fleet::wait::{never_within, wait_until};
use crate::ways::TwoWays;

fn put(fleet: &Fleet, directory: &str, name: &str, bytes: &[u8]) {
    fleet.put_at(&fleet.path("shore").join(directory).join(name), bytes, 0o644, SystemTime::now());
}

fn has(fleet: &Fleet, directory: &str, name: &str, bytes: &[u8]) -> bool {
    fs::read(fleet.vessel("tern").path(directory).join(name)).is_ok_and(|there| there == bytes)
}

fn storms_and_films() -> FleetPlan {
    let plan = Fleet::new().monster("ChunkSize", "256 KiB").directory("storms").key("Priority", "urgent");
    plan.directory("films").key("Priority", "bulk")
}

fn json(fleet: &Fleet, arguments: &[&str]) -> Value {
    serde_json::from_str(&fleet.call(arguments, "").stdout).unwrap()
}

#[track_caller]
fn wait_for_words(fleet: &Fleet, arguments: &[&str], words: &[&str]) {
    wait_until(&format!("{arguments:?} to say {words:?}"), || fleet.call(arguments, "").says(words));
}

#[test]
fn over_a_link_with_priorities_only_their_files_go_and_the_others_wait_for_another_way() {
    let plan = storms_and_films().monster("Listen", "127.0.0.1:0");
    let Some(ways) = TwoWays::start(plan, "", "Priorities = high, urgent\nPreference = 10") else { return };
    let (fleet, lte, vsat) = (&ways.fleet, &ways.first, &ways.second);
    lte.take_down(true);
    let film = content(1, MIB);
    let daemon = fleet.run();
    put(fleet, "films", "film", &film);
    daemon.wait_for_log(&["tern", "away", "vsat: only files of priority urgent or high may use it"]);
    assert_eq!(vsat.sent(), 0, "no login for a file that may not go");
    put(fleet, "storms", "one", b"one");
    wait_until("the storm", || has(fleet, "storms", "one", b"one"));
    daemon.wait_for_log(&["tern", "connected", "way=\"vsat\""]);
    put(fleet, "storms", "two", b"two");
    wait_until("the next storm", || has(fleet, "storms", "two", b"two"));
    wait_for_words(fleet, &["why", "films/film"], &["only files of priority urgent or high may use the link vsat"]);
    let held = json(fleet, &["queue", "--state", "held", "--json"]);
    let held = &held["deliveries"][0];
    assert_eq!((held["path"].as_str(), held["held"]["by"].as_str()), (Some("film"), Some("link")), "{held}");
    let said = fleet.call(&["queue", "--state", "held"], "");
    said.must_say(&["films/film", "held"]);
    said.must_say(&["may use the link vsat"]);
    assert!(json(fleet, &["queue", "--state", "waiting", "--json"])["deliveries"].as_array().unwrap().is_empty());
    assert!(vsat.sent() < MIB as u64 / 2 && !has(fleet, "films", "film", &film));
    lte.take_down(false);
    lte.cut();
    wait_until("the film over the other way", || has(fleet, "films", "film", &film));
    assert!(lte.sent() > MIB as u64 && vsat.sent() < MIB as u64 / 2, "{} {}", lte.sent(), vsat.sent());
    daemon.terminate();
}

#[test]
fn the_end_of_a_budget_is_kept_for_urgent_files_also_over_a_kill() {
    let plan =
        storms_and_films().openssh("tern").key("Budget", "4 MB/day, 100 MB/month").key("BudgetReserve", "50% high");
    let Some(fleet) = plan.proxied().start() else { return };
    let link = fleet.vessel("tern").link();
    link.limit(2 * MIB as u64);
    let went = || link.sent() + link.received();
    let (film, storm) = (content(1, 5 * MIB), content(2, 300 << 10));
    let clock = SetClock::new(fleet.path("clock"));
    let mounts = fleet.keep_mounts(&Mounts::default());
    let daemon = fleet.run_clocked(&mounts, &clock);
    put(&fleet, "films", "film", &film);
    let words = ["tern", "spent except for the part reserved for priority urgent or high", "they continue at"];
    daemon.wait_for_log(&words);
    let used = went();
    assert!((1_500_000..=2_000_000).contains(&used), "{used} bytes for files of all priorities");
    wait_for_words(
        &fleet,
        &["why", "films/film"],
        &["waits: the vessel's budget of 4 MB/day", "reserve", "continues at"],
    );
    let held = json(&fleet, &["queue", "--state", "held", "--json"])["deliveries"][0].clone();
    assert_eq!((held["path"].as_str(), held["held"]["by"].as_str()), (Some("film"), Some("budget")), "{held}");
    assert_eq!(json(&fleet, &["status", "--json"])["budgets"][0]["state"], "reserve");
    put(&fleet, "storms", "one", &storm);
    wait_until("the storm", || has(&fleet, "storms", "one", &storm));
    daemon.kill9();
    let daemon = fleet.run_clocked(&mounts, &clock);
    daemon.wait_for_log(&[
        "tern",
        "away",
        "spent except for the part reserved for priority urgent or high",
        "other files continue at",
    ]);
    let before = went();
    never_within(Duration::from_secs(2), "the film went on", || went() > before + 30_000);
    put(&fleet, "storms", "two", &storm);
    wait_until("the next storm", || has(&fleet, "storms", "two", &storm));
    assert!(went() <= 4_000_000, "{}", went());
    for day in 1..=3 {
        clock.set(day * 86_400);
        wait_until("more of the film", || {
            went() > before + 1_400_000 * day.unsigned_abs() || has(&fleet, "films", "film", &film)
        });
    }
    wait_until("the film", || has(&fleet, "films", "film", &film));
    daemon.terminate();
}

#[test]
fn several_links_at_once_share_a_file_by_what_each_carries() {
    let plan = Fleet::new().monster("ChunkSize", "1 MiB");
    let Some(ways) = TwoWays::with_keys(plan, &[("Together", "yes")], "", "") else { return };
    let (fleet, first, second) = (&ways.fleet, &ways.first, &ways.second);
    // Slow links, so that they and not the processor decide.
    first.limit(MIB as u64 / 2);
    second.limit(MIB as u64);
    let bytes = content(1, 16 * MIB);
    let daemon = fleet.run();
    fleet.put("big", &bytes);
    fleet.wait_until_served("tern", "big", &bytes);
    daemon.wait_for_log(&["tern", "also sending over another way"]);
    let sent = [first.sent(), second.sent()];
    println!("{sent:?} bytes");
    assert!(sent[0] > 2 * MIB as u64 && sent[1] > sent[0] * 5 / 4, "{sent:?}");
    assert!(sent[0] + sent[1] < 17 * MIB as u64, "{sent:?}");
    fleet.wait_until_retired("big");
    fleet.wait_until_tidy("tern");
    // Either link may fall silent within a file; the other one brings the rest.
    for (number, silent) in (2..).zip([second, first]) {
        let (before, other) = (silent.sent(), if number == 2 { first } else { second });
        let bytes = content(number, 12 * MIB);
        let name = format!("big{number}");
        fleet.put(&name, &bytes);
        wait_until("the link to carry", || silent.sent() > before + (2 << 20));
        silent.take_down(true);
        let carried = other.sent();
        fleet.wait_until_served("tern", &name, &bytes);
        assert!(other.sent() > carried + (4 << 20));
        silent.take_down(false);
        silent.cut();
        fleet.wait_until_retired(&name);
    }
    fleet.wait_until_tidy("tern");
    daemon.terminate();
}
