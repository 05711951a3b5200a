//! The ledger in PostgreSQL: the daemon delivers, waits while the database is away, and leaves it to no two programs.
//!
//! `CONTENTMONSTER_LEDGER=postgresql cargo test --test it faults:: delivery:: retire::` runs other tests with a ledger in
//! PostgreSQL, too.

use std::time::Duration;

use rustix::process::Signal;

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::plan::FleetPlan;
use crate::fleet::postgres::Place;
use crate::fleet::wait::{never_within, wait_until};

/// A fleet whose ledger is in a database of a server of its own.
fn fleet(plan: FleetPlan, place: &Place) -> Option<Fleet> {
    plan.monster("Database", &place.url()).monster("LeaseTime", "3s").start()
}

#[test]
fn the_daemon_delivers_retires_and_answers_commands() {
    let place = Place::alone();
    let Some(fleet) = fleet(Fleet::new().openssh("tern").dropbear("gull"), &place) else { return };
    let daemon = fleet.run();
    let large = content(1, 25 * MIB + 1);
    fleet.put("large", &large);
    fleet.put("caf\u{e9} 'x'", b"small");
    for name in ["large", "caf\u{e9} 'x'"] {
        fleet.wait_until_retired(name);
    }
    for vessel in ["tern", "gull"] {
        fleet.assert_equal(vessel, "large", &large);
        fleet.assert_equal(vessel, "caf\u{e9} 'x'", b"small");
    }
    for (arguments, words) in [
        (&["status"][..], "contentmonster"),
        (&["receipts"][..], "large"),
        (&["why", "in/large"][..], "tern"),
        (&["check"][..], "postgresql://cm@localhost"),
        (&["pause", "tern"][..], "tern"),
    ] {
        let ended = fleet.call(arguments, "");
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        assert!(ended.stdout.contains(words), "{arguments:?}: {ended:?}");
    }
    // A second program with the same settings, on this host, and then one that the first can't know of.
    fleet.once().must_say(&["in use", "stop the other contentmonster"]);
    daemon.terminate();
    assert_eq!(place.psql("SELECT count(*) FROM contentmonster.lease WHERE holder IS NOT NULL"), "0");
    // Commands reach the ledger without the daemon, and a dry run leaves it as it is.
    fleet.put("next", b"next");
    for (arguments, words) in [
        (&["status"][..], "not running"),
        (&["resume", "tern"][..], "tern"),
        (&["--simulate"][..], "send to tern"),
        (&["queue"][..], ""),
    ] {
        let ended = fleet.call(arguments, "");
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        assert!(ended.stdout.contains(words), "{arguments:?}: {ended:?}");
    }
    assert_eq!(place.psql("SELECT count(*) FROM contentmonster.version"), "2");
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    fleet.assert_equal("tern", "next", b"next");
}

#[test]
fn a_ledger_is_copied_to_postgresql_and_back() {
    let place = Place::alone();
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    if std::env::var_os("CONTENTMONSTER_LEDGER").is_some() {
        return;
    }
    fleet.put("one", b"one");
    assert_eq!(fleet.once().code, Some(0));
    let (file, back) = (fleet.path("database.sqlite3"), fleet.path("back.sqlite3"));
    let (file, back, url) = (file.to_str().unwrap(), back.to_str().unwrap(), place.url());
    let there = fleet.call(&["ledger", "copy", file, &url], "");
    assert_eq!(there.code, Some(0), "{there:?}");
    assert!(there.stdout.contains("version: 1 row,"), "{there:?}");
    let again = fleet.call(&["ledger", "copy", file, &url], "");
    assert_eq!(again.code, Some(4), "{again:?}");
    again.must_say(&["has records"]);
    let home = fleet.call(&["ledger", "copy", &url, back], "");
    assert_eq!(home.code, Some(0), "{home:?}");
    let digests =
        |text: &str| text.lines().filter(|line| line.contains("SHA-256")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(digests(&home.stdout), digests(&there.stdout));
    let text = std::fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("[MONSTER]\n", &format!("[MONSTER]\nDatabase = {url}\n")));
    // Nothing that was delivered is sent again.
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(place.psql("SELECT count(*) FROM contentmonster.version"), "1");
    assert!(fleet.call(&["receipts"][..], "").stdout.contains("one"));
}

#[test]
fn nothing_ends_while_the_database_is_away_and_all_goes_on_when_it_is_back() {
    let place = Place::alone();
    let Some(fleet) = fleet(Fleet::new().openssh("tern").monster("ChunkSize", "1 MiB"), &place) else { return };
    let mut daemon = fleet.run();
    fleet.put("before", b"before");
    fleet.wait_until_retired("before");
    for round in 0..3_u64 {
        let name = |at: u64| format!("file {round} {at}");
        for at in 0..20 {
            fleet.put(name(at), &content(round * 100 + at, 100_000));
        }
        let large = content(round, 8 * MIB);
        fleet.put(name(20), &large);
        place.server.kill9();
        daemon.wait_for_log(&["is unavailable", "nothing is published"]);
        wait_until("the status to say so", || fleet.call(&["status"], "").stdout.contains("database is unavailable"));
        let checked = fleet.call(&["status", "--check"], "");
        assert_eq!(checked.code, Some(2), "{checked:?}");
        assert!(checked.stdout.contains("database is unavailable"), "{checked:?}");
        // The lease has run out: nothing new is published, and nothing is retired.
        std::thread::sleep(Duration::from_secs(4));
        let (held, retired) = (fleet.vessel("tern").path("in"), fleet.path("shore/in/processed"));
        let counts = || (crate::fleet::names_in(&held).len(), crate::fleet::names_in(&retired).len());
        let before = counts();
        fleet.put(format!("late {round}"), b"late");
        never_within(Duration::from_secs(3), "a file is published or retired", || counts() != before);
        assert!(daemon.runs(), "nothing ends");
        place.server.run();
        for at in 0..20 {
            fleet.wait_until_retired(name(at));
            fleet.assert_equal("tern", name(at), &content(round * 100 + at, 100_000));
        }
        fleet.wait_until_retired(name(20));
        fleet.assert_equal("tern", name(20), &large);
        fleet.wait_until_retired(format!("late {round}"));
    }
    daemon.wait_for_log(&["is available again"]);
    daemon.terminate();
    fleet.assert_tidy("tern");
}

#[test]
fn a_start_waits_until_the_database_is_there_and_a_single_run_does_not() {
    let place = Place::alone();
    let Some(fleet) = fleet(Fleet::new().openssh("tern"), &place) else { return };
    place.server.kill9();
    fleet.put("file", b"file");
    let waiting = ["accepts connections from this host", "no file is delivered until the database is available"];
    let mut stopped = fleet.run();
    stopped.wait_for_log(&waiting);
    assert!(stopped.runs());
    stopped.terminate();
    let single = fleet.once();
    assert_eq!(single.code, Some(4), "{single:?}");
    single.must_say(&["accepts connections from this host"]);
    let daemon = fleet.run();
    daemon.wait_for_log(&waiting);
    place.server.run();
    fleet.wait_until_retired("file");
    fleet.assert_equal("tern", "file", b"file");
    daemon.terminate();
}

#[test]
fn a_program_that_was_stopped_for_longer_than_its_lease_leaves_the_ledger_to_the_next_one() {
    let place = Place::alone();
    let Some(fleet) = fleet(Fleet::new().openssh("tern"), &place) else { return };
    let mut first = fleet.run();
    fleet.put("one", b"one");
    fleet.wait_until_retired("one");
    first.send(Signal::STOP);
    // Another host has its own lock file.
    let text = std::fs::read_to_string(fleet.settings()).unwrap();
    let other = fleet.path("other.sock");
    fleet.write_settings(&text.replace("[MONSTER]\n", &format!("[MONSTER]\nSocket = {}\n", other.display())));
    fleet.put("two", b"two");
    let second = fleet.run();
    fleet.wait_until_retired("two");
    first.send(Signal::CONT);
    wait_until("the first program to end", || !first.runs());
    let ended = first.ended();
    assert_eq!(ended.code, Some(4), "{ended:?}");
    ended.must_say(&["has taken over the ledger"]);
    fleet.put("three", b"three");
    fleet.wait_until_retired("three");
    // A program that is killed is followed at once by the next one on its host.
    second.kill9();
    fleet.put("four", b"four");
    let third = fleet.run();
    fleet.wait_until_retired("four");
    third.terminate();
    for name in ["one", "two", "three", "four"] {
        fleet.assert_equal("tern", name, name.as_bytes());
    }
}
