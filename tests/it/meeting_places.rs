//! Places on a vessel that only the vessel can compare.

use std::fs;

use crate::fleet::Fleet;
use crate::fleet::names_in;

/// A fleet whose vessel gets the directories `in` and `out`, where these lines say.
fn two_directories(lines: &str) -> Option<Fleet> {
    let fleet = Fleet::new().directory("in").directory("out").openssh("tern").start()?;
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("[Vessel tern]\n", &format!("[Vessel tern]\n{lines}\n")));
    Some(fleet)
}

#[test]
fn a_relative_place_and_an_absolute_one_that_are_one_are_refused() {
    for (relative, absolute) in [("inbox", "/root/inbox"), ("./a/../inbox", "/root//inbox/")] {
        let lines = format!("RemoteLocation.in = {relative}\nRemoteLocation.out = {absolute}");
        let Some(fleet) = two_directories(&lines) else { return };
        fleet.put("report", b"of in");
        fleet.put_at(&fleet.path("shore/out/report"), b"of out", 0o644, crate::fleet::at_second(1_600_000_000));
        let once = fleet.once();
        assert_eq!(once.code, Some(1), "{once:?}");
        once.must_say(&["inbox is also the destination of [Directory in]", "RemoteLocation.out", "[Vessel tern]"]);
        assert_eq!(fs::read(fleet.path("vessels/tern/home/inbox/report")).unwrap(), b"of in");
        assert!(fleet.path("shore/out/report").exists(), "what is not delivered is not retired");
        fleet.checked_unfit().must_say(&["BAD", "is also the destination of [Directory in]", "RemoteLocation.out"]);
    }
}

#[test]
fn a_relative_place_and_an_absolute_one_that_are_apart_are_both_delivered_to() {
    let Some(fleet) = two_directories("RemoteLocation.in = inbox\nRemoteLocation.out = /root/outbox") else { return };
    fleet.put("report", b"of in");
    fleet.put_at(&fleet.path("shore/out/report"), b"of out", 0o644, crate::fleet::at_second(1_600_000_000));
    let once = fleet.once();
    assert_eq!(once.code, Some(0), "{once:?}");
    assert_eq!(fs::read(fleet.path("vessels/tern/home/outbox/report")).unwrap(), b"of out");
}

#[test]
fn two_vessels_that_turn_out_to_be_one_host_do_not_replace_each_others_files() {
    let Some(fleet) = two_directories("RemoteLocation.in = /root/inbox\nIgnoreDirs = out") else { return };
    // By another name, which its key in known_hosts has too: the settings alone do not show that it is the same host.
    let known = fs::read_to_string(fleet.known_hosts()).unwrap();
    fs::write(fleet.known_hosts(), known.replace("[127.0.0.1]", "[localhost]") + &known).unwrap();
    let port = fleet.vessel("tern").port();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&format!(
        "{text}\n[Vessel twin]\nAddress = localhost\nPort = {port}\nUsername = root\nRemoteLocation.out = /root/inbox\n\
         IgnoreDirs = in\n"
    ));
    let daemon = fleet.run();
    daemon.wait_for_log(&[
        "is also the destination of [Directory in]",
        "[Vessel tern], which is the same account",
        "in [Vessel twin]",
    ]);
    fleet.put("report", b"of in");
    fleet.put_at(&fleet.path("shore/out/report"), b"of out", 0o644, crate::fleet::at_second(1_600_000_000));
    daemon.wait_for_log(&["parked", "out", "report"]);
    fleet.wait_until_retired("report");
    daemon.terminate();
    let inbox = fleet.path("vessels/tern/home/inbox");
    assert_eq!(fs::read(inbox.join("report")).unwrap(), b"of in");
    assert_eq!(names_in(&inbox), ["report"]);
    assert!(fleet.path("shore/out/report").exists());
}
