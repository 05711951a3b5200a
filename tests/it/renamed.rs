//! What a section had to deliver when it was renamed or removed: found, explained, and given up when a person says so.

use std::fs;

use crate::fleet::Fleet;
use crate::fleet::wait::wait_for;

/// A fleet with three files that wait for a vessel that is away, and whose directory has another name since.
fn renamed() -> Option<Fleet> {
    let fleet = Fleet::new().directory("in").openssh("tern").key("ReconnectWait", "1s").start()?;
    fleet.vessel("tern").stop();
    for name in ["one", "two", "three"] {
        fleet.put(name, name.as_bytes());
    }
    assert_eq!(fleet.once().code, Some(1));
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let text = text.replace("[Directory in]", "[Directory the new name]");
    fleet.write_settings(&text.replace("RemoteLocation.in", "RemoteLocation.the new name"));
    Some(fleet)
}

#[test]
fn what_a_renamed_section_left_is_found_by_why_retry_and_forget() {
    let Some(fleet) = renamed() else { return };
    let why = fleet.call(&["why", "in/one"], "");
    assert_eq!(why.code, Some(1), "{why:?}");
    why.must_say(&["[Directory in]", "no longer in the settings"]);
    why.must_say(&["you can:", "forget --all in"]);
    fleet.vessel("tern").start();
    let daemon = fleet.run();
    // Parked or waiting, the advice is one that works.
    let parked = wait_for("the old name to be parked", || {
        let status = fleet.call(&["status"], "");
        status.says(&["in/one", "no longer in the settings"]).then_some(status)
    });
    parked.must_say(&["in/one", "forget --all"]);
    let retried = fleet.call(&["retry", "in/one"], "");
    assert_eq!(retried.code, Some(0), "{retried:?}");
    let forgotten = fleet.call(&["forget", "in/one"], "");
    assert_eq!(forgotten.code, Some(0), "{forgotten:?}");
    let all = fleet.call(&["forget", "--all", "in"], "");
    assert_eq!(all.code, Some(0), "{all:?}");
    all.must_say(&["2 files of in"]);
    assert!(!fleet.call(&["status"], "").says(&["in/two"]));
    let why = fleet.call(&["why", "in/two", "--vessel", "tern"], "");
    assert_eq!(why.code, Some(0), "{why:?}");
    why.must_say(&["forgotten"]);
    fleet.wait_until_retired("three");
    fleet.assert_equal("tern", "three", b"three");
    daemon.terminate();
    assert_eq!(fleet.once().code, Some(0), "nothing is left to do");
}

#[test]
fn without_a_running_program_everything_of_a_directory_is_given_up_too() {
    let Some(fleet) = renamed() else { return };
    let unknown = fleet.call(&["forget", "--all", "inn"], "");
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    unknown.must_say(&["no directory is named inn", "in, the new name"]);
    let all = fleet.call(&["forget", "--all", "in"], "");
    assert_eq!(all.code, Some(0), "{all:?}");
    all.must_say(&["3 files of in"]);
    let again = fleet.call(&["forget", "--all", "in"], "");
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(fleet.call(&["forget", "--all", "in", "in/one"], "").code, Some(2));
    assert_eq!(fleet.call(&["forget"], "").code, Some(2));
}

#[test]
fn a_vessel_that_was_renamed_is_named_by_why() {
    let Some(fleet) = Fleet::new().directory("in").openssh("tern").start() else { return };
    fleet.put("cargo", b"cargo");
    assert_eq!(fleet.once().code, Some(0));
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("[Vessel tern]", "[Vessel gull]"));
    let why = fleet.call(&["why", "in/cargo", "--vessel", "tern"], "");
    assert_eq!(why.code, Some(0), "{why:?}");
    assert_eq!(fleet.call(&["why", "in/cargo", "--vessel", "auk"], "").code, Some(2));
}
