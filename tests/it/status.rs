//! What is shown of it agrees with itself and with the truth on the disks, with a running daemon and without.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::fleet::content::{MIB, content};
use crate::fleet::wait::{wait_for, wait_until};
use crate::fleet::web::{ask, get, metric, order, page_of};
use crate::fleet::{Fleet, names_in};

/// The document that `status --json` gives.
#[track_caller]
fn status(fleet: &Fleet) -> Value {
    let ended = fleet.call(&["status", "--json"], "");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

/// One vessel or directory of a document.
#[track_caller]
fn named<'a>(document: &'a Value, list: &str, name: &str) -> &'a Value {
    let found = document[list].as_array().unwrap().iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {document:#}"))
}

/// The files and their bytes in a directory.
fn files_in(directory: &Path) -> Vec<(String, u64)> {
    let names = names_in(directory).into_iter().map(|name| name.into_string().unwrap());
    let files = names.map(|name| (fs::metadata(directory.join(&name)), name));
    files.filter_map(|(meta, name)| meta.ok().filter(|meta| meta.is_file()).map(|meta| (name, meta.len()))).collect()
}

/// What a vessel lacks of what lies on the shore, going by the disks: files and bytes.
fn lacks(fleet: &Fleet, vessel: &str) -> (u64, u64) {
    let held: Vec<_> = files_in(&fleet.vessel(vessel).path("in")).into_iter().map(|(name, _)| name).collect();
    let lacking = files_in(&fleet.path("shore/in")).into_iter().filter(|(name, _)| !held.contains(name));
    lacking.fold((0, 0), |(files, bytes), (_, size)| (files + 1, bytes + size))
}

fn amount(value: &Value) -> (u64, u64) {
    (value["files"].as_u64().unwrap(), value["bytes"].as_u64().unwrap())
}

#[test]
fn terminal_page_and_metrics_agree_with_each_other_and_with_the_disks() {
    let plan = Fleet::new().monster("ChunkSize", "1 MiB").monster("Listen", "127.0.0.1:0");
    let plan = plan.openssh("fast").openssh("dead").openssh("slow").proxied().key("Connections", "1");
    let Some(fleet) = plan.start() else { return };
    fleet.vessel("dead").stop();
    let daemon = fleet.run();
    let page = page_of(&daemon);
    for (name, size) in [("a", 5), ("b", 300_000), ("c", 0)] {
        fleet.put(name, &content(1, size));
        fleet.wait_until_served("slow", name, &content(1, size));
    }
    fleet.vessel("slow").link().limit(32 << 10);
    let large = content(2, 6 * MIB + 1);
    fleet.put("large", &large);
    fleet.wait_until_served("fast", "large", &large);
    let moving = |document: &Value| {
        let slow = named(document, "vessels", "slow");
        ["in_flight_bytes", "rate"].iter().all(|number| slow[*number].as_u64().unwrap() > 0)
    };
    wait_until("the slow vessel to hold some of it, at a rate", || moving(&status(&fleet)));

    // The slow vessel takes minutes for the rest: what waits stands still meanwhile.
    let documents = [status(&fleet), serde_json::from_str(&get(&page, "/api/status").body).unwrap()];
    let metrics = get(&page, "/metrics").body;
    for vessel in ["fast", "dead", "slow"] {
        let truth = lacks(&fleet, vessel);
        documents.iter().for_each(|document| assert_eq!(amount(&named(document, "vessels", vessel)["backlog"]), truth));
        let series = |name: &str| metric(&metrics, &format!("contentmonster_{name}{{vessel=\"{vessel}\"}}"));
        assert_eq!((series("backlog_files"), series("backlog_bytes")), truth, "{vessel}");
        let connected = named(&documents[0], "vessels", vessel)["link"]["state"] == "connected";
        assert_eq!(series("vessel_connected"), u64::from(connected), "{vessel}");
        assert_eq!(connected, vessel != "dead");
        assert_eq!(
            series("acknowledged_files_total"),
            if vessel == "fast" {
                4
            } else if vessel == "slow" {
                3
            } else {
                0
            }
        );
    }
    // The dead one lacks them all, so all of them wait in the directory.
    let truth = lacks(&fleet, "dead");
    assert_eq!(truth, (4, 300_005 + large.len() as u64));
    documents.iter().for_each(|document| assert_eq!(amount(&named(document, "directories", "in")["waiting"]), truth));
    assert_eq!(metric(&metrics, "contentmonster_directory_waiting_bytes{directory=\"in\"}"), truth.1);
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    let dashboard = include_str!("../../packaging/grafana.json");
    let names =
        dashboard.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| word.starts_with("contentmonster_"));
    names.for_each(|name| assert!(metrics.contains(&format!("\n{name}")), "the dashboard asks for {name}"));
    let slow = named(&documents[0], "vessels", "slow");
    assert_eq!((&slow["transfers"][0]["path"], &slow["transfers"][0]["bytes"]), (&"large".into(), &large.len().into()));
    assert!(slow["eta_seconds"].as_u64().is_some() && slow["rate"].as_u64().unwrap() > 0, "{slow:#}");
    let table = fleet.call(&["status"], "");
    table.must_say(&["dead", "away"]);
    table.must_say(&["dead", "can't be reached"]);

    // Without the daemon the ledger says the same.
    daemon.terminate();
    assert!(!fleet.path("database.sqlite3.sock").exists());
    let after = status(&fleet);
    assert!(after["daemon"].is_null());
    for vessel in ["fast", "dead", "slow"] {
        let (then, now) = (named(&documents[0], "vessels", vessel), named(&after, "vessels", vessel));
        assert_eq!((&then["backlog"], &then["acknowledged"]), (&now["backlog"], &now["acknowledged"]), "{vessel}");
        assert_eq!(now["link"]["state"], "off");
    }
    fleet.call(&["status"], "").must_say(&["not running"]);

    fleet.vessel("slow").link().limit(0);
    fleet.vessel("dead").start();
    let daemon = fleet.run();
    fleet.wait_until_retired("large");
    let retired = files_in(&fleet.path("shore/in/processed"));
    let truth = (retired.len() as u64, retired.iter().map(|(_, size)| size).sum::<u64>());
    let end = wait_for("everything to be retired", || {
        let document = status(&fleet);
        (amount(&named(&document, "directories", "in")["retired_today"]) == truth).then_some(document)
    });
    assert_eq!(truth.0, 4);
    for vessel in ["fast", "dead", "slow"] {
        assert_eq!(amount(&named(&end, "vessels", vessel)["backlog"]), (0, 0), "{vessel}");
        assert_eq!(amount(&named(&end, "vessels", vessel)["acknowledged"]), truth, "{vessel}");
    }
    daemon.terminate();
}

#[test]
fn the_page_keeps_foreign_names_and_orders_without_the_token_out() {
    let plan = Fleet::new().monster("Listen", "127.0.0.1:0").monster("ListenToken", "open sesame");
    let Some(fleet) = plan.openssh("open").start() else { return };
    let daemon = fleet.run();
    let page = page_of(&daemon);
    let shown = get(&page, "/");
    assert_eq!(shown.status, 200);
    let policy = &shown.headers["content-security-policy"];
    assert!(policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(shown.headers["x-content-type-options"], "nosniff");
    for host in ["evil.example", "127.0.0.1.evil.example:80"] {
        let refused = ask(&page, &format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(refused.status, 421, "{host}");
        assert!(!refused.body.contains("vessels"));
    }
    assert_eq!(get(&page, "/healthz").body, "ok\n");
    wait_until("it to be ready", || get(&page, "/readyz").status == 200);

    let pause = r#"{"order":"pause","vessel":"open"}"#;
    assert_eq!((order(&page, None, pause).status, order(&page, Some("open sesam"), pause).status), (403, 403));
    assert_eq!(order(&page, Some("open sesame"), r#"{"order":"pause","vessel":"closed"}"#).status, 404);
    assert_eq!(order(&page, Some("open sesame"), r#"{"order":"sink"}"#).status, 422);
    let paused = || named(&status(&fleet), "vessels", "open")["link"]["state"] == "paused";
    assert!(!paused());
    assert_eq!(order(&page, Some("open sesame"), pause).status, 200);
    assert!(paused());
    assert!(daemon.logged(&["sesame"]).is_none(), "a secret in the log");
    daemon.terminate();
}

#[test]
fn a_paused_vessel_gets_nothing_until_it_is_resumed_whatever_is_restarted() {
    let Some(fleet) = Fleet::new().openssh("up").openssh("paused").start() else { return };
    let daemon = fleet.run();
    fleet.put("first", b"first");
    fleet.wait_until_retired("first");
    assert_eq!(fleet.call(&["pause", "paused"], "").code, Some(0));
    fleet.put("second", b"second");
    fleet.wait_until_served("up", "second", b"second");
    daemon.terminate();
    let daemon = fleet.run();
    fleet.put("third", b"third");
    fleet.wait_until_served("up", "third", b"third");
    fleet.call(&["status"], "").must_say(&["paused", "2"]);
    assert!(fleet.held("paused", "second").is_none() && fleet.held("paused", "third").is_none());
    daemon.terminate();
    let once = fleet.once();
    assert_eq!(once.code, Some(1), "what is paused is not delivered: {once:?}");
    // Also without a daemon.
    assert_eq!(fleet.call(&["resume", "paused"], "").code, Some(0));
    let daemon = fleet.run();
    fleet.wait_until_retired("third");
    // And while it runs.
    for (order, paused) in [("pause", true), ("resume", false)] {
        fleet.call(&[order, "paused"], "").must_say(&["paused"]);
        let state = || named(&status(&fleet), "vessels", "paused")["link"]["state"].clone();
        wait_until(order, || (state() == "paused") == paused);
    }
    fleet.put("fourth", b"fourth");
    fleet.wait_until_retired("fourth");
    assert_eq!(fleet.call(&["pause", "nobody"], "").code, Some(2));
    daemon.terminate();
}

#[test]
fn a_forgotten_file_stays_where_it_is_until_it_changes() {
    let Some(fleet) = Fleet::new().openssh("up").openssh("down").start() else { return };
    fleet.vessel("down").stop();
    let daemon = fleet.run();
    fleet.put("cargo", b"cargo");
    fleet.wait_until_served("up", "cargo", b"cargo");
    let source = fleet.source("cargo").display().to_string();
    let forgotten = fleet.call(&["forget", &source], "");
    assert_eq!(forgotten.code, Some(0), "{forgotten:?}");
    assert_eq!(fleet.call(&["forget", &source], "").code, Some(1));
    fleet.call(&["why", "cargo"], "").must_say(&["forgotten", "until the file changes"]);
    fleet.vessel("down").start();
    fleet.put("other", b"other");
    fleet.wait_until_retired("other");
    daemon.terminate();
    let daemon = fleet.run();
    fleet.put("third", b"third");
    fleet.wait_until_retired("third");
    assert!(fleet.source("cargo").exists() && fleet.held("down", "cargo").is_none());
    fleet.put("cargo", b"changed");
    fleet.wait_until_retired("cargo");
    fleet.assert_equal("down", "cargo", b"changed");
    daemon.terminate();
}

#[test]
fn receipts_name_every_file_vessel_and_hash() {
    let Some(fleet) = Fleet::new().openssh("open").sftp_only("chroot").start() else { return };
    fleet.put("cargo, \"first class\"", b"cargo");
    fleet.put("other", b"other");
    assert_eq!(fleet.once().code, Some(0));
    let sha256 = contentmonster::digest::Digest::of(b"cargo").to_string();
    let csv = fleet.call(&["receipts", "--csv"], "");
    assert_eq!(
        csv.stdout.lines().next(),
        Some("delivered,vessel,directory,file,bytes,sha256,verified,written_bytes,link_bytes,made_from,saved_bytes")
    );
    csv.must_say(&[",open,in,\"cargo, \"\"first class\"\"\",5,", &sha256, "hashed on the vessel"]);
    csv.must_say(&[",chroot,in,", &sha256, "read back"]);
    assert_eq!(csv.stdout.lines().count(), 5);
    let json = fleet.call(&["receipts", "in/cargo, \"first class\"", "--vessel", "open", "--json"], "");
    let line: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((line["sha256"].as_str(), line["bytes"].as_u64()), (Some(sha256.as_str()), Some(5)));
    fleet.call(&["receipts"], "").must_say(&["chroot", "in/other", "5 bytes"]);
}

#[test]
fn without_a_ledger_the_commands_say_so_and_make_none() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    for arguments in [&["status"][..], &["receipts"], &["pause", "open"], &["why", "cargo"]] {
        let ended = fleet.call(arguments, "");
        assert_eq!(ended.code, Some(4), "{ended:?}");
        ended.must_say(&["there is no ledger yet", "database.sqlite3", "start contentmonster"]);
    }
    assert!(!fleet.path("database.sqlite3").exists());
}
