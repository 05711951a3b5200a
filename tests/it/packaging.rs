//! What is shipped around the program: the systemd unit does what it says by systemd's own judgement.
//!
//! Owns no knowledge of the program beyond its path; needs `systemd-analyze`, which `scripts/test` installs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use contentmonster::settings::{Environment, Settings};
use saphyr::{LoadableYamlNode, Yaml};

/// The most exposure that `systemd-analyze security` may find, of 10.
const EXPOSURE_LIMIT: f32 = 3.0;

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(packaging(file)).expect("the packaging files are part of the repository")
}

fn systemd_analyze(args: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze")
        .args(args)
        .arg(unit)
        .env("SYSTEMD_COLORS", "0")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("systemd-analyze runs: Debian's package `systemd` has it")
}

/// The value of `key` in a unit; the last one counts, as for systemd.
fn setting<'a>(unit: &'a str, key: &str) -> Option<&'a str> {
    unit.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

#[test]
fn the_unit_passes_systemds_verification() {
    // `verify` looks for the program where the unit says it is, so the copy points at the one that was just built.
    let unit = read("contentmonster.service");
    let start = format!("ExecStart=\"{}\" ", env!("CARGO_BIN_EXE_contentmonster"));
    let built = unit.replace("ExecStart=/usr/bin/contentmonster ", &start);
    assert_ne!(built, unit, "the unit starts /usr/bin/contentmonster");

    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("contentmonster.service");
    fs::write(&copy, built).unwrap();
    let output = systemd_analyze(&["verify", "--man=no"], &copy);

    // Unknown keys and bad values are only warned about, so silence about our unit is asked for as well.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "systemd-analyze verify failed:\n{said}");
    assert!(!said.contains("contentmonster"), "systemd-analyze verify complains:\n{said}");
}

#[test]
fn the_unit_exposes_little_to_an_attacker() {
    let output = systemd_analyze(&["security", "--offline=true", "--no-pager"], &packaging("contentmonster.service"));
    let said = String::from_utf8_lossy(&output.stdout);
    let exposure: f32 = said
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for contentmonster.service: "))
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .and_then(|figure| figure.parse().ok())
        .unwrap_or_else(|| panic!("no figure in:\n{said}\n{}", String::from_utf8_lossy(&output.stderr)));
    assert!(exposure <= EXPOSURE_LIMIT, "exposure is {exposure}, at most {EXPOSURE_LIMIT} is wanted:\n{said}");
}

#[test]
fn the_unit_reloads_and_watches_as_the_program_does() {
    let unit = read("contentmonster.service");
    assert_eq!(setting(&unit, "Type"), Some("notify"));
    assert_eq!(setting(&unit, "ExecReload"), Some("/bin/kill -HUP $MAINPID"));
    assert!(setting(&unit, "WatchdogSec").is_some());
    let seconds: u64 = setting(&unit, "TimeoutStopSec").unwrap().parse().unwrap();
    assert!(seconds > 10, "it may take 10 s to end");
}

#[test]
fn the_units_user_exists_and_lives_in_its_state_directory() {
    let unit = read("contentmonster.service");
    let user = setting(&unit, "User").unwrap();
    let home = format!("/var/lib/{}", setting(&unit, "StateDirectory").unwrap());
    // type, name, id, a quoted description, home, shell
    let found = read("contentmonster.sysusers").lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words[..], ["u", name, "-", _, at, "/usr/sbin/nologin"] if name == user && at == home)
    });
    assert!(found, "sysusers.d makes {user} with the home {home}");
}

/// The files that a section of `Cargo.toml` puts into a package, by where they are in the tree.
fn packed(manifest: &str, section: &str) -> BTreeSet<String> {
    let (_, rest) = manifest.split_once(&format!("[package.metadata.{section}]")).expect("the section is there");
    let (_, rest) = rest.split_once("assets = [").expect("it lists files");
    let (list, _) = rest.split_once("\n]").expect("the list ends");
    list.lines().filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect()
}

#[test]
fn both_packages_contain_the_same_files() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let mut debian = packed(&manifest, "deb");
    // cargo-deb finds these by itself.
    debian
        .extend(["packaging/contentmonster.service", "packaging/contentmonster.sysusers", "LICENSE"].map(String::from));
    assert_eq!(debian, packed(&manifest, "generate-rpm"));
}

#[test]
fn the_alerting_rules_are_complete_and_prometheus_accepts_them() {
    let text = read("alerts.yaml");
    let documents = Yaml::load_from_str(&text).unwrap();
    let rules = &documents[0]["groups"][0]["rules"];
    let mut names = BTreeSet::new();
    for rule in (0..).map_while(|at| rules.as_sequence_get(at)) {
        let text = |key: &str| rule[key].as_str().unwrap_or_else(|| panic!("no {key} in {rule:?}")).to_owned();
        assert!(names.insert(text("alert")), "{rule:?} is there twice");
        assert!(!text("expr").is_empty());
        assert!(["warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{rule:?}");
        for key in ["summary", "description"] {
            assert!(rule["annotations"][key].as_str().is_some(), "no {key} in {rule:?}");
        }
    }
    assert!(names.len() >= 8, "{names:?}");
    match Command::new("promtool").args(["check", "rules"]).arg(packaging("alerts.yaml")).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => println!("promtool is not installed: Prometheus itself was not asked"),
    }
}

#[test]
fn the_test_beds_settings_are_valid() {
    let docker = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker");
    let bed = |name: &str| fs::read_to_string(docker.join(name)).unwrap();
    let fingerprint = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    let dir = tempfile::tempdir().unwrap();
    for secret in ["password", "passphrase", "database-password"] {
        fs::write(dir.path().join(secret), "secret\n").unwrap();
    }
    fs::write(dir.path().join("fleet.ini"), bed("fleet.ini").replace("@HOST_KEY@", fingerprint)).unwrap();
    let environment = Environment { home: Some(dir.path().to_owned()), ..Environment::default() };
    for name in ["settings.ini", "settings.ha.ini"] {
        let settings = Settings::parse(&bed(name), &dir.path().join("settings.ini"), &environment)
            .unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_eq!((settings.directories.len(), settings.vessels.len()), (3, 3), "{name}");
    }
}
