//! The program's own files (settings, secrets, ledger, log, socket) are never taken, wherever they are.

use std::fs;
use std::os::unix::fs::symlink;

use crate::fleet::wait::{never_within, wait_until};
use crate::fleet::{Fleet, names_in};

/// A fleet whose directory `in` is where its own files are.
fn beside_its_settings(keys: &[(&str, &str)]) -> Option<Fleet> {
    let mut plan = Fleet::new().monster("LogFile", "here.log").directory("in");
    for (key, value) in keys {
        plan = plan.key(key, value);
    }
    let fleet = plan.openssh("tern").key("PasswordFile", "secret").start()?;
    fs::write(fleet.path("secret"), "hunter2\n").unwrap();
    fs::set_permissions(fleet.path("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let (was, remote) = (fleet.path("shore/in"), fleet.vessel("tern").remote("in"));
    let text =
        text.replace(&format!("Location = {}", was.display()), &format!("Location = .\nRemoteLocation = {remote}"));
    fleet.write_settings(&text);
    Some(fleet)
}

/// What the vessel holds, by name.
fn held(fleet: &Fleet) -> Vec<String> {
    let names = names_in(&fleet.vessel("tern").path("in")).into_iter();
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| !name.starts_with(".contentmonster")).collect()
}

#[test]
fn a_directory_that_holds_the_settings_sends_neither_them_nor_the_ledger_nor_secrets() {
    let Some(fleet) = beside_its_settings(&[]) else { return };
    // Under other names they are the same files.
    fs::hard_link(fleet.path("secret"), fleet.path("another name")).unwrap();
    fs::write(fleet.path("database.sqlite3.schema-12"), b"a copy made before an upgrade").unwrap();
    fs::write(fleet.path("cargo"), b"cargo").unwrap();
    let checked = fleet.call(&["check"], "");
    for name in ["settings.ini", "secret", "here.log", "database.sqlite3"] {
        checked.must_say(&["note", "[Directory in]", "never sent", name]);
    }
    let daemon = fleet.run();
    wait_until("the cargo to be delivered", || fleet.path("processed/cargo").exists());
    fs::write(fleet.path("more"), b"more").unwrap();
    wait_until("more to be delivered", || fleet.path("processed/more").exists());
    never_within(std::time::Duration::from_secs(2), "anything of its own to go", || held(&fleet).len() > 2);
    assert_eq!(held(&fleet), ["cargo", "more"]);
    assert_eq!(names_in(&fleet.path("processed")), ["cargo", "more"]);
    daemon.terminate();
    assert!(fleet.path("settings.ini").exists() && fleet.path("database.sqlite3").exists());
    let why = fleet.call(&["why", "in/settings.ini"], "");
    why.must_say(&["contentmonster's own"]);
}

#[test]
fn a_mirror_by_another_path_does_not_send_them_either() {
    let Some(fleet) = beside_its_settings(&[("Mode", "mirror")]) else { return };
    symlink(fleet.path(""), fleet.path("home/link")).unwrap();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("Location = .\n", "Location = home/link\n"));
    fs::write(fleet.path("cargo"), b"cargo").unwrap();
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(held(&fleet), ["cargo"]);
}

#[test]
fn a_location_that_is_the_ledger_is_refused() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("shore/in\n", "settings.ini\n"));
    let ended = fleet.once();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    ended.must_say(&["[Directory in] Location", "contentmonster's own"]);
}
