//! Trouble with a directory is said once, shown as long as it lasts, taken back when it is mended, and said again.

use std::fs;

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::daemon::Daemon;
use crate::fleet::wait::wait_until;

fn times(daemon: &Daemon, words: &str) -> usize {
    daemon.log().iter().filter(|line| line.contains(words)).count()
}

#[test]
fn trouble_that_is_mended_is_taken_back_and_said_again_when_it_returns() {
    let Some(fleet) = Fleet::new().openssh("v").start() else { return };
    let processed = fleet.path("shore/in/processed");
    fs::write(&processed, "in the way").unwrap();
    let daemon = fleet.run();
    fleet.put("a", b"a");
    daemon.wait_for_log(&["can't retire a", "processed"]);
    fleet.call(&["status"], "").must_say(&["can't retire a"]);
    fs::remove_file(&processed).unwrap();
    // Another one that arrives has it tried again.
    fleet.put("b", b"b");
    fleet.wait_until_retired("a");
    wait_until("the trouble to be over", || times(&daemon, "Resolved: ") == 1);
    // What was asked for a moment ago may be shown again.
    wait_until("status to be clear of it", || !fleet.call(&["status"], "").says(&["can't retire"]));
    fs::rename(&processed, fleet.path("archive")).unwrap();
    fs::write(&processed, "in the way").unwrap();
    fleet.put("a", b"another");
    wait_until("it to be said again", || times(&daemon, "can't retire a") == 2);
    daemon.terminate();
}

#[test]
fn a_single_run_that_delivered_all_ends_well_whatever_was_in_its_way_meanwhile() {
    let plan = Fleet::new().monster("ChunkSize", "256 KiB").openssh("v").key("RateLimit", "1 MiB/s");
    let Some(fleet) = plan.start() else { return };
    let processed = fleet.path("shore/in/processed");
    fs::write(&processed, "in the way").unwrap();
    fleet.put("small", b"small");
    fleet.put("large", &content(1, 3 * MIB));
    let once = fleet.begin(&["--once"], "");
    once.wait_for_log(&["can't retire small"]);
    fs::remove_file(&processed).unwrap();
    let ended = once.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.must_say(&["everything is delivered"]);
    // What is still in the way at the end is said, and is no success.
    fs::rename(&processed, fleet.path("archive")).unwrap();
    fs::write(&processed, "in the way").unwrap();
    fleet.put("more", b"more");
    let ended = fleet.once();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended.must_say(&["directory in", "can't retire more"]);
}
