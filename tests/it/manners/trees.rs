//! SFTP and the shell may show one tree under different paths, or different trees.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use contentmonster::embedded_vessel::{Faults, InjectedFault, Quirks, Request};

use crate::fleet::embedded::Manners;
use crate::fleet::{Fleet, at_second};

/// How the last file was verified, by its receipt.
fn verified(fleet: &Fleet) -> String {
    let receipts = fleet.call(&["receipts", "--json"], "").stdout;
    let last = receipts.lines().last().expect("there is a receipt");
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    last["verified"].as_str().unwrap().to_owned()
}

#[test]
fn where_sftp_begins_in_another_directory_the_shell_is_used_all_the_same() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let server = "/usr/lib/openssh/sftp-server";
    fleet.vessel("open").replace_in_configuration(server, &format!("{server} -d /run"));
    // The two directories are told apart by their times, which must not be of one second.
    let home = File::open(fleet.path("vessels/open/home")).unwrap();
    home.set_modified(at_second(1_600_000_000)).unwrap();
    fleet.put("cargo", b"cargo");
    let run = fleet.once();
    assert_eq!(run.code, Some(0), "{run:?}");
    fleet.assert_equal("open", "cargo", b"cargo");
    assert_eq!(verified(&fleet), "hashed on the vessel");
    let checked = fleet.call(&["check"], "");
    assert!(checked.says(&["note", "the shell finds SFTP's files", "/run"]), "{checked:?}");
}

#[test]
fn where_sftp_shows_a_directory_as_its_root_the_shell_is_told_other_paths() {
    let faults = Arc::new(Confused(AtomicBool::new(false)));
    let manners = Manners { faults, quirks: Quirks::default(), shell: true, rooted: true };
    let Some(fleet) = Fleet::new().embedded("vessel", manners).start() else { return };
    fleet.put("cargo", b"cargo");
    let run = fleet.once();
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(verified(&fleet), "hashed on the vessel");
}

/// While it is set, the shell finds other directories than SFTP, and no file.
#[derive(Debug)]
struct Confused(AtomicBool);

impl Faults for Confused {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        const BLIND: &str =
            "{ echo 'stat() { echo landmark 1 2 3; echo landmark 4 5 6; }; cat() { :; }'; exec cat; } | sh";
        match request {
            Request::Command if self.0.load(Ordering::Relaxed) => {
                InjectedFault::Change(Bytes::from_static(BLIND.as_bytes()))
            }
            _ => InjectedFault::Serve,
        }
    }
}

#[test]
fn check_takes_back_that_a_shell_is_of_no_use() {
    let faults = Arc::new(Confused(AtomicBool::new(true)));
    let manners = Manners { faults: faults.clone(), quirks: Quirks::default(), shell: true, rooted: false };
    let Some(fleet) = Fleet::new().embedded("vessel", manners).start() else { return };
    let deliver = |name: &str| {
        fleet.put(name, name.as_bytes());
        let run = fleet.once();
        assert_eq!(run.code, Some(0), "{run:?}");
        verified(&fleet)
    };
    assert_eq!(deliver("first"), "read back");
    let checked = fleet.call(&["check"], "");
    assert!(checked.says(&["the shell is not used", "does not find the files"]), "{checked:?}");
    faults.0.store(false, Ordering::Relaxed);
    assert_eq!(deliver("second"), "read back", "it is remembered for a day");
    let checked = fleet.call(&["check"], "");
    assert!(checked.says(&["did not work earlier", "tries the shell again"]), "{checked:?}");
    assert_eq!(deliver("third"), "hashed on the vessel");
}
