//! The ledger on its own: a copy that is whole, a file that a stop leaves whole, and one that is damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::fleet::Fleet;

fn ledger(fleet: &Fleet) -> PathBuf {
    fleet.path("database.sqlite3")
}

/// A copy takes the ledger's place, with nothing beside it.
fn restore(fleet: &Fleet, copy: &Path) {
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(fleet.path(format!("database.sqlite3{suffix}")));
    }
    fs::copy(copy, ledger(fleet)).unwrap();
}

#[track_caller]
fn receipts(fleet: &Fleet) -> usize {
    let ended = fleet.call(&["receipts", "--json"], "");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stdout.lines().count()
}

#[test]
fn a_backup_made_while_it_runs_is_whole_and_restored_it_goes_on() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    let copy = fleet.path("copy.sqlite3");
    let daemon = fleet.run();
    for name in ["one", "two", "three"] {
        fleet.put(name, name.as_bytes());
        fleet.wait_until_retired(name);
    }
    let made = fleet.call(&["backup", copy.to_str().unwrap()], "");
    assert_eq!(made.code, Some(0), "{made:?}");
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    let bytes = fs::read(&copy).unwrap();
    let again = fleet.call(&["backup", copy.to_str().unwrap()], "");
    assert_eq!(again.code, Some(4), "{again:?}");
    again.must_say(&["copy.sqlite3", "already"]);
    assert!(fs::read(&copy).unwrap() == bytes, "a backup is never overwritten");
    fleet.put("four", b"four");
    fleet.wait_until_retired("four");
    daemon.terminate();

    restore(&fleet, &copy);
    assert_eq!(receipts(&fleet), 3);
    fleet.put("five", b"five");
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(receipts(&fleet), 4);
    fleet.assert_equal("tern", "five", b"five");
    let left: Vec<_> = crate::fleet::names_in(&fleet.path(""));
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".contentmonster")), "{left:?}");
}

#[test]
fn after_a_stop_the_ledgers_file_alone_is_the_whole_ledger() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    let daemon = fleet.run();
    fleet.put("cargo", b"cargo");
    fleet.wait_until_retired("cargo");
    daemon.terminate();
    let wal = fs::metadata(fleet.path("database.sqlite3-wal")).map_or(0, |meta| meta.len());
    assert_eq!(wal, 0, "nothing is left beside the ledger's file");
    let copy = fleet.path("copy.sqlite3");
    fs::copy(ledger(&fleet), &copy).unwrap();
    fs::remove_file(ledger(&fleet)).unwrap();
    restore(&fleet, &copy);
    assert_eq!(receipts(&fleet), 1);
    // And of one that is stopped, a backup can be made too.
    let made = fleet.call(&["backup", fleet.path("another").to_str().unwrap()], "");
    assert_eq!(made.code, Some(0), "{made:?}");
}

#[test]
fn a_ledger_that_is_garbage_is_called_corrupt_and_how_to_start_anew_is_said() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    fleet.put("cargo", b"cargo");
    assert_eq!(fleet.once().code, Some(0));
    let sound = fs::read(ledger(&fleet)).unwrap();
    let mut damaged = sound.clone();
    damaged[100..].fill(0xa5);
    for garbage in [b"this is no database, whatever it is called ".repeat(100), damaged] {
        fs::write(ledger(&fleet), &garbage).unwrap();
        let backup = fleet.path("copy").display().to_string();
        for arguments in [&["status"][..], &["why", "in/cargo"], &["receipts"], &["backup", &backup], &["--once"], &[]]
        {
            let ended = fleet.call(arguments, "");
            assert_eq!(ended.code, Some(4), "{arguments:?}: {ended:?}");
            ended.must_say(&["corrupt", "database.sqlite3", "and start again"]);
            assert!(!ended.says(&["there is no ledger"]), "{ended:?}");
        }
        assert!(!fleet.path("copy").exists(), "a backup of it is none");
    }
    assert!(fs::read(ledger(&fleet)).unwrap().contains(&0xa5), "it is left as it is");
}

#[test]
fn where_there_is_no_ledger_there_is_nothing_to_copy() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    let ended = fleet.call(&["backup", fleet.path("copy").to_str().unwrap()], "");
    assert_eq!(ended.code, Some(4), "{ended:?}");
    ended.must_say(&["there is no ledger yet"]);
    assert!(!fleet.path("copy").exists() && !ledger(&fleet).exists());
}
