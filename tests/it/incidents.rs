//! Troubles that last are told once when they begin and once when they are over, whatever is restarted meanwhile.

use std::fs;

use serde_json::Value;

use crate::fleet::Fleet;
use crate::fleet::port::free_port;
use crate::fleet::wait::wait_until;
use crate::fleet::web::{get, page_of};

/// Writes a line for each event: trouble, state, subject.
const WRITES_A_LINE: &str =
    "echo $CONTENTMONSTER_TROUBLE $CONTENTMONSTER_STATE $CONTENTMONSTER_VESSEL$CONTENTMONSTER_DIRECTORY >> told";

fn told(fleet: &Fleet) -> Vec<String> {
    let text = fs::read_to_string(fleet.path("told")).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[track_caller]
fn wait_for(fleet: &Fleet, line: &str) {
    wait_until(line, || told(fleet).iter().any(|told| told == line));
}

#[test]
fn a_vessel_that_is_away_for_long_is_told_once_and_once_more_when_it_is_back() {
    let plan = Fleet::new().monster("OnTrouble", "sh hook.sh").openssh("ship").key("AwayAfter", "2s").openssh("other");
    let Some(fleet) = plan.start() else { return };
    fs::write(fleet.path("hook.sh"), WRITES_A_LINE).unwrap();
    let daemon = fleet.run();
    daemon.wait_for_log(&["ship", "connected"]);
    fleet.vessel("ship").stop();
    wait_for(&fleet, "vessel-away begun ship");
    daemon.terminate();
    // It is still away after a restart: that is not told again.
    let daemon = fleet.run();
    daemon.wait_for_log(&["ship", "can't be reached"]);
    fs::write(fleet.settings(), fs::read_to_string(fleet.settings()).unwrap() + "Timeout = soon\n").unwrap();
    daemon.reload();
    wait_for(&fleet, "reload-failed begun");
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("Timeout = soon\n", ""));
    daemon.reload();
    wait_for(&fleet, "reload-failed over");
    fleet.vessel("ship").start();
    wait_for(&fleet, "vessel-away over ship");
    let expected = ["vessel-away begun ship", "reload-failed begun", "reload-failed over", "vessel-away over ship"];
    assert_eq!(told(&fleet), expected);
    daemon.terminate();
}

#[test]
fn a_webhook_that_is_down_leaves_the_command_with_no_beginning_or_end_untold() {
    let plan = Fleet::new()
        .monster("OnTrouble", "sh hook.sh")
        .monster("Webhook", &format!("http://127.0.0.1:{}", free_port()));
    let Some(fleet) = plan.openssh("ship").key("AwayAfter", "2s").openssh("other").start() else { return };
    fs::write(fleet.path("hook.sh"), WRITES_A_LINE).unwrap();
    let daemon = fleet.run();
    daemon.wait_for_log(&["ship", "connected"]);
    let (begun, over) = ("vessel-away begun ship", "vessel-away over ship");
    for times in 1..=2 {
        fleet.vessel("ship").stop();
        wait_until("the beginning", || told(&fleet).len() == times * 2 - 1);
        fleet.vessel("ship").start();
        wait_until("the end", || told(&fleet).len() == times * 2);
    }
    assert_eq!(told(&fleet), [begun, over, begun, over]);
    daemon.wait_for_log(&["Cannot report troubles", "webhook"]);
    daemon.terminate();
}

#[test]
fn held_back_deletions_and_a_missing_location_are_told_until_they_are_over() {
    let plan =
        Fleet::new().monster("OnTrouble", "sh hook.sh").directory("in").key("Mode", "mirror").key("Delete", "yes");
    let Some(fleet) = plan.key("MaxDelete", "1").key("RescanInterval", "1s").openssh("ship").start() else { return };
    fs::write(fleet.path("hook.sh"), WRITES_A_LINE).unwrap();
    (0..5).for_each(|n| fleet.put(n.to_string(), b"bytes"));
    let daemon = fleet.run();
    wait_until("all to arrive", || (0..5).all(|n| fleet.held("ship", n.to_string()).is_some()));
    (0..3).for_each(|n| fs::remove_file(fleet.source(n.to_string())).unwrap());
    wait_for(&fleet, "deletions-held begun in");
    (0..3).for_each(|n| fleet.put(n.to_string(), b"bytes"));
    wait_for(&fleet, "deletions-held over in");
    let location = fleet.path("shore/in");
    fs::rename(&location, fleet.path("shore/elsewhere")).unwrap();
    wait_for(&fleet, "directory-trouble begun in");
    fs::rename(fleet.path("shore/elsewhere"), &location).unwrap();
    wait_for(&fleet, "directory-trouble over in");
    daemon.terminate();
}

#[test]
fn a_command_that_fails_shows_in_the_status_and_in_the_metrics() {
    let plan = Fleet::new().monster("Listen", "127.0.0.1:0").monster("OnDelivered", "sh hook.sh").openssh("ship");
    let Some(fleet) = plan.start() else { return };
    fs::write(fleet.path("hook.sh"), "exit 7").unwrap();
    let daemon = fleet.run();
    daemon.wait_for_log(&["ship", "connected"]);
    fleet.put("cargo", b"cargo");
    let document = || -> Value { serde_json::from_str(&fleet.call(&["status", "--json"], "").stdout).unwrap() };
    wait_until("the failure to show", || document()["hooks"][0]["failing"].is_string());
    assert_eq!(
        (&document()["hooks"][0]["name"], &document()["hooks"][0]["failures"]),
        (&"command sh".into(), &1.into())
    );
    fleet.call(&["status"], "").must_say(&["command sh has been failing", "exit status: 7"]);
    let checked = fleet.call(&["status", "--check"], "");
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let metrics = get(&page_of(&daemon), "/metrics").body;
    assert!(metrics.contains("contentmonster_hook_failures_total{hook=\"command sh\"} 1"), "{metrics}");
    assert!(metrics.contains("contentmonster_hook_failing{hook=\"command sh\"} 1"), "{metrics}");
    fs::write(fleet.path("hook.sh"), "exit 0").unwrap();
    fleet.put("more", b"more");
    wait_until("the failure to be over", || document()["hooks"][0]["failing"].is_null());
    daemon.terminate();
}
