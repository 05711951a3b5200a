//! A `Location` that is one file: it retires, it is absent until it is written anew, and it may be a link.

use std::fs;
use std::path::PathBuf;

use crate::fleet::Fleet;
use crate::fleet::wait::wait_until;

/// A fleet whose `in` is the file `exports/data.csv` on the shore and `in/data.csv` on the vessel.
fn one_file(more: &str) -> Option<(tempfile::TempDir, PathBuf, Fleet)> {
    let exports = tempfile::tempdir().unwrap();
    let file = exports.path().join("data.csv");
    let plan = Fleet::new().directory("in").key("Location", file.to_str().unwrap()).key("RescanInterval", "1s");
    let fleet = plan.openssh("open").start()?;
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("RemoteLocation.in")).collect();
    let remote = fleet.vessel("open").remote("in/data.csv");
    let vessel = format!("[Vessel open]\nRemoteLocation.in = {remote}");
    let text = lines
        .join("\n")
        .replace("[Vessel open]", &vessel)
        .replace("[Directory in]", &format!("[Directory in]\n{more}"));
    fleet.write_settings(&text);
    Some((exports, file, fleet))
}

#[test]
fn the_next_export_is_taken_after_the_first_one_retired_and_the_program_restarted() {
    let Some((_exports, file, fleet)) = one_file("") else { return };
    for bytes in [&b"first export"[..], b"second export", b"third"] {
        // The daemon starts without the file.
        let daemon = fleet.run();
        daemon.wait_for_log(&["connected"]);
        fs::write(&file, bytes).unwrap();
        fleet.wait_until_served("open", "data.csv", bytes);
        wait_until("the file to retire", || !file.exists());
        daemon.terminate();
    }
}

#[test]
fn an_absent_export_is_no_trouble_once_it_is_known_to_be_a_file() {
    let Some((_exports, file, fleet)) = one_file("") else { return };
    fs::write(&file, "export").unwrap();
    assert_eq!(fleet.once().code, Some(0));
    assert!(!file.exists());
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_location_that_becomes_a_directory_is_taken_as_one() {
    let Some((_exports, file, fleet)) = one_file("") else { return };
    fs::write(&file, "export").unwrap();
    let daemon = fleet.run();
    wait_until("the file to retire", || !file.exists());
    fs::remove_file(fleet.vessel("open").path("in/data.csv")).unwrap();
    fs::create_dir(&file).unwrap();
    fs::write(file.join("inner"), "inner").unwrap();
    wait_until("the file in it to retire", || file.join("processed/inner").exists());
    assert_eq!(fs::read(fleet.vessel("open").path("in/data.csv/inner")).unwrap(), b"inner");
    daemon.terminate();
}

#[test]
fn a_location_that_is_a_link_to_a_file_is_said() {
    let Some((exports, file, fleet)) = one_file("") else { return };
    fs::write(exports.path().join("real"), "export").unwrap();
    std::os::unix::fs::symlink("real", &file).unwrap();
    let ended = fleet.once();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended.must_say(&["data.csv", "symbolic link", "Location"]);
}

#[test]
fn a_mirror_follows_a_location_that_is_a_link_to_a_file_where_it_is_told_to() {
    let Some((exports, file, fleet)) = one_file("Mode = mirror\nLinks = follow") else { return };
    fs::write(exports.path().join("real"), "export").unwrap();
    std::os::unix::fs::symlink("real", &file).unwrap();
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    fleet.assert_equal("open", "data.csv", b"export");
}
