//! The queue and the status of what waits: in the order in which it goes, and with the reason why each file waits.

use std::fs;

use serde_json::Value;

use crate::fleet::Fleet;
use crate::fleet::wait::{wait_for, wait_until};
use crate::fleet::web::{get, page_of};

#[test]
fn the_queue_is_listed_page_by_page_with_and_without_the_running_program() {
    let plan = Fleet::new().monster("Listen", "127.0.0.1:0").openssh("up").openssh("down");
    let Some(fleet) = plan.start() else { return };
    fleet.vessel("down").stop();
    for number in 0..7 {
        fleet.put(format!("file {number}"), &vec![b'x'; 100 + number]);
    }
    let daemon = fleet.run();
    wait_until("six to be delivered to the other", || (0..7).all(|n| fleet.held("up", format!("file {n}")).is_some()));
    let json = |arguments: &[&str]| -> Value {
        let ended = fleet.call(arguments, "");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str(&ended.stdout).unwrap()
    };
    let all = wait_for("seven to wait", || {
        let all = json(&["queue", "--json"]);
        (all["deliveries"].as_array().unwrap().len() == 7).then_some(all)
    });
    assert!(all["next"].is_null());
    assert_eq!(all["deliveries"][0]["vessel"], "down");
    assert_eq!((&all["deliveries"][0]["state"], &all["deliveries"][0]["attempts"]), (&"waiting".into(), &0.into()));
    let pages = |ask: &dyn Fn(Option<&str>) -> Value| {
        let (mut listed, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = ask(after.as_deref());
            listed.extend(page["deliveries"].as_array().unwrap().iter().map(|one| one["delivery"].clone()));
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => return listed,
            }
        }
    };
    let expected: Vec<Value> =
        all["deliveries"].as_array().unwrap().iter().map(|one| one["delivery"].clone()).collect();
    let by_command = |after: Option<&str>| {
        let mut arguments = vec!["queue", "down", "--json", "--limit", "3"];
        arguments.extend(after.iter().flat_map(|after| ["--after", after]));
        json(&arguments)
    };
    assert_eq!(pages(&by_command), expected);
    let page = page_of(&daemon);
    let by_api = |after: Option<&str>| {
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        serde_json::from_str(&get(&page, &format!("/api/queue?vessel=down&limit=2{after}")).body).unwrap()
    };
    assert_eq!(pages(&by_api), expected);
    for (query, status) in
        [("limit=x", 400), ("state=lost", 400), ("after=nonsense", 400), ("colour=red", 400), ("limit=0", 200)]
    {
        assert_eq!(get(&page, &format!("/api/queue?{query}")).status, status, "{query}");
    }
    assert_eq!(json(&["queue", "up", "--json"])["deliveries"], Value::Array(Vec::new()));
    let found = json(&["queue", "--search", "file 3", "--json"]);
    assert_eq!(found["deliveries"].as_array().unwrap().len(), 1, "{found}");
    let table = fleet.call(&["queue", "--limit", "2"], "");
    table.must_say(&["VESSEL", "STATE", "SIZE", "AGE", "FILE"]);
    table.must_say(&["more deliveries wait", "--after"]);
    let unknown = fleet.call(&["queue", "dwon"], "");
    assert_eq!(unknown.code, Some(2));
    unknown.must_say(&["did you mean down?"]);
    daemon.terminate();
    let after = json(&["queue", "in", "--json"]);
    assert_eq!(pages(&|_| after.clone()), expected);
    fleet.call(&["queue", "--state", "sending"], "").must_say(&["nothing is waiting"]);
}

#[test]
fn what_is_sent_now_is_listed_as_such_with_its_time_left() {
    let Some(fleet) = Fleet::new().openssh("slow").proxied().key("Connections", "1").start() else { return };
    fleet.vessel("slow").link().limit(256 << 10);
    fleet.put("big", &vec![7; 24 << 20]);
    let daemon = fleet.run();
    let sending = wait_for("it to be sent at a rate", || {
        let ended = fleet.call(&["queue", "--state", "sending", "--json"], "");
        let answer: Value = serde_json::from_str(&ended.stdout).ok()?;
        let one = answer["deliveries"][0].clone();
        (one["taken"].as_u64()? > 0).then_some(one)
    });
    assert_eq!((&sending["path"], &sending["state"]), (&"big".into(), &"sending".into()));
    let all = wait_for("its time left to be known", || {
        let ended = fleet.call(&["queue", "slow", "--json"], "");
        let answer: Value = serde_json::from_str(&ended.stdout).ok()?;
        answer["deliveries"][0]["eta_seconds"].as_u64()
    });
    assert!(all > 10, "{all} s for 24 MiB at 256 KiB/s");
    daemon.terminate();
}

#[test]
fn what_was_put_off_is_counted_with_its_reason_and_the_log_is_thinned() {
    let Some(fleet) = Fleet::new().monster("LogLevel", "info").openssh("tern").start() else { return };
    let vessel = fleet.vessel("tern");
    fs::write(vessel.path("blocked"), b"a file").unwrap();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&format!("{text}RemoteLocation.in = {}\n", vessel.remote("blocked/x")));
    for number in 0..300 {
        fleet.put(format!("{number:03}"), b"x");
    }
    let daemon = fleet.run();
    let put_off = wait_for("all to be postponed", || {
        let ended = fleet.call(&["status", "--json"], "");
        let document: Value = serde_json::from_str(&ended.stdout).ok()?;
        let one = document["vessels"][0].clone();
        (one["put_off"].as_u64()? + one["parked"].as_u64()? == 300).then_some(one)
    });
    assert!(put_off["retried_first"]["reason"].as_str().unwrap().contains("not a directory"), "{put_off}");
    let shown = fleet.call(&["status"], "");
    shown.must_say(&["postponed"]);
    shown.must_say(&["tern", "not a directory"]);
    wait_until("some to be listed with their next try", || {
        let [put_off, parked] = ["put-off", "parked"].map(|state| fleet.call(&["queue", "--state", state], ""));
        [put_off, parked].iter().any(|listed| listed.says(&["not a directory", "next try"]))
    });
    let checked = fleet.call(&["status", "--check"], "");
    assert_eq!(checked.code, Some(1), "{checked:?}");
    checked.must_say(&["WARNING", "for tern", "| waiting=300"]);
    let lines = daemon.log().iter().filter(|line| line.contains("not a directory")).count();
    assert!((1..30).contains(&lines), "{lines} lines of one cause");
    daemon.terminate();
}

#[test]
fn the_status_is_there_although_the_settings_have_errors() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    let good = fs::read_to_string(fleet.settings()).unwrap();
    let daemon = fleet.run();
    fleet.put("first", b"1");
    fleet.wait_until_retired("first");
    fleet.write_settings(&format!("{good}Timeout = soon\n"));
    daemon.reload();
    daemon.wait_for_log(&["not reloaded"]);
    let shown = fleet.call(&["status"], "");
    assert_eq!(shown.code, Some(0), "{shown:?}");
    shown.must_say(&["tern", "connected"]);
    shown.must_say(&["the settings have 1 problem", "previous settings"]);
    assert_eq!(fleet.call(&["queue"], "").code, Some(0));
    assert_eq!(fleet.call(&["pause", "tern"], "").code, Some(0));
    fleet.call(&["status"], "").must_say(&["tern", "paused"]);
    assert_eq!(fleet.call(&["resume", "tern"], "").code, Some(0));
    let checked = fleet.call(&["status", "--check"], "");
    assert_eq!(checked.code, Some(1), "{checked:?}");
    checked.must_say(&["WARNING", "the last reload of the settings failed"]);
    daemon.terminate();
    let down = fleet.call(&["status"], "");
    assert_eq!(down.code, Some(3), "{down:?}");
    down.must_say(&["Timeout", "soon"]);
}

#[test]
fn the_exit_codes_for_monitoring_are_those_of_a_plugin() {
    let Some(fleet) = Fleet::new().openssh("up").openssh("down").start() else { return };
    let check = |arguments: &[&str]| {
        let ended = fleet.call(&[&["status", "--check"], arguments].concat(), "");
        (ended.code, ended.stdout)
    };
    let (code, said) = check(&[]);
    assert_eq!((code, said.contains("CRITICAL: contentmonster is not running")), (Some(2), true), "{said}");
    let daemon = fleet.run();
    wait_until("all to be connected", || check(&[]).0 == Some(0));
    assert!(check(&[]).1.starts_with("OK: 2 vessels, 0 files waiting | waiting=0"), "{}", check(&[]).1);
    fleet.vessel("down").stop();
    wait_until("one to be away", || check(&[]).0 == Some(1));
    assert!(check(&[]).1.contains("WARNING: 1 of 2 vessels away: down"), "{}", check(&[]).1);
    assert_eq!(check(&["--vessel", "down"]).0, Some(2), "all that were asked for are away");
    assert_eq!(check(&["--vessel", "up"]).0, Some(0));
    let json: Value = serde_json::from_str(&check(&["--json"]).1).unwrap();
    assert_eq!((&json["state"], &json["code"], &json["vessels_away"]), (&"WARNING".into(), &1.into(), &1.into()));
    let trouble = fleet.call(&["status", "--only-trouble"], "");
    assert!(trouble.says(&["down", "away"]) && !trouble.says(&["up", "connected"]), "{trouble:?}");
    assert_eq!(check(&["--vessel", "nobody"]).0, Some(3), "an unknown vessel");
    daemon.terminate();
    fleet.write_settings("[Vessel x]\n");
    assert_eq!(check(&[]).0, Some(3), "the settings are invalid, and nothing runs");
}
