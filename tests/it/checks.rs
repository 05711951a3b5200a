//! `check` finds what would fail at the start, says it in words that lead to the remedy, and leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::fleet::Fleet;
use crate::fleet::namespace::Mounts;

/// All paths below a directory.
fn everything_in(at: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![at.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

#[test]
fn check_finds_what_starting_would_fail_at_on_this_host() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let plan = Fleet::new()
        .monster("Listen", &taken.local_addr().unwrap().to_string())
        .monster("Database", "missing/ledger.sqlite3")
        .monster("LogFile", "nowhere/cm.log")
        .monster("OnParked", "no-such-program-anywhere --x")
        .directory("in")
        .key("OnDelivered", "hooks/missing.sh {vessel}");
    let Some(fleet) = plan.openssh("tern").start() else { return };
    let key = fleet.path("home/.ssh/exposed");
    fs::copy(fleet.path("home/.ssh/id_ed25519"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&format!("{text}IdentityFile = {}\n", key.display()));
    let before = everything_in(&fleet.path(""));
    let location = fleet.path("shore/in");
    let checked = fleet.call_among(&Mounts::default().read_only(&location), &["check"]);
    assert_eq!(checked.code, Some(5), "{checked:?}");
    checked.must_say(&["BAD", "Database", "missing does not exist", "create it"]);
    checked.must_say(&["BAD", "LogFile", "nowhere does not exist"]);
    checked.must_say(&["BAD", "cannot listen on", "in use", "choose another Listen"]);
    checked.must_say(&["BAD", "OnParked", "no-such-program-anywhere was not found in PATH"]);
    checked.must_say(&["BAD", "directory in: OnDelivered", "hooks/missing.sh", "No such file"]);
    checked.must_say(&["BAD", "directory in", "cannot be moved", "shore/in", "Read-only"]);
    checked.must_say(&["note", "IdentityFile", "other users can read this key (mode 0644)", "chmod 600"]);
    assert_eq!(everything_in(&fleet.path("")), before, "check leaves nothing behind");
}

#[test]
fn check_leaves_nothing_on_the_vessel_whatever_it_finds_there() {
    let plan = Fleet::new().directory("in").directory("deep").openssh("tern").key("HostKeyPolicy", "accept-new");
    let Some(fleet) = plan.unknown().start() else { return };
    let vessel = fleet.vessel("tern");
    fs::write(vessel.path("file"), b"a file").unwrap();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let (new, below) = (vessel.remote("new/a/b"), vessel.remote("file/x"));
    let text = text.replace(
        &format!("TempDir = {}", vessel.remote("temp/parts")),
        &format!("TempDir = {}", vessel.remote("other/temp/parts")),
    );
    fleet.write_settings(&format!("{text}RemoteLocation.in = {new}\nRemoteLocation.deep = {below}\n"));
    let here = everything_in(&fleet.path("shore"));
    let (before, known) = (everything_in(&vessel.path("")), fs::read_to_string(fleet.known_hosts()).unwrap());
    let checked = fleet.call(&["check"], "");
    assert_eq!(checked.code, Some(5), "{checked:?}");
    checked.must_say(&["BAD", "[Directory deep]", "file", "not a directory"]);
    checked.must_say(&["ok", "[Directory in]", "is created with the first file"]);
    assert_eq!(everything_in(&vessel.path("")), before, "check leaves nothing on the vessel");
    assert_eq!(everything_in(&fleet.path("shore")), here);
    assert_eq!(fs::read_to_string(fleet.known_hosts()).unwrap(), known, "check records no host key");
}

#[test]
fn check_beside_the_running_program_finds_nothing_wrong() {
    let plan = Fleet::new().monster("Listen", "127.0.0.1:0").openssh("tern");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    let address = crate::fleet::web::page_of(&daemon);
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("127.0.0.1:0", &address));
    let checked = fleet.call(&["check"], "");
    assert_eq!(checked.code, Some(0), "{checked:?}");
    checked.must_say(&["note", "contentmonster is running"]);
    daemon.terminate();
    let before = everything_in(&fleet.path(""));
    assert_eq!(fleet.call(&["check"], "").code, Some(0));
    assert_eq!(everything_in(&fleet.path("")), before, "an existing ledger is only read");
}

#[test]
fn two_vessels_with_one_account_and_one_temp_dir_are_named() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let twin = text.split("[Vessel tern]\n").nth(1).unwrap();
    let elsewhere = fleet.vessel("tern").remote("elsewhere");
    fleet.write_settings(&format!("{text}[Vessel twin]\n{twin}RemoteLocation.in = {elsewhere}\n"));
    let checked = fleet.call(&["check"], "");
    checked.must_say(&["[Vessel twin] TempDir", "is also the TempDir of [Vessel tern]", "write `TempDir ="]);
}

/// Answers every connection with these bytes.
fn other_service(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut heard = [0; 64];
            let _ = stream.read(&mut heard);
            let _ = stream.write_all(answer);
        }
    });
    port
}

#[test]
fn what_answers_instead_of_an_ssh_server_is_named_with_the_setting_to_look_at() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let port =
        |other: u16| text.replace(&format!("Port = {}", fleet.vessel("tern").port()), &format!("Port = {other}"));
    fleet.write_settings(&port(other_service(b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n")));
    let checked = fleet.checked_unfit();
    checked.must_say(&[
        "sent `HTTP/1.1 400 Bad Request` instead of an SSH version",
        "not an SSH server",
        "Port of [Vessel tern]",
    ]);
    fleet.write_settings(&port(other_service(b"Exceeded MaxStartups\r\n")));
    let checked = fleet.checked_unfit();
    checked.must_say(&["Exceeded MaxStartups"]);
    assert!(!checked.says(&["not an SSH server"]), "{checked:?}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fleet.write_settings(&port(free));
    let checked = fleet.checked_unfit();
    checked.must_say(&["Connection refused", "check that sshd runs there", "Port of [Vessel tern]"]);
    fleet.write_settings(&text.replace("Address = 127.0.0.1", "Address = 127.0.0.1:/data"));
    let refused = fleet.call(&["check"], "");
    refused.must_say(&["Address", "names a path after the host", "RemoteLocation"]);
}

#[test]
fn a_known_hosts_that_cannot_be_read_is_named_and_trust_does_not_write_to_it() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    fs::remove_file(fleet.known_hosts()).unwrap();
    // Root may read any file, but nobody a directory.
    fs::create_dir(fleet.known_hosts()).unwrap();
    let checked = fleet.checked_unfit();
    checked.must_say(&["known_hosts can't be read", "give", "permission to read"]);
    assert!(!checked.says(&["unknown host key"]) && !checked.says(&["trust tern"]), "{checked:?}");
    let trusted = fleet.call(&["trust", "tern", "--yes"], "");
    assert_eq!(trusted.code, Some(5), "{trusted:?}");
    trusted.must_say(&["known_hosts can't be read"]);
}

#[test]
fn a_single_run_goes_on_without_its_page_and_says_what_it_did() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let plan = Fleet::new().monster("Listen", &taken.local_addr().unwrap().to_string());
    let plan = plan.directory("in").key("Mode", "mirror").key("Delete", "yes").key("Recursive", "yes");
    let Some(fleet) = plan.openssh("tern").start() else { return };
    fs::create_dir(fleet.path("shore/in/empty")).unwrap();
    ["a", "b"].iter().for_each(|name| fleet.put(name, b"12345"));
    let first = fleet.once();
    assert_eq!(first.code, Some(0), "{first:?}");
    first.must_say(&["cannot listen on", "this run has no status page"]);
    first.must_say(&["tern: 2 files delivered (10 B), 1 path created", "0 waiting"]);
    fs::remove_file(fleet.source("a")).unwrap();
    fleet.put("c", b"1");
    let second = fleet.once();
    second.must_say(&["tern: 1 file delivered (1 B), 1 path deleted", "0 waiting"]);
    fleet.once().must_say(&["tern: 0 files delivered (0 B); 0 waiting"]);
}
