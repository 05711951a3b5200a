//! What commands print as JSON, pauses of directories, the order of the queue, and what limits the speed.

use std::fs;
use std::time::SystemTime;

use serde_json::Value;

use crate::fleet::wait::{never_within, wait_for, wait_until};
use crate::fleet::{Fleet, at_second};

fn json(fleet: &Fleet, arguments: &[&str]) -> Value {
    let ended = fleet.call(arguments, "");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {ended:?}"))
}

#[test]
fn checks_runs_and_orders_print_one_document() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let checked = json(&fleet, &["check", "--json"]);
    assert_eq!(checked["fit"], true, "{checked:#}");
    let findings = checked["findings"].as_array().unwrap();
    assert!(findings.iter().any(|one| one["vessel"] == "open" && one["result"] == "ok"), "{checked:#}");
    assert!(findings.iter().any(|one| one["vessel"].is_null()), "{checked:#}");

    fleet.put("cargo", b"cargo");
    let simulated = json(&fleet, &["--simulate", "--json"]);
    let send = simulated["intentions"].as_array().unwrap().iter().find(|one| one["action"] == "send").unwrap();
    assert_eq!((&send["vessel"], &send["bytes"]), (&"open".into(), &5.into()));
    let once = json(&fleet, &["--once", "--json"]);
    assert_eq!((&once["all_delivered"], &once["vessels"][0]["files"]), (&true.into(), &1.into()), "{once:#}");
    assert_eq!(fleet.call(&["--json"], "").code, Some(2), "it belongs to --once and --simulate");

    let paused = json(&fleet, &["pause", "open", "--until", "2h", "--note", "dock", "--json"]);
    assert_eq!((&paused["done"], &paused["results"][0]["vessel"]), (&true.into(), &"open".into()));
    assert_eq!(json(&fleet, &["resume", "open", "--json"])["done"], true);
    assert_eq!(json(&fleet, &["retry", "--vessel", "open", "--json"])["done"], true);
    let retried = json(&fleet, &["retry", "in/cargo", "--json"]);
    assert_eq!((&retried["done"], &retried["results"][0]["count"]), (&false.into(), &0.into()), "{retried:#}");
    assert_eq!(json(&fleet, &["forget", "in/cargo", "--json"])["done"], false);
    assert_eq!(json(&fleet, &["resend", "in/cargo", "--json"])["done"], false);
    let status = json(&fleet, &["status", "--check", "--json"]);
    assert_eq!(status["state"], "CRITICAL");
}

#[test]
fn receipts_are_limited_by_time_and_number() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    for name in ["a", "b", "c"] {
        fleet.put(name, name.as_bytes());
        assert_eq!(fleet.once().code, Some(0));
    }
    let files = |arguments: &[&str]| -> Vec<String> {
        let ended = fleet.call(&[&["receipts", "--json"], arguments].concat(), "");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let file = |line: &str| serde_json::from_str::<Value>(line).unwrap()["file"].as_str().unwrap().to_owned();
        ended.stdout.lines().map(file).collect()
    };
    assert_eq!(files(&[]), ["a", "b", "c"]);
    assert_eq!(files(&["--limit", "2"]), ["b", "c"], "the newest");
    assert_eq!(files(&["--since", "1h"]), ["a", "b", "c"]);
    assert!(files(&["--until", "1h"]).is_empty());
    assert!(files(&["--since", "2999-01-01"]).is_empty());
    assert_eq!(files(&["--until", "2999-01-01", "--vessel", "open"]), ["a", "b", "c"]);
    assert_eq!(fleet.call(&["receipts", "--since", "soon"], "").code, Some(2));
}

#[test]
fn a_paused_directory_is_taken_in_and_sent_to_nobody_whatever_is_restarted() {
    let plan = Fleet::new().directory("maps").directory("news").key("Priority", "urgent").openssh("open");
    let Some(fleet) = plan.start() else { return };
    let put = |directory: &str, name: &str| {
        fleet.put_at(&fleet.path("shore").join(directory).join(name), b"x", 0o644, SystemTime::now());
    };
    let there = |directory: &str, name: &str| fleet.vessel("open").path(directory).join(name).exists();
    let unknown = fleet.call(&["pause", "--directory", "map"], "");
    assert_eq!(unknown.code, Some(2));
    unknown.must_say(&["did you mean maps?"]);
    // Before the first run there is no ledger.
    let daemon = fleet.run();
    daemon.wait_for_log(&["open", "connected"]);
    for directory in ["maps", "news"] {
        assert_eq!(fleet.call(&["pause", "--directory", directory, "--note", "wrong"], "").code, Some(0));
    }
    for directory in ["in", "maps", "news"] {
        put(directory, "first");
    }
    wait_until("the other directory", || there("in", "first"));
    wait_until("both to wait", || fleet.call(&["queue"], "").stdout.matches("/first").count() == 2);
    fleet.call(&["why", "maps/first"], "").must_say(&["[Directory maps] is paused since", "wrong"]);
    fleet.call(&["status"], "").must_say(&["maps", "paused for"]);
    daemon.terminate();
    assert_eq!(fleet.once().code, Some(1), "what is paused is not delivered");
    let daemon = fleet.run();
    put("in", "second");
    wait_until("the other directory", || there("in", "second"));
    assert!(!there("maps", "first") && !there("news", "first"));
    for directory in ["maps", "news"] {
        assert_eq!(fleet.call(&["resume", "--directory", directory], "").code, Some(0));
        wait_until(directory, || there(directory, "first"));
    }
    assert_eq!(fleet.call(&["pause", "--directory", "maps", "--until", "3s"], "").code, Some(0));
    put("maps", "third");
    never_within(std::time::Duration::from_secs(1), "sent", || there("maps", "third"));
    wait_until("the pause to end", || there("maps", "third"));
    daemon.terminate();
}

#[test]
fn the_queue_is_listed_in_the_order_in_which_files_go() {
    let plan = Fleet::new().directory("bulk").key("Priority", "bulk").directory("maps").key("Order", "newest");
    let plan = plan.directory("storms").key("Priority", "urgent").openssh("ship");
    let Some(fleet) = plan.start() else { return };
    fleet.vessel("ship").stop();
    for (at, (directory, name)) in
        [("bulk", "film"), ("maps", "old"), ("in", "one"), ("maps", "new"), ("storms", "warning"), ("in", "two")]
            .into_iter()
            .enumerate()
    {
        let place = fleet.path("shore").join(directory).join(name);
        fleet.put_at(&place, b"x", 0o644, at_second(1_600_000_000 + at as u64));
    }
    let daemon = fleet.run();
    daemon.wait_for_log(&["ship", "can't be reached"]);
    let listed = |arguments: &[&str]| -> (Vec<String>, Value) {
        let answer = json(&fleet, &[&["queue", "--json"], arguments].concat());
        let path = |one: &Value| format!("{}/{}", one["directory"].as_str().unwrap(), one["path"].as_str().unwrap());
        (answer["deliveries"].as_array().unwrap().iter().map(path).collect(), answer["next"].clone())
    };
    wait_until("all to wait", || listed(&[]).0.len() == 6);
    let all = listed(&[]).0;
    assert_eq!((all[0].as_str(), all[5].as_str()), ("storms/warning", "bulk/film"), "{all:?}");
    let place = |name: &str| all.iter().position(|one| one == name).unwrap();
    assert!(place("maps/new") < place("maps/old"), "{all:?}");
    let (mut pages, mut after) = (Vec::new(), None::<String>);
    loop {
        let after_it = after.iter().flat_map(|after| ["--after", after]).collect::<Vec<_>>();
        let (page, next) = listed(&[&["--limit", "2"], &after_it[..]].concat());
        pages.extend(page);
        match next.as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(pages, all);
    let table = fleet.call(&["queue"], "");
    table.must_say(&["the vessel is away: ", "can't be reached", "check that sshd runs there"]);
    assert_eq!(table.stdout.lines().filter(|line| *line == "    as above").count(), 5, "{table:?}");
    daemon.terminate();
    let before = ["contentmonster is not running; when it last ran, the vessel was away: ", "can't be reached"];
    fleet.call(&["queue"], "").must_say(&before);
    let daemon = fleet.run();
    // As the files then go: those of one priority at once, the others after them.
    fleet.vessel("ship").start();
    wait_until("all to arrive", || fleet.call(&["receipts", "--json"], "").stdout.lines().count() == 6);
    daemon.terminate();
}

#[test]
fn what_limits_the_speed_of_a_vessel_is_told() {
    let plan = Fleet::new().monster("ChunkSize", "1 MiB").openssh("limited").key("RateLimit", "256 KiB/s");
    let Some(fleet) = plan.openssh("idle").key("Dirs", "none-of-these").directory("none-of-these").start() else {
        return;
    };
    fleet.put("large", &vec![7; 8 << 20]);
    let daemon = fleet.run();
    daemon.wait_for_log(&["limited", "connected"]);
    let speed = |vessel: &str| -> Value {
        let document = json(&fleet, &["status", "--vessel", vessel, "--json"]);
        document["vessels"][0]["speed"].clone()
    };
    let limited = wait_for("the rate limit to be reached", || {
        let speed = speed("limited");
        (speed["limit"] == "rate-limit").then_some(speed)
    });
    assert_eq!((&limited["rate_limit"], &limited["rate_limit_reached"]), (&(256 << 10).into(), &true.into()));
    assert!(limited["path"]["connections"].as_u64().unwrap() > 0, "{limited:#}");
    assert!(limited["path"]["round_trip_ms"].as_f64().unwrap() > 0.0, "{limited:#}");
    assert!(!limited["path"]["congestion_control"].as_str().unwrap().is_empty(), "{limited:#}");
    wait_until("the other to be idle", || speed("idle")["limit"] == "idle");
    let shown = fleet.call(&["status", "--vessel", "limited"], "");
    shown.must_say(&["how fast, and why not faster: RateLimit is reached"]);
    shown.must_say(&["congestion control"]);
    shown.must_say(&["rate limit", "256.00 KiB/s, reached"]);
    daemon.kill9();
    assert!(fs::metadata(fleet.settings()).is_ok());
}
