//! The settings file of a fleet. A key that the plan gives takes the place of the fixture's own.

use super::Fleet;
use super::vessel::Vessel;

/// The whole text.
pub(super) fn settings_text(fleet: &Fleet) -> String {
    let own: Vec<_> = fleet.database.iter().map(|database| ("Database".to_owned(), database.url())).collect();
    let mut text = section("MONSTER", &own, &fleet.monster);
    for directory in &fleet.directories {
        let location = fleet.path("shore").join(&directory.name).display().to_string();
        let own = [("Location".to_owned(), location), ("SettleTime".to_owned(), "300ms".to_owned())];
        text.push_str(&section(&format!("Directory {}", directory.name), &own, &directory.keys));
    }
    for vessel in &fleet.vessels {
        text.push_str(&section(&format!("Vessel {}", vessel.name()), &keys_of(fleet, vessel), &vessel.plan().keys));
    }
    text
}

fn keys_of(fleet: &Fleet, vessel: &Vessel) -> Vec<(String, String)> {
    let mut keys = vec![
        ("Address".to_owned(), "127.0.0.1".to_owned()),
        ("Port".to_owned(), vessel.port().to_string()),
        ("Username".to_owned(), "root".to_owned()),
        ("TempDir".to_owned(), vessel.remote("temp/parts")),
    ];
    // Where the vessel sees its files elsewhere than the shore does, the settings must say so.
    for directory in &fleet.directories {
        let remote = vessel.remote(&directory.name);
        if !remote.starts_with(&fleet.path("shore").display().to_string()) {
            keys.push((format!("RemoteLocation.{}", directory.name), remote));
        }
    }
    keys
}

fn section(title: &str, own: &[(String, String)], planned: &[(String, String)]) -> String {
    let mut text = format!("[{title}]\n");
    let own = own.iter().filter(|(key, _)| planned.iter().all(|(other, _)| other != key));
    for (key, value) in own.chain(planned) {
        text.push_str(&format!("{key} = {value}\n"));
    }
    text.push('\n');
    text
}
