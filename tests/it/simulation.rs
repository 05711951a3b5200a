//! A simulation says what would be done, and does nothing.

use std::collections::BTreeSet;
use std::fs;

use crate::fleet::tree::tree;
use crate::fleet::wait::never_within;
use crate::fleet::{Fleet, names_in};

#[test]
fn a_simulation_names_everything_and_touches_nothing() {
    let plan =
        Fleet::new().monster("ChunkSize", "64 KiB").directory("in").key("Mode", "mirror").key("Recursive", "yes");
    let plan = plan.key("Delete", "yes").key("Links", "copy").directory("queue");
    let plan = plan.directory("burnt").key("KeepProcessed", "no");
    let Some(fleet) = plan.openssh("open").start() else { return };
    for name in ["keep", "doomed"] {
        fleet.put(name, name.as_bytes());
    }
    assert_eq!(fleet.once().code, Some(0));
    fs::remove_file(fleet.source("doomed")).unwrap();
    fs::create_dir(fleet.source("new\ndir")).unwrap();
    fs::write(fleet.source("new\ndir/large"), vec![1; 200_000]).unwrap();
    std::os::unix::fs::symlink("keep", fleet.source("link")).unwrap();
    fs::write(fleet.path("shore/queue/letter"), b"letter").unwrap();
    fs::write(fleet.path("shore/burnt/note"), b"note").unwrap();
    let ledger = fleet.path("database.sqlite3");
    let before = (tree(&fleet.path("shore")), tree(&fleet.vessel("open").path("")), fs::read(&ledger).unwrap());
    let beside = names_in(&fleet.path(""));
    let ended = fleet.call(&["--simulate"], "");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let after = (tree(&fleet.path("shore")), tree(&fleet.vessel("open").path("")), fs::read(&ledger).unwrap());
    assert!(before == after, "something was touched");
    assert_eq!(names_in(&fleet.path("")), beside);
    let (shore, there) = (fleet.path("shore").display().to_string(), fleet.vessel("open").remote(""));
    let there = there.trim_end_matches('/');
    let wanted = BTreeSet::from([
        format!("create on open: directory {there}/in/new\\ndir"),
        format!("create on open: link {there}/in/link that points to keep"),
        format!(
            "send to open: {shore}/in/new\\ndir/large as {there}/in/new\\ndir/large (200000 bytes, assembled from 4 chunks)"
        ),
        format!("send to open: {shore}/queue/letter as {there}/queue/letter (6 bytes)"),
        format!("delete on open: {there}/in/doomed"),
        format!("move: {shore}/queue/letter to {shore}/queue/processed/letter"),
        format!("send to open: {shore}/burnt/note as {there}/burnt/note (4 bytes)"),
        format!("delete on this host, once every vessel has it: {shore}/burnt/note"),
    ]);
    assert_eq!(ended.stdout.lines().map(str::to_owned).collect::<BTreeSet<_>>(), wanted);
}

#[test]
fn a_simulation_without_a_ledger_makes_none_and_the_setting_does_as_the_argument() {
    let Some(fleet) = Fleet::new().monster("Simulate", "yes").openssh("open").start() else { return };
    fleet.put("letter", b"letter");
    fleet.call(&["--simulate"], "").must_say(&["send to open", "letter", "6 bytes"]);
    fleet.call(&["--once"], "").must_say(&["send to open", "letter", "6 bytes"]);
    assert!(!fleet.path("database.sqlite3").exists());
    let daemon = fleet.run();
    daemon.wait_for_log(&["Simulation: send to open", "letter"]);
    never_within(std::time::Duration::from_millis(500), "sent", || fleet.held("open", "letter").is_some());
    daemon.terminate();
    assert!(fleet.source("letter").exists() && !fleet.path("database.sqlite3").exists());
}
