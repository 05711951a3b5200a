//! Sections that would lose each other's files or fight over a place are refused; what is well defined is allowed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use contentmonster::settings::{Environment, Settings};
use rstest::rstest;
use rustix::process::Signal;

use crate::fleet::Fleet;
use crate::fleet::daemon::Daemon;
use crate::fleet::namespace::Mounts;
use crate::fleet::wait::wait_until;

const VESSEL: &str = "[Vessel v]\nAddress = v\nUsername = u\n";
const MIRROR: &str = "Mode = mirror\nRecursive = yes\n";
const DELETING: &str = "Mode = mirror\nRecursive = yes\nDelete = yes\n";

/// What is wrong with two directories `a` and `b` below a temporary one, and whatever else is in the file; nothing for
/// nothing.
fn problems(root: &Path, sections: &str) -> String {
    let text = sections.replace("ROOT", &root.display().to_string());
    match Settings::parse(&text, &root.join("settings.ini"), &Environment::default()) {
        Ok(_) => String::new(),
        Err(error) => error.to_string().replace(&format!("{}/", root.display()), ""),
    }
}

fn two(a: &str, b: &str, vessels: &str) -> String {
    format!("[Directory a]\n{a}\n[Directory b]\n{b}\n{vessels}")
}

/// A tree to name in settings.
fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in ["s/sub/deep", "s/processed/old", "other"] {
        fs::create_dir_all(root.path().join(name)).unwrap();
    }
    fs::write(root.path().join("s/report.csv"), "").unwrap();
    symlink("s", root.path().join("link")).unwrap();
    symlink("s/sub", root.path().join("sublink")).unwrap();
    root
}

#[rstest]
// Two directories over one location, however it is written.
#[case("s", "", "s/.", "", "is also the Location of [Directory a]")]
#[case("s", "", "link", MIRROR, "is also the Location of [Directory a]")]
#[case("s", "", "other/../s", "", "is also the Location of [Directory a]")]
#[case("s", "", "sublink/..", "", "is also the Location of [Directory a]")]
// One that takes what another one still has to deliver.
#[case("s", "Recursive = yes\n", "s/sub", "", "moves them into its processed/")]
#[case("s", "Recursive = yes\n", "sublink", "", "moves them into its processed/")]
#[case("link", "Recursive = yes\n", "s/sub/deep", MIRROR, "moves them into its processed/")]
#[case("s", "Recursive = yes\n", "s/sub/new", "", "moves them into its processed/")]
#[case("s", "", "s/report.csv", "", "moves them into its processed/")]
#[case("s", "Recursive = yes\nExclude = /other/\n", "s/sub", "", "moves them into its processed/")]
#[case("s", "Recursive = yes\nInclude = *.csv\n", "s/sub", "", "moves them into its processed/")]
// In what another one has delivered.
#[case("s", "", "s/processed/old", "", "is in the processed/ of [Directory a]")]
#[case("s", "", "link/processed/old", MIRROR, "is in the processed/ of [Directory a]")]
#[case("s", "KeepProcessed = 30d\n", "s/processed", "", "KeepProcessed of [Directory")]
fn locations_that_lose_files_are_refused(
    #[case] a: &str,
    #[case] keys_of_a: &str,
    #[case] b: &str,
    #[case] keys_of_b: &str,
    #[case] why: &str,
) {
    let root = tree();
    // The places on the vessel are far apart, and so in either order of the sections.
    let section = |location: &str, keys: &str, place: &str| {
        format!("Location = ROOT/{location}\nRemoteLocation = /{place}\n{keys}")
    };
    let said = problems(root.path(), &two(&section(a, keys_of_a, "x"), &section(b, keys_of_b, "y"), VESSEL));
    assert!(said.contains(why) && said.contains("settings.ini:"), "{said}");
    let turned = format!(
        "[Directory b]\n{}\n[Directory a]\n{}\n{VESSEL}",
        section(b, keys_of_b, "y"),
        section(a, keys_of_a, "x")
    );
    assert!(!problems(root.path(), &turned).is_empty());
}

#[rstest]
#[case::mirrors_of_one_location("s", MIRROR, "s", DELETING)]
#[case::mirrors_in_each_other("s", MIRROR, "s/sub", MIRROR)]
#[case::nothing_below("s", "", "s/sub", "")]
#[case::excluded("s", "Recursive = yes\nExclude = /sub/\n", "s/sub", "")]
#[case::excluded_by_name("s", "Recursive = yes\nExclude = sub\n", "sublink", "")]
#[case::included_elsewhere("s", "Recursive = yes\nInclude = /other/**\n", "s/sub", "")]
#[case::a_file_that_is_excluded("s", "Exclude = /report.csv\n", "s/report.csv", "")]
#[case::a_chain("s", "", "s/processed", "")]
#[case::a_mirror_around("s", DELETING, "s/sub", "")]
#[case::apart("s", "Recursive = yes\n", "other", "")]
#[case::alike_in_spelling("s", "Recursive = yes\n", "s2", "")]
fn locations_that_get_along_are_allowed(
    #[case] a: &str,
    #[case] keys_of_a: &str,
    #[case] b: &str,
    #[case] keys_of_b: &str,
) {
    let root = tree();
    let section = |location: &str, keys: &str, place: &str| {
        format!("Location = ROOT/{location}\nRemoteLocation = /{place}\n{keys}")
    };
    let said = problems(root.path(), &two(&section(a, keys_of_a, "x"), &section(b, keys_of_b, "y"), VESSEL));
    assert_eq!(said, "");
}

const TWINS: &str = "[Vessel v]\nAddress = V.example\nUsername = u\nDirs = a\n\
                     [Vessel w]\nAddress = v.example\nUsername = u\nTempDir = other\nDirs = b\n";
const ANOTHER_USER: &str = "[Vessel v]\nAddress = v.example\nUsername = u\nDirs = a\n\
                            [Vessel w]\nAddress = v.example\nUsername = other\nDirs = b\n";
const ONE_KEY: &str = "[Vessel v]\nAddress = v.example\nUsername = u\nDirs = a\n\
                       HostKey = SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU\n\
                       [Vessel w]\nAddress = 192.0.2.1\nUsername = u\nTempDir = other\nDirs = b\n\
                       HostKey = SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU\n";

#[rstest]
#[case("/in", "", "/in", "", VESSEL, "files of the same name overwrite each other")]
#[case("/in", "", "/in/", MIRROR, VESSEL, "files of the same name overwrite each other")]
#[case("in", "", "./x/../in", "", VESSEL, "files of the same name overwrite each other")]
#[case("/in", DELETING, "/in/b", "", VESSEL, "deletes files there")]
#[case("/in", MIRROR, "/in/b", DELETING, VESSEL, "deletes files there")]
#[case("/in", "", "/in", "", TWINS, "the same account on the same host")]
#[case("/in", "", "/in", "", ONE_KEY, "the same account on the same host")]
#[case("/in", DELETING, "/in/b", "", TWINS, "deletes files there")]
fn places_on_a_vessel_that_fight_are_refused(
    #[case] a: &str,
    #[case] keys_of_a: &str,
    #[case] b: &str,
    #[case] keys_of_b: &str,
    #[case] vessels: &str,
    #[case] why: &str,
) {
    let root = tree();
    let section = |location: &str, keys: &str, place: &str| {
        format!("Location = ROOT/{location}\nRemoteLocation = {place}\n{keys}")
    };
    let said = problems(root.path(), &two(&section("s", keys_of_a, a), &section("other", keys_of_b, b), vessels));
    assert!(said.contains(why) && said.contains("RemoteLocation.") && said.contains("settings.ini:"), "{said}");
}

#[rstest]
#[case::other_vessels(
    "/in",
    "",
    "/in",
    "",
    "[Vessel v]\nAddress = v\nUsername = u\nDirs = a\n[Vessel w]\nAddress = w\nUsername = u\nDirs = b\n"
)]
#[case::other_users("/in", "", "/in", "", ANOTHER_USER)]
#[case::one_vessel_with_its_own("/in", "", "/in", "", "[Vessel v]\nAddress = v\nUsername = u\nRemoteLocation.b = /b\n")]
#[case::below_what_takes_no_directories("/in", "", "/in/b", "", VESSEL)]
#[case::below_a_tree_that_deletes_nothing("/in", "Recursive = yes\n", "/in/b", "", VESSEL)]
#[case::below_what_is_excluded(
    "/in",
    "Mode = mirror\nRecursive = yes\nDelete = yes\nExclude = /b/\n",
    "/in/b",
    "",
    VESSEL
)]
fn places_that_get_along_are_allowed(
    #[case] a: &str,
    #[case] keys_of_a: &str,
    #[case] b: &str,
    #[case] keys_of_b: &str,
    #[case] vessels: &str,
) {
    let root = tree();
    let section = |location: &str, keys: &str, place: &str| {
        format!("Location = ROOT/{location}\nRemoteLocation = {place}\n{keys}")
    };
    let said = problems(root.path(), &two(&section("s", keys_of_a, a), &section("other", keys_of_b, b), vessels));
    assert_eq!(said, "");
}

#[test]
fn a_mirror_that_would_delete_what_another_directory_delivered_is_refused() {
    let root = tree();
    let sections = two(&format!("Location = ROOT/s\n{DELETING}"), "Location = ROOT/s/sub", VESSEL);
    let said = problems(root.path(), &sections);
    assert!(
        said.contains("[Directory b] RemoteLocation: is in the RemoteLocation of [Directory a] on [Vessel v]"),
        "{said}"
    );
    let apart = format!("{sections}RemoteLocation.b = /elsewhere\n");
    assert_eq!(problems(root.path(), &apart), "");
}

#[test]
fn one_directory_to_one_account_twice_is_refused() {
    let root = tree();
    let both = "[Vessel v]\nAddress = v\nUsername = u\n[Vessel w]\nAddress = v\nUsername = u\nTempDir = t\n";
    let said = problems(root.path(), &format!("[Directory a]\nLocation = ROOT/s\n{both}"));
    assert!(said.contains("the same account on the same host as [Vessel w]"), "{said}");
    assert_eq!(problems(root.path(), &format!("[Directory a]\nLocation = ROOT/s\n{both}RemoteLocation.a = /b\n")), "");
}

/// Settings with a directory and another one by this path.
fn with_another(fleet: &Fleet, location: &Path) -> String {
    let text = fs::read_to_string(fleet.settings()).unwrap();
    format!("{text}\n[Directory again]\nLocation = {}\nRemoteLocation = /elsewhere\n", location.display())
}

#[test]
fn a_bind_mount_of_a_location_is_known_as_the_same_directory() {
    let Some(fleet) = Fleet::new().directory("in").key("Recursive", "yes").openssh("tern").start() else { return };
    let bound = fleet.path("bound");
    fs::create_dir_all(&bound).unwrap();
    fs::create_dir_all(fleet.source("sub/deep")).unwrap();
    for source in ["", "sub", "sub/deep"] {
        fleet.write_settings(&with_another(&fleet, &bound));
        let checked = run_in(&fleet, &Mounts::default().bind(&fleet.source(source), &bound), &["check"]);
        assert!(
            checked.contains("[Directory again] Location:") && checked.contains("overlap on the disk"),
            "{checked}"
        );
        let text = fs::read_to_string(fleet.settings()).unwrap();
        fleet.write_settings(text.split("\n[Directory again]").next().unwrap());
    }
}

/// What the program says in a mount namespace of its own.
fn run_in(fleet: &Fleet, mounts: &Mounts, arguments: &[&str]) -> String {
    let mut command: Command = mounts.command();
    command.arg(env!("CARGO_BIN_EXE_contentmonster")).arg("--settings").arg(fleet.settings()).args(arguments);
    let ended = command.env("HOME", fleet.path("home")).output().unwrap();
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[test]
fn the_daemon_and_a_reload_refuse_what_check_refuses() {
    let Some(fleet) = Fleet::new().directory("in").openssh("tern").start() else { return };
    let sound = fs::read_to_string(fleet.settings()).unwrap();
    symlink(fleet.path("shore/in"), fleet.path("link")).unwrap();
    let broken = with_another(&fleet, &fleet.path("link"));
    fleet.write_settings(&broken);
    for arguments in [&["check"][..], &["--once"], &[]] {
        let ended = fleet.call(arguments, "");
        assert_eq!(ended.code, Some(3), "{ended:?}");
        ended.must_say(&["[Directory again]", "is also the Location of [Directory in]"]);
    }
    fleet.write_settings(&sound);
    let daemon: Daemon = fleet.run();
    daemon.wait_for_log(&["connected"]);
    fleet.write_settings(&broken);
    daemon.send(Signal::HUP);
    daemon.wait_for_log(&["Settings were not reloaded"]);
    fleet.put("cargo", b"cargo");
    fleet.wait_until_retired("cargo");
    fleet.assert_equal("tern", "cargo", b"cargo");
    daemon.terminate();
}

/// A fleet whose vessel sees the Location at its own path, because it is this host.
fn at_home(plan: crate::fleet::plan::FleetPlan) -> Option<Fleet> {
    let fleet = plan.start()?;
    fs::create_dir_all(fleet.path("here/in")).unwrap();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let (shore, here) = (fleet.path("shore/in"), fleet.path("here/in"));
    fleet.write_settings(&text.replace(&shore.display().to_string(), &here.display().to_string()));
    Some(fleet)
}

#[test]
fn over_ssh_to_this_very_host_a_file_does_not_replace_itself() {
    let Some(fleet) = at_home(Fleet::new().directory("in").openssh("tern").dropbear("gull")) else { return };
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let elsewhere = fleet.path("there");
    fleet.write_settings(
        &text.replace("[Vessel gull]\n", &format!("[Vessel gull]\nRemoteLocation.in = {}\n", elsewhere.display())),
    );
    let here = |name: &str| fleet.path("here/in").join(name);
    fs::write(here("small"), b"small").unwrap();
    fs::write(here("large"), vec![7; 11 << 20]).unwrap();
    let ended = fleet.once();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended.must_say(&["[Vessel tern] is this host", "equals the Location", "RemoteLocation.in"]);
    assert_eq!(fs::read(here("small")).unwrap(), b"small");
    assert_eq!(fs::metadata(here("large")).unwrap().len(), 11 << 20);
    assert!(!here("processed/small").exists(), "nothing retires that has not left this host");
    // This host is as good a place as any other, elsewhere.
    assert_eq!(fs::read(elsewhere.join("small")).unwrap(), b"small");
    let left: Vec<_> = crate::fleet::names_in(&fleet.path("here/in"));
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".contentmonster")), "{left:?}");
    fleet.checked_unfit().must_say(&["[Vessel tern] is this host", "RemoteLocation.in"]);
}

#[test]
fn a_place_on_this_very_host_inside_a_tree_that_is_taken_is_refused() {
    let plan = Fleet::new().directory("in").key("Recursive", "yes").key("Mode", "mirror").openssh("tern");
    let Some(fleet) = at_home(plan) else { return };
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let inside = fleet.path("here/in/copy");
    fleet.write_settings(
        &text.replace("[Vessel tern]\n", &format!("[Vessel tern]\nRemoteLocation.in = {}\n", inside.display())),
    );
    fs::write(fleet.path("here/in/cargo"), b"cargo").unwrap();
    let daemon = fleet.run();
    daemon.wait_for_log(&["[Vessel tern] is this host", "is inside the Location"]);
    wait_until("nothing of it to be left", || !inside.join("cargo").exists());
    daemon.terminate();
    assert!(!inside.join("copy").exists());
}
