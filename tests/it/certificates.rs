//! Logging in with OpenSSH's certificates: beside a key, named, and in the agent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fleet::Fleet;
use crate::fleet::agent::Agent;
use crate::fleet::vessel::Vessel;

#[track_caller]
fn keygen(arguments: &[&str], file: &Path) {
    let out = Command::new("ssh-keygen").arg("-q").args(arguments).arg(file).output().unwrap();
    assert!(out.status.success(), "ssh-keygen {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A key below `keys/`.
fn key(fleet: &Fleet, name: &str, kind: &str) -> PathBuf {
    fs::create_dir_all(fleet.path("keys")).unwrap();
    let file = fleet.path("keys").join(name);
    keygen(&["-t", kind, "-N", "", "-f"], &file);
    file
}

/// Has the authority sign a key for a user; the certificate lies beside it then.
fn sign(ca: &Path, key: &Path, principal: &str, validity: &str) {
    let ca = ca.to_str().unwrap();
    keygen(&["-s", ca, "-I", "the shore", "-n", principal, "-V", validity], &key.with_extension("pub"));
}

/// The vessel takes what the authority signed, and no key by itself.
fn trusts(vessel: &Vessel, ca: &Path) {
    vessel.authorize("");
    vessel.configure(&format!("TrustedUserCAKeys {}.pub", ca.display()));
}

fn certificate_of(key: &Path) -> PathBuf {
    format!("{}-cert.pub", key.display()).into()
}

#[test]
fn a_certificate_beside_a_key_a_named_one_and_one_in_the_agent_open_a_vessel() {
    let plan = Fleet::new().openssh("beside").key("IdentityFile", "keys/ed25519");
    let plan = plan.openssh("rsa").key("IdentityFile", "keys/rsa");
    let plan = plan.openssh("ecdsa").key("IdentityFile", "keys/ecdsa");
    let plan = plan.openssh("named").key("IdentityFile", "keys/far").key("CertificateFile", "signed/far-cert.pub");
    let plan = plan.openssh("held").key("CertificateFile", "signed/kept-cert.pub").openssh("agent");
    let Some(fleet) = plan.start() else { return };
    let ca = key(&fleet, "ca", "ed25519");
    ["beside", "rsa", "ecdsa", "named", "held", "agent"].iter().for_each(|vessel| trusts(fleet.vessel(vessel), &ca));
    for kind in ["ed25519", "rsa", "ecdsa"] {
        sign(&ca, &key(&fleet, kind, kind), "root", "-1d:+1d");
    }
    fs::create_dir(fleet.path("signed")).unwrap();
    let move_away = |name: &str| {
        let made = key(&fleet, name, "ed25519");
        sign(&ca, &made, "root", "-1d:+1d");
        fs::rename(certificate_of(&made), fleet.path("signed").join(format!("{name}-cert.pub"))).unwrap();
        made
    };
    move_away("far");
    let kept = move_away("kept");
    // `ssh-add` adds the certificate that lies beside a key, too.
    let whole = key(&fleet, "whole", "rsa");
    sign(&ca, &whole, "root", "-1d:+1d");
    let agent = Agent::holding(fleet.path("agent"), &[kept.clone(), whole.clone()]);
    fs::remove_file(kept).unwrap();
    fs::remove_file(certificate_of(&whole)).unwrap();
    fs::remove_file(whole).unwrap();

    fleet.put("cargo", b"cargo");
    let done = fleet.call_with(&[("SSH_AUTH_SOCK", agent.socket())], &["--once"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    for vessel in ["beside", "rsa", "ecdsa", "named", "held", "agent"] {
        fleet.assert_equal(vessel, "cargo", b"cargo");
    }
}

#[test]
fn a_certificate_that_no_vessel_takes_is_named_with_the_reason() {
    let plan = ["expired", "foreign", "broken"]
        .iter()
        .fold(Fleet::new(), |plan, name| plan.openssh(name).key("IdentityFile", &format!("keys/{name}")));
    let Some(fleet) = plan.start() else { return };
    let ca = key(&fleet, "ca", "ed25519");
    for (name, principal, validity) in
        [("expired", "root", "20200101:20200102"), ("foreign", "somebody", "-1d:+1d"), ("broken", "root", "-1d:+1d")]
    {
        let made = key(&fleet, name, "ed25519");
        sign(&ca, &made, principal, validity);
        trusts(fleet.vessel(name), &ca);
    }
    fs::write(certificate_of(&fleet.path("keys/broken")), "ssh-ed25519-cert-v01@openssh.com AAAA\n").unwrap();
    let checked = fleet.call(&["check"], "");
    assert_ne!(checked.code, Some(0));
    println!("{}", checked.stdout);
    checked.must_say(&["BAD", "vessel expired", "expired-cert.pub", "has expired"]);
    checked.must_say(&["BAD", "vessel foreign", "foreign-cert.pub", "somebody"]);
    checked.must_say(&["BAD", "vessel broken", "broken-cert.pub", "can't be used"]);
}
