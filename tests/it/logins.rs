//! Getting in, in every way that `ssh` knows, and what is said where there is none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fleet::Fleet;
use crate::fleet::agent::Agent;
use crate::fleet::daemon::Ended;
use crate::fleet::plan::FleetPlan;
use crate::fleet::vessel::{PASSWORD, Vessel};

/// What opens the tests' encrypted keys.
const PASSPHRASE: &str = "open sesame 7";

/// Makes a key `keys/<name>` beside the settings; the arguments are those of `ssh-keygen`.
#[track_caller]
fn make_key(fleet: &Fleet, name: &str, arguments: &[&str]) -> PathBuf {
    let key = fleet.path("keys").join(name);
    fs::create_dir_all(fleet.path("keys")).unwrap();
    let phrase = if arguments.contains(&"-N") { &[][..] } else { &["-N", ""] };
    let out = Command::new("ssh-keygen").arg("-q").args(arguments).args(phrase).arg("-f").arg(&key).output().unwrap();
    assert!(out.status.success(), "ssh-keygen {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    key
}

/// A key that only the passphrase opens.
fn make_encrypted_key(fleet: &Fleet, name: &str) -> PathBuf {
    make_key(fleet, name, &["-t", "ed25519", "-N", PASSPHRASE])
}

fn public(key: &Path) -> String {
    fs::read_to_string(format!("{}.pub", key.display())).unwrap()
}

/// A key that this vessel alone takes.
fn key_for(fleet: &Fleet, vessel: &str, arguments: &[&str]) -> PathBuf {
    let key = make_key(fleet, vessel, arguments);
    fleet.vessel(vessel).authorize(&public(&key));
    key
}

/// The shore's user has no keys in `~/.ssh`.
fn without_default_keys(fleet: &Fleet) {
    fs::remove_file(fleet.path("home/.ssh/id_ed25519")).unwrap();
}

/// Fails the test unless a file gets to these vessels.
#[track_caller]
fn delivers(fleet: &Fleet, environment: &[(&str, &Path)], vessels: &[&str]) {
    fleet.put("cargo", b"cargo");
    let done = fleet.call_with(environment, &["--once"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    vessels.iter().for_each(|vessel| fleet.assert_equal(vessel, "cargo", b"cargo"));
}

#[track_caller]
fn checked_unfit(fleet: &Fleet, environment: &[(&str, &Path)]) -> Ended {
    let checked = fleet.call_with(environment, &["check"]);
    assert_ne!(checked.code, Some(0), "{checked:?}");
    println!("{}", checked.stdout);
    checked
}

/// A vessel that takes nothing but what the lines say.
#[track_caller]
fn strict(plan: FleetPlan, lines: &str) -> Option<Fleet> {
    let fleet = plan.start()?;
    fleet.vessel("open").configure(lines);
    Some(fleet)
}

fn private_file(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

// ---- keys in files ----

// The library does not read the one P-256 key in 256 that happens to begin with a zero byte: ECDSA keys in OpenSSH's
// format have 384 bits or more here.
#[test]
fn keys_of_all_kinds_and_formats_open_a_vessel() {
    let kinds: [(&str, &[&str]); 6] = [
        ("rsa", &["-t", "rsa", "-b", "2048"]),
        ("ecdsa", &["-t", "ecdsa", "-b", "384"]),
        ("ecdsa521", &["-t", "ecdsa", "-b", "521"]),
        ("rsa-pem", &["-t", "rsa", "-b", "2048", "-m", "PEM"]),
        ("ecdsa-pem", &["-t", "ecdsa", "-m", "PEM"]),
        ("rsa-pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8"]),
    ];
    let plan = |plan: FleetPlan, name: &str| plan.openssh(name).key("IdentityFile", &format!("keys/{name}"));
    let Some(fleet) = kinds.iter().fold(Fleet::new(), |so_far, (name, _)| plan(so_far, name)).start() else { return };
    for (name, arguments) in kinds {
        key_for(&fleet, name, arguments);
    }
    let pem = fs::read_to_string(fleet.path("keys/rsa-pem")).unwrap();
    assert!(pem.starts_with("-----BEGIN RSA PRIVATE KEY"), "the old format: {pem}");
    delivers(&fleet, &[], &kinds.map(|(name, _)| name));
}

#[test]
fn the_usual_keys_of_the_home_directory_are_tried_one_by_one() {
    let Some(fleet) = Fleet::new().openssh("ecdsa").openssh("ed25519").start() else { return };
    let wrong = make_key(&fleet, "wrong", &["-t", "rsa"]);
    let right = key_for(&fleet, "ecdsa", &["-t", "ecdsa", "-b", "384"]);
    fs::rename(wrong, fleet.path("home/.ssh/id_rsa")).unwrap();
    fs::rename(right, fleet.path("home/.ssh/id_ecdsa")).unwrap();
    delivers(&fleet, &[], &["ecdsa", "ed25519"]);
}

#[test]
fn an_encrypted_key_is_opened_with_a_passphrase_from_three_places() {
    let vessel = |plan: FleetPlan, name: &str| plan.openssh(name).key("IdentityFile", "keys/locked");
    let plan = vessel(Fleet::new(), "inline").key("Passphrase", PASSPHRASE);
    let plan = vessel(plan, "file").key("PassphraseFile", "phrase");
    let Some(fleet) = vessel(plan, "credential").start() else { return };
    let key = make_encrypted_key(&fleet, "locked");
    ["inline", "file", "credential"].iter().for_each(|name| fleet.vessel(name).authorize(&public(&key)));
    private_file(&fleet.path("phrase"), &format!("{PASSPHRASE}\n"));
    fs::create_dir(fleet.path("credentials")).unwrap();
    private_file(&fleet.path("credentials/credential.passphrase"), PASSPHRASE);
    let credentials = fleet.path("credentials");
    delivers(&fleet, &[("CREDENTIALS_DIRECTORY", &credentials)], &["inline", "file", "credential"]);
}

#[test]
fn encrypted_keys_of_the_older_formats_are_opened_too() {
    let formats = [("pem", "PEM", "DEK-Info"), ("pkcs8", "PKCS8", "BEGIN ENCRYPTED")];
    let plan = formats.iter().fold(Fleet::new(), |plan, (name, ..)| {
        plan.openssh(name).key("IdentityFile", &format!("keys/{name}")).key("Passphrase", PASSPHRASE)
    });
    let Some(fleet) = plan.start() else { return };
    for (name, format, mark) in formats {
        let key = key_for(&fleet, name, &["-t", "rsa", "-b", "2048", "-m", format, "-N", PASSPHRASE]);
        let text = fs::read_to_string(key).unwrap();
        assert!(text.contains(mark), "{text}");
    }
    delivers(&fleet, &[], &formats.map(|(name, ..)| name));
}

#[test]
fn a_passphrase_that_no_key_needs_does_no_harm() {
    let formats: [(&str, &[&str]); 3] = [
        ("own", &["-t", "ed25519"]),
        ("pem", &["-t", "ecdsa", "-m", "PEM"]),
        ("pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8"]),
    ];
    let plan = formats.iter().fold(Fleet::new(), |plan, (name, _)| {
        plan.openssh(name).key("IdentityFile", &format!("keys/{name}")).key("Passphrase", PASSPHRASE)
    });
    let Some(fleet) = plan.start() else { return };
    for (name, arguments) in formats {
        key_for(&fleet, name, arguments);
    }
    delivers(&fleet, &[], &formats.map(|(name, _)| name));
}

#[test]
fn a_wrong_and_a_missing_passphrase_are_named_with_the_file_and_never_shown() {
    let vessel = |plan: FleetPlan, name: &str| plan.openssh(name).key("IdentityFile", &format!("keys/{name}"));
    let plan = vessel(Fleet::new(), "wrong").key("Passphrase", "hunter2hunter2");
    let plan = vessel(plan, "wrong-pem").key("Passphrase", "hunter2hunter2");
    let plan = vessel(plan, "wrong-pkcs8").key("Passphrase", "hunter2hunter2");
    let plan = vessel(vessel(plan, "missing"), "missing-pem");
    let Some(fleet) = vessel(plan, "missing-pkcs8").start() else { return };
    let formats: [(&str, &[&str]); 3] = [("", &[]), ("-pem", &["-m", "PEM"]), ("-pkcs8", &["-m", "PKCS8"])];
    let names = formats.map(|(suffix, format)| {
        ["wrong", "missing"].map(|name| {
            let name = format!("{name}{suffix}");
            let kind = if format.is_empty() { "ed25519" } else { "rsa" };
            key_for(&fleet, &name, &[&["-t", kind, "-N", PASSPHRASE], format].concat());
            name
        })
    });
    let checked = checked_unfit(&fleet, &[]);
    for name in names.as_flattened() {
        let file = fleet.path("keys").join(name).display().to_string();
        checked.must_say(&["BAD", &format!("vessel {name}: "), &format!("{file}: "), "Passphrase"]);
        let cure = format!("Passphrase of [Vessel {name}]");
        checked.must_say(&["BAD", &format!("vessel {name}: "), &cure]);
    }
    fleet.put("cargo", b"cargo");
    let daemon = fleet.run();
    daemon.wait_for_log(&["wrong", "keys/wrong: ", "Passphrase"]);
    let shown = [PASSPHRASE, "hunter2"].iter().any(|secret| daemon.logged(&[secret]).is_some());
    assert!(!shown, "a secret in the log");
    daemon.terminate();
    assert!(!checked.says(&["hunter2"]) && !checked.says(&[PASSPHRASE]), "a secret on the screen");
}

// ---- the agent ----

#[test]
fn a_key_that_only_the_agent_holds_opens_a_vessel() {
    let Some(fleet) = Fleet::new().openssh("ed25519").openssh("rsa").openssh("ecdsa").start() else { return };
    without_default_keys(&fleet);
    let keys = ["ed25519", "rsa", "ecdsa"].map(|kind| key_for(&fleet, kind, &["-t", kind]));
    let agent = Agent::holding(fleet.path("agent"), &keys);
    fs::remove_dir_all(fleet.path("keys")).unwrap();
    delivers(&fleet, &[("SSH_AUTH_SOCK", agent.socket())], &["ed25519", "rsa", "ecdsa"]);
}

/// An agent with more keys than a server's `MaxAuthTries` (6) allows, none of them right but the last.
fn crowded_agent(fleet: &Fleet, right: &[PathBuf]) -> Agent {
    let mut keys: Vec<_> = (0..8).map(|n| make_key(fleet, &format!("other{n}"), &["-t", "ed25519"])).collect();
    keys.extend_from_slice(right);
    Agent::holding(fleet.path("agent"), &keys)
}

#[test]
fn a_named_key_comes_before_a_crowd_of_wrong_ones_in_the_agent() {
    let plan = Fleet::new().openssh("file").key("IdentityFile", "keys/file");
    // A locked key that the agent has opened: its public half tells which of the agent's keys it is.
    let plan = plan.openssh("locked").key("IdentityFile", "keys/locked");
    let Some(fleet) = plan.openssh("bare").key("IdentityFile", "keys/bare").start() else { return };
    key_for(&fleet, "file", &["-t", "ed25519"]);
    let (locked, bare) = (key_for(&fleet, "locked", &["-t", "ed25519"]), key_for(&fleet, "bare", &["-t", "ed25519"]));
    let agent = crowded_agent(&fleet, &[locked.clone(), bare.clone()]);
    for key in [&locked, &bare] {
        let mut lock = Command::new("ssh-keygen");
        assert!(lock.args(["-q", "-p", "-P", "", "-N", PASSPHRASE, "-f"]).arg(key).output().unwrap().status.success());
    }
    // Without the `.pub` beside it, the public half stands in the locked file itself.
    fs::remove_file(bare.with_extension("pub")).unwrap();
    delivers(&fleet, &[("SSH_AUTH_SOCK", agent.socket())], &["file", "locked", "bare"]);
}

#[test]
fn a_vessel_that_has_had_enough_of_the_agents_keys_is_told_apart() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    let agent = crowded_agent(&fleet, &[]);
    let checked = checked_unfit(&fleet, &[("SSH_AUTH_SOCK", agent.socket())]);
    checked.must_say(&["BAD", "vessel open", "too many", "IdentityFile of [Vessel open]"]);
}

#[test]
fn a_dead_agent_is_only_a_note() {
    let Some(fleet) = Fleet::new().openssh("open").openssh("closed").without_key().start() else { return };
    let (abandoned, missing) = (fleet.path("abandoned"), fleet.path("missing"));
    drop(UnixListener::bind(&abandoned).unwrap());
    for socket in [&abandoned, &missing] {
        let checked = checked_unfit(&fleet, &[("SSH_AUTH_SOCK", socket)]);
        checked.must_say(&["ok", "vessel open", "connected"]);
        checked.must_say(&["BAD", "vessel closed", "agent", socket.to_str().unwrap()]);
    }
}

#[test]
fn an_agent_that_never_answers_is_not_waited_for_in_vain() {
    let Some(fleet) = Fleet::new().openssh("open").key("Timeout", "2s").start() else { return };
    // The kernel accepts for it, and nobody ever reads.
    let silent = UnixListener::bind(fleet.path("silent")).unwrap();
    delivers(&fleet, &[("SSH_AUTH_SOCK", &fleet.path("silent"))], &["open"]);
    drop(silent);
}

// ---- several methods, and none ----

fn with_password() -> FleetPlan {
    Fleet::new().openssh("open").key("Password", PASSWORD)
}

#[test]
fn a_vessel_may_want_a_key_and_a_password() {
    let Some(fleet) = strict(with_password(), "AuthenticationMethods publickey,password") else { return };
    delivers(&fleet, &[], &["open"]);
}

#[test]
fn a_vessel_may_want_a_password_and_then_a_key() {
    let Some(fleet) = strict(with_password(), "AuthenticationMethods password,publickey") else { return };
    delivers(&fleet, &[], &["open"]);
}

#[test]
fn a_vessel_may_want_two_keys() {
    let plan = Fleet::new().openssh("open").key("IdentityFile", "keys/one, keys/two");
    let Some(fleet) = strict(plan, "AuthenticationMethods publickey,publickey") else { return };
    let keys = ["one", "two"].map(|name| public(&make_key(&fleet, name, &["-t", "ed25519"])));
    fleet.vessel("open").authorize(&keys.concat());
    delivers(&fleet, &[], &["open"]);
}

#[test]
fn half_of_what_a_vessel_wants_is_not_enough_and_the_rest_is_named() {
    let plan = Fleet::new().openssh("open");
    let Some(fleet) = strict(plan, "AuthenticationMethods publickey,password") else { return };
    checked_unfit(&fleet, &[]).must_say(&["BAD", "vessel open", "id_ed25519", "the server accepts password"]);
}

/// A vessel that takes passwords by asking questions only.
const QUESTIONS_ONLY: &str = "PasswordAuthentication no\nKbdInteractiveAuthentication yes";

#[test]
fn a_vessel_that_asks_questions_is_given_the_password() {
    let Some(fleet) = strict(with_password().without_key().asks_pam(), QUESTIONS_ONLY) else { return };
    delivers(&fleet, &[], &["open"]);
}

#[test]
fn a_vessel_may_want_answers_and_then_a_key() {
    let lines = format!("{QUESTIONS_ONLY}\nAuthenticationMethods keyboard-interactive,publickey");
    let Some(fleet) = strict(with_password().asks_pam(), &lines) else { return };
    delivers(&fleet, &[], &["open"]);
}

#[test]
fn methods_that_we_have_nothing_for_are_named() {
    let plan = Fleet::new().openssh("keys").openssh("questions").asks_pam().openssh("hosts");
    let Some(fleet) = plan.start() else { return };
    without_default_keys(&fleet);
    let configure = |name: &str, lines: &str| Vessel::configure(fleet.vessel(name), lines);
    configure("keys", "AuthenticationMethods publickey");
    configure("questions", &format!("{QUESTIONS_ONLY}\nPubkeyAuthentication no"));
    configure("hosts", "HostbasedAuthentication yes\nAuthenticationMethods hostbased");
    let checked = checked_unfit(&fleet, &[]);
    checked.must_say(&[
        "BAD",
        "vessel keys",
        "no key or password to log in with",
        "the server accepts publickey",
        "[Vessel keys]",
    ]);
    checked.must_say(&[
        "BAD",
        "vessel questions",
        "the server accepts keyboard-interactive",
        "Password in [Vessel questions]",
    ]);
    checked.must_say(&["BAD", "vessel hosts", "the server accepts hostbased"]);
}
