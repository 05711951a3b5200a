//! What is kept, for how long, and what happens when room runs out.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::fleet::Fleet;
use crate::fleet::namespace::Mounts;
use crate::fleet::wait::{never_within, wait_until};
use crate::fleet::web::{get, metric, page_of};

#[test]
fn what_was_kept_long_enough_goes_and_what_is_not_ours_stays() {
    let Some(fleet) = Fleet::new().openssh("aurora").directory("in").key("Recursive", "yes").start() else { return };
    fs::create_dir_all(fleet.source("deep/er")).unwrap();
    let daemon = fleet.run();
    for name in ["plain", "deep/er/file", "changed", "twice"] {
        fleet.put(name, name.as_bytes());
        fleet.wait_until_retired(name);
    }
    fleet.put("twice", b"the second");
    fleet.wait_until_retired("twice.1");
    daemon.terminate();
    fs::write(fleet.retired("foreign"), "foreign").unwrap();
    fs::write(fleet.retired("changed"), "changed, and longer").unwrap();
    fs::create_dir(fleet.retired("empty")).unwrap();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("[MONSTER]\n", "[MONSTER]\nKeepProcessed = 1s\n"));
    let daemon = fleet.run();
    let gone = ["plain", "deep", "twice", "twice.1"];
    wait_until("what was delivered to be deleted", || gone.iter().all(|name| !fleet.retired(name).exists()));
    daemon.wait_for_log(&["Removed old files from processed"]);
    fleet.put("plain", b"another");
    wait_until("a file to come and go", || {
        fleet.held("aurora", "plain").is_some_and(|held| held == b"another")
            && !fleet.source("plain").exists()
            && !fleet.retired("plain").exists()
    });
    for stays in ["foreign", "changed", "empty"] {
        assert!(fleet.retired(stays).exists(), "{stays} is not ours to delete");
    }
    daemon.terminate();
}

#[test]
fn sources_that_are_not_kept_are_deleted_once_all_have_them() {
    let plan = Fleet::new().monster("KeepProcessed", "no").openssh("aurora").openssh("dead");
    let plan = plan.directory("in").key("Recursive", "yes").key("OnRetired", "sh hook.sh");
    let Some(fleet) = plan.start() else { return };
    fs::write(fleet.path("hook.sh"), "echo \"$CONTENTMONSTER_PATH ${CONTENTMONSTER_LOCAL_PATH-none}\" >> told")
        .unwrap();
    fs::create_dir(fleet.source("deep")).unwrap();
    fleet.vessel("dead").stop();
    fleet.put("deep/cargo", b"cargo");
    let daemon = fleet.run();
    fleet.wait_until_served("aurora", "deep/cargo", b"cargo");
    assert!(fleet.source("deep/cargo").exists(), "one vessel lacks it");
    fleet.vessel("dead").start();
    wait_until("the source to go", || !fleet.source("deep/cargo").exists());
    fleet.assert_equal("dead", "deep/cargo", b"cargo");
    assert!(!fleet.path("shore/in/processed").exists());
    let told = || fs::read_to_string(fleet.path("told")).unwrap_or_default();
    wait_until("it to be told", || told() == "deep/cargo none\n");
    // The same name again is a new file.
    fleet.put("deep/cargo", b"more cargo");
    wait_until("the second to go", || !fleet.source("deep/cargo").exists());
    fleet.assert_equal("aurora", "deep/cargo", b"more cargo");
    daemon.terminate();
}

#[test]
fn without_room_nothing_new_is_taken_in_until_there_is_some() {
    let plan = Fleet::new().monster("Database", "db/ledger.sqlite3").monster("MinFree", "8 MiB");
    let Some(fleet) = plan.monster("Listen", "127.0.0.1:0").openssh("aurora").start() else { return };
    let place = fleet.path("db");
    fs::create_dir(&place).unwrap();
    fleet.put("first", b"first");
    let daemon = fleet.run_with(&Mounts::default().tmpfs("16m", &place));
    let page = page_of(&daemon);
    fleet.wait_until_retired("first");
    let ballast = daemon.seen(&place).join("ballast");
    fs::write(&ballast, vec![1; 10 << 20]).unwrap();
    daemon.wait_for_log(&["MinFree", "no new files"]);
    fleet.put("second", b"second");
    never_within(Duration::from_secs(3), "a file to be sent", || fleet.held("aurora", "second").is_some());
    let document: Value = serde_json::from_str(&get(&page, "/api/status").body).unwrap();
    assert_eq!((&document["disks"][0]["low"], &document["disks"][1]["low"]), (&true.into(), &false.into()));
    assert!(document["directories"][0]["trouble"].as_str().unwrap().contains("MinFree"), "{document:#}");
    let series = format!("contentmonster_disk_low{{path=\"{}\"}}", place.display());
    assert_eq!(metric(&get(&page, "/metrics").body, &series), 1);
    fs::remove_file(&ballast).unwrap();
    daemon.wait_for_log(&["Enough free space again"]);
    fleet.wait_until_retired("second");
    let document: Value = serde_json::from_str(&get(&page, "/api/status").body).unwrap();
    assert!(document["directories"][0]["trouble"].is_null(), "{document:#}");
    daemon.terminate();
}

#[test]
fn old_history_goes_and_what_a_mirror_holds_is_still_known() {
    let plan = Fleet::new().monster("KeepHistory", "1s").openssh("aurora").directory("in");
    let plan = plan.directory("mirror").key("Mode", "mirror").key("Delete", "yes");
    let Some(fleet) = plan.start() else { return };
    let mirrored = |name: &str| fleet.path("shore/mirror").join(name);
    let held = |name: &str| fs::read(fleet.vessel("aurora").path("mirror").join(name)).ok();
    let receipts = || fleet.call(&["receipts", "--csv"], "").stdout;
    fs::write(mirrored("stays"), "stays").unwrap();
    let daemon = fleet.run();
    for text in ["one", "two, and longer"] {
        fs::write(mirrored("page"), text).unwrap();
        wait_until("the mirror to follow", || held("page").is_some_and(|held| held == text.as_bytes()));
    }
    fleet.put("cargo", b"cargo");
    fleet.wait_until_retired("cargo");
    daemon.wait_for_log(&["KeepHistory"]);
    wait_until("only what is there to be remembered", || {
        let receipts = receipts();
        !receipts.contains("cargo") && ["page", "stays"].iter().all(|name| receipts.matches(name).count() == 1)
    });
    daemon.terminate();
    let daemon = fleet.run_logging("debug");
    fs::write(mirrored("other"), "other").unwrap();
    fs::remove_file(mirrored("page")).unwrap();
    wait_until("the deletion to be repeated", || held("page").is_none() && held("other").is_some());
    assert_eq!(daemon.logged(&["taken in", "stays"]), None, "what is known is not sent again");
    daemon.terminate();
}
