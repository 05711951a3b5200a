//! Whatever a settings file holds, reading it ends with settings or with errors, never with a panic.

#![no_main]

use std::path::Path;

use contentmonster::settings::{Environment, Settings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Files that it names are read: keep to what lies nowhere.
    if text.contains("File") || text.contains("SSHConfig") {
        return;
    }
    let environment =
        Environment { user: Some("captain".into()), settings_mode: Some(0o600), ..Environment::default() };
    let _ = Settings::parse(text, Path::new("/nowhere/settings.ini"), &environment);
});
