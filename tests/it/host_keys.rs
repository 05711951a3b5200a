//! Whom we talk to: every way a `known_hosts` can name a vessel, and every way it can warn of one.
//!
//! The file of the whole machine has a fixed place and is left to the unit tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::fleet::Fleet;
use crate::fleet::vessel::Vessel;

/// Type and key of a vessel's host key, as they stand in a line.
fn key_of(vessel: &Vessel) -> String {
    let line = vessel.known_hosts_line();
    line.split_once(' ').expect("a name and a key").1.trim().to_owned()
}

#[track_caller]
fn keygen(arguments: &[&str], file: &Path) {
    let out = Command::new("ssh-keygen").arg("-q").args(arguments).arg(file).output().unwrap();
    assert!(out.status.success(), "ssh-keygen {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Delivers a file to all vessels; the fleet's own `known_hosts` has been written anew.
#[track_caller]
fn delivers(fleet: &Fleet, vessels: &[&str]) {
    fleet.put("cargo", b"cargo");
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    vessels.iter().for_each(|vessel| fleet.assert_equal(vessel, "cargo", b"cargo"));
}

#[test]
fn a_host_is_known_by_its_port_by_a_wildcard_and_by_its_plain_name() {
    let Some(fleet) = Fleet::new().openssh("port").openssh("wild").openssh("plain").start() else { return };
    let at = |name: &str| fleet.vessel(name);
    let lines = [
        at("port").known_hosts_line(),
        format!("elsewhere,[127.0.*]:{} {}\n", at("wild").port(), key_of(at("wild"))),
        format!("127.0.0.1 {}\n", key_of(at("plain"))),
    ];
    fs::write(fleet.known_hosts(), lines.concat()).unwrap();
    delivers(&fleet, &["port", "wild", "plain"]);
}

#[test]
fn a_host_is_known_by_a_hashed_name() {
    let Some(fleet) = Fleet::new().openssh("open").openssh("other").start() else { return };
    keygen(&["-H", "-f"], &fleet.known_hosts());
    let hashed = fs::read_to_string(fleet.known_hosts()).unwrap();
    assert!(hashed.starts_with("|1|") && !hashed.contains("127.0.0.1"), "{hashed}");
    delivers(&fleet, &["open", "other"]);
}

#[test]
fn a_hashed_name_with_another_key_is_a_changed_key() {
    let Some(fleet) = Fleet::new().openssh("open").openssh("other").start() else { return };
    let (open, other) = (fleet.vessel("open"), fleet.vessel("other"));
    let line = format!("[127.0.0.1]:{} {}\n", open.port(), key_of(other));
    fs::write(fleet.known_hosts(), format!("# a comment\n{line}{}", other.known_hosts_line())).unwrap();
    keygen(&["-H", "-f"], &fleet.known_hosts());
    fleet.checked_unfit().must_say(&["BAD", "vessel open", "has another", "known_hosts:2"]);
}

#[test]
fn a_revoked_key_is_refused_even_where_a_line_knows_it() {
    let Some(fleet) = Fleet::new().openssh("good").openssh("bad").start() else { return };
    let known = fs::read_to_string(fleet.known_hosts()).unwrap();
    let revoked = format!("@revoked * {}\n", key_of(fleet.vessel("bad")));
    fs::write(fleet.known_hosts(), format!("{known}{revoked}")).unwrap();
    let checked = fleet.checked_unfit();
    checked.must_say(&["BAD", "vessel bad", "known_hosts:3", "revoked"]);
    checked.must_say(&["ok", "vessel good", "connected"]);
}

/// Signs a vessel's host key and has the vessel show the certificate.
fn certify(vessel: &Vessel, ca: &Path, principal: &str, validity: &str) {
    let ca = ca.to_str().unwrap();
    keygen(&["-s", ca, "-I", "vessel", "-h", "-n", principal, "-V", validity], &vessel.etc("host_key.pub"));
    vessel.configure(&format!("HostCertificate {}", vessel.etc("host_key-cert.pub").display()));
}

#[test]
fn a_host_certificate_is_taken_while_it_is_valid_and_for_this_host() {
    let plan = Fleet::new().openssh("good").openssh("expired").openssh("foreign").openssh("stranger");
    let Some(fleet) = plan.start() else { return };
    let (ca, other_ca) = (fleet.path("ca"), fleet.path("other_ca"));
    for ca in [&ca, &other_ca] {
        keygen(&["-t", "ed25519", "-N", "", "-f"], ca);
    }
    certify(fleet.vessel("good"), &ca, "127.0.0.1", "-1d:+1d");
    certify(fleet.vessel("expired"), &ca, "127.0.0.1", "20200101:20200102");
    certify(fleet.vessel("foreign"), &ca, "elsewhere.example", "-1d:+1d");
    certify(fleet.vessel("stranger"), &other_ca, "127.0.0.1", "-1d:+1d");
    let authority = fs::read_to_string(ca.with_extension("pub")).unwrap();
    fs::write(fleet.known_hosts(), format!("@cert-authority 127.0.0.* {authority}")).unwrap();
    let checked = fleet.checked_unfit();
    checked.must_say(&["ok", "vessel good", "connected"]);
    checked.must_say(&["BAD", "vessel expired", "certificate", "expired"]);
    checked.must_say(&["BAD", "vessel foreign", "certificate", "elsewhere.example"]);
    checked.must_say(&["BAD", "vessel stranger"]);
    let connected = checked.stdout.matches("connected").count();
    assert_eq!(connected, 1, "only the good one: {}", checked.stdout);
}

#[test]
fn a_host_with_several_keys_is_known_by_any_of_them() {
    let Some(fleet) = Fleet::new().openssh("rsa").openssh("ecdsa").openssh("pinned").start() else { return };
    let mut known = String::new();
    for kind in ["rsa", "ecdsa"] {
        let vessel = fleet.vessel(kind);
        let key = vessel.etc("second_key");
        keygen(&["-t", kind, "-N", "", "-f"], &key);
        vessel.configure(&format!("HostKey {}", key.display()));
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        known.push_str(&format!("[127.0.0.1]:{} {public}", vessel.port()));
    }
    fs::write(fleet.known_hosts(), known + &fleet.vessel("pinned").known_hosts_line()).unwrap();
    delivers(&fleet, &["rsa", "ecdsa", "pinned"]);
}
