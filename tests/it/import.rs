//! `import poni`: what it says, and that what it writes puts the same trees on a vessel as `rsync` does.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use crate::fleet::Fleet;

fn import(arguments: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_contentmonster"));
    command.args(["import", "poni"]).args(arguments).output().unwrap()
}

#[test]
fn a_misspelt_key_is_named_with_its_line_and_nothing_is_written() {
    let place = tempfile::tempdir().unwrap();
    let (config, output) = (place.path().join("config.yml"), place.path().join("settings.ini"));
    fs::write(&config, "sync:\n  one:\n    source_path: /srv\n    rsync opts: az\n").unwrap();
    let refused = import(&[&config, "--output".as_ref(), &output]);
    assert_eq!(refused.status.code(), Some(3));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("config.yml:4: unknown key \"rsync opts\"") && said.contains("rsync_opts"), "{said}");
    assert!(!output.exists());
}

#[test]
fn settings_go_to_standard_output_or_to_a_file_that_is_not_there_yet() {
    let place = tempfile::tempdir().unwrap();
    let (config, output) = (place.path().join("config.yml"), place.path().join("settings.ini"));
    fs::write(&config, "sync:\n  /srv/a:\n    remote_host: tern\n    remote_path: /opt\n").unwrap();
    let shown = import(&[&config]);
    assert!(shown.status.success() && String::from_utf8_lossy(&shown.stdout).contains("RemoteLocation.a = /opt/a\n"));
    assert!(import(&[&config, "--output".as_ref(), &output]).status.success());
    let written = fs::read(&output).unwrap();
    assert!(shown.stdout.trim_ascii_end() == written.trim_ascii_end());
    assert_eq!(import(&[&config, "--output".as_ref(), &output]).status.code(), Some(2), "it is left as it is");
}

/// What lies below a place: kind and mode, seconds of change and bytes of files, where links lead.
fn tree(at: &Path) -> BTreeMap<String, (u32, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![at.to_owned()];
    while let Some(place) = open.pop() {
        let meta = fs::symlink_metadata(&place).unwrap_or_else(|e| panic!("{place:?}: {e}"));
        let (mut time, mut bytes) = (0, Vec::new());
        if meta.is_dir() {
            open.extend(fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.is_symlink() {
            bytes = fs::read_link(&place).unwrap().into_os_string().into_encoded_bytes();
        } else {
            (time, bytes) = (meta.mtime(), fs::read(&place).unwrap());
        }
        let name = place.strip_prefix(at).unwrap().display().to_string();
        found.insert(name, (meta.mode(), time, bytes));
    }
    found
}

fn source(at: &Path) {
    fs::create_dir_all(at.join("deep/er")).unwrap();
    fs::create_dir(at.join("empty")).unwrap();
    for (name, mode) in [("one", 0o640), ("deep/two", 0o755), ("deep/er/a b'c", 0o444), ("x.tmp", 0o600)] {
        let file = at.join(name);
        fs::write(&file, name).unwrap();
        let when = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
        File::options().write(true).open(&file).unwrap().set_modified(when).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("one", at.join("link")).unwrap();
}

#[test]
fn imported_settings_make_the_trees_that_rsync_makes() {
    let Some(fleet) = Fleet::new().openssh("tern").openssh("gull").dropbear("skua").start() else { return };
    let from = fleet.path("shore/from");
    source(&from);
    let (one, from) = (from.join("one"), from.display());
    // What is synced, with which letters, whether Poni watches what lies below, and where to.
    let syncs = [
        (format!("{from}"), "azP", true, "tern", "plain"),
        (format!("{from}"), "azP", true, "gull", "plain"),
        (format!("{from}"), "azP", true, "skua", "plain"),
        (format!("{from}/"), "rlptz", true, "tern", "slash"),
        (format!("{from}/"), "rptz", false, "gull", "shallow"),
        (format!("{}", one.display()), "azP", false, "tern", "file"),
    ];
    let mut config = format!(
        "defaults:\n  remote_host: 127.0.0.1\n  remote_user: root\n  interval: 0\n  simulate: false\n  priv_key: {}\nsync:\n",
        fleet.path("home/.ssh/id_ed25519").display(),
    );
    for (source, letters, recurse, vessel, to) in &syncs {
        let (to_path, port) = (fleet.vessel(vessel).remote(to), fleet.vessel(vessel).port());
        config.push_str(&format!(
            "  {to} on {vessel}:\n    source_path: {source}\n    remote_path: {to_path}\n    rsync_opts: {letters}\n    \
             recurse: {recurse}\n    port: {port}\n"
        ));
        let expected = fleet.path(format!("expected/{to}/"));
        fs::create_dir_all(&expected).unwrap();
        let copied = Command::new("rsync").arg(format!("-{letters}")).arg(source).arg(&expected).output().unwrap();
        assert!(copied.status.success(), "{copied:?}");
    }
    fs::write(fleet.path("config.yml"), config).unwrap();
    let imported = import(&[&fleet.path("config.yml")]);
    let text = String::from_utf8(imported.stdout).unwrap();
    fleet.write_settings(&format!("[DEFAULT]\nTempDir = {}\n\n{text}", fleet.vessel("tern").remote("temp/parts")));
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}\n{text}");
    for (.., vessel, to) in &syncs {
        let held = tree(&fleet.vessel(vessel).path(to));
        assert_eq!(held, tree(&fleet.path(format!("expected/{to}"))), "{to} on {vessel}\n{text}");
    }
}
