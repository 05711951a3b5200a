//! Settings for fleets: included files, groups, ranges, placeholders; what is shown of them; commands for groups.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use contentmonster::settings::{Environment, Settings, schema};

use crate::fleet::Fleet;
use crate::fleet::wait::wait_until;

fn environment() -> Environment {
    Environment {
        user: Some("ann".into()),
        home: Some("/home/ann".into()),
        hostname: Some("shore".into()),
        ..Environment::default()
    }
}

fn parse(text: &str) -> Settings {
    Settings::parse(text, Path::new("/etc/cm/settings.ini"), &environment()).unwrap_or_else(|e| panic!("{e}"))
}

fn errors(text: &str) -> String {
    let refused = Settings::parse(text, Path::new("/etc/cm/settings.ini"), &environment());
    refused.expect_err("the settings are broken").to_string().replace("/etc/cm/", "")
}

#[test]
fn later_groups_win_over_earlier_ones_and_the_vessel_over_all() {
    let settings = parse(
        "[DEFAULT]\nUsername = all\nPort = 1\nTimeout = 1s\nReconnectWait = 1s\n[Directory d]\nLocation = /srv/d\n\
         RemoteLocation = /in/{group}/{vessel}/{directory}/{hostname}\n[Directory e]\nLocation = /srv/e\n\
         [Group offshore]\nPort = 2\nTimeout = 2s\nReconnectWait = 2s\nDirs = d, e\nAddress = {vessel}.{group}.example\n\
         [Group north]\nTimeout = 3s\nReconnectWait = 3s\nDirs = d\n[Vessel a]\nGroups = offshore, north\nReconnectWait = 4s\n\
         [Vessel b]\nGroups = north, offshore\nAddress = b.example\nRemoteLocation.d = /own/{directory}\n",
    );
    let [a, b] = &settings.vessels[..] else { panic!("{}", settings.vessels.len()) };
    assert_eq!((a.ssh.username.as_str(), a.ssh.port, a.ssh.address.as_str()), ("all", 2, "a.north.example"));
    assert_eq!((a.timeout.as_secs(), a.reconnect_wait.as_secs()), (3, 4));
    assert_eq!((b.timeout.as_secs(), b.reconnect_wait.as_secs(), b.ssh.address.as_str()), (2, 2, "b.example"));
    let location = |vessel: &contentmonster::settings::Vessel, at: usize| {
        vessel.remote_location(&settings.directories[at]).to_string()
    };
    assert_eq!((location(a, 0), location(b, 0)), ("/in/north/a/d/shore".into(), "/own/d".into()));
    let takes = |vessel: &contentmonster::settings::Vessel| {
        settings.directories.iter().filter(|one| vessel.takes(&one.name)).count()
    };
    assert_eq!((takes(a), takes(b), location(b, 1)), (1, 2, "/srv/e".into()));
    assert_eq!(
        (&a.groups[..], &b.groups[..]),
        (&["offshore".into(), "north".into()][..], &["north".into(), "offshore".into()][..])
    );
}

#[test]
fn what_is_wrong_with_groups_ranges_and_placeholders_is_named_with_its_line() {
    let text = "[Directory d]
Location = /srv/d
RemoteLocation = /in/{vesel}
[Directory e]
Location = /srv/e
RemoteLocation = /in/{group}/{vessel}
OnRetired = tell {vessel}
[Group north]
Groups = x
Colour = red
[Group unused]
[Vessel a]
Address = a
Groups = nroth, north
[Vessel ship{3..1}]
Address = s
[Vessel ship{01..02}]
Address = {directory}
[Vessel ship02]
Address = s
";
    let said = errors(text);
    for words in [
        "settings.ini:3: [Directory d] RemoteLocation: unknown placeholder `{vesel}`; did you mean {vessel}?",
        "settings.ini:7: [Directory e] OnRetired: `{vessel}` has no value here, because OnRetired runs once for all vessels",
        "settings.ini:9: [Group north] Groups: a group cannot have groups",
        "settings.ini:10: [Group north] Colour: unknown key",
        "settings.ini:14: [Vessel a] Groups: there is no [Group nroth]; did you mean north?",
        "settings.ini:15: [Vessel ship{3..1}] the range `{3..1}` ends before it begins; write `{1..3}`",
        "settings.ini:18: [Vessel ship{01..02}] Address: `{directory}` has no value here",
        "settings.ini:19: [Vessel ship02] [Vessel ship02] is also one of [Vessel ship{01..02}]",
    ] {
        assert!(said.contains(words), "no {words}\nin\n{said}");
    }
    let said = errors(
        "[Directory e]\nLocation = /srv/e\nRemoteLocation = /in/{group}/{vessel}\n[Vessel x/y]\nAddress = a\n[Vessel b]\nAddress = b\n[Group g]\n[Vessel ..]\nAddress = c\nGroups = g\n",
    );
    for words in [
        "RemoteLocation: on [Vessel b]: `{group}` has no value here; name a group",
        "RemoteLocation: on [Vessel ..]: `{vessel}` is `..`, which in a path would lead to another directory",
        "RemoteLocation: on [Vessel x/y]:",
    ] {
        assert!(said.contains(words), "no {words}\nin\n{said}");
    }
    let unused = parse("[Directory d]\nLocation = /srv/d\n[Vessel v]\nAddress = v\n[Group g]\nPort = 7\n");
    assert!(
        unused.warnings.iter().any(|warning| warning.contains("no vessel names this group")),
        "{:?}",
        unused.warnings
    );
}

#[test]
fn braces_that_are_no_placeholder_stay_as_they_are() {
    let settings = parse(
        "[Directory d]\nLocation = /srv/d\nRemoteLocation = /in/{a,b}/{}\nOnDelivered = awk '{print $1}'\n[Vessel v{1}]\nAddress = v\n",
    );
    assert_eq!(settings.vessels[0].name.as_str(), "v{1}");
    assert_eq!(settings.vessels[0].remote_location(&settings.directories[0]).to_string(), "/in/{a,b}/{}");
    assert_eq!(settings.directories[0].hooks.on_delivered, ["awk", "{print $1}"]);
}

#[test]
fn a_large_fleet_on_one_account_is_read_in_time_and_warned_of_once_for_each_section() {
    let began = std::time::Instant::now();
    let settings = parse(
        "[Directory d]\nLocation = /srv/d\nRemoteLocation = /in/{vessel}\n[Vessel ship{001..399}]\nAddress = hub\n[Vessel tug]\nAddress = hub\n",
    );
    let warnings = settings.warnings.iter().filter(|warning| warning.contains("is also the TempDir of")).count();
    assert_eq!((settings.vessels.len(), warnings), (400, 2), "once for each section");
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}

/// Writes the files below a new directory; the settings are `settings.ini`.
fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = place.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    place
}

const MAIN: &str = "Include = settings.d/*.ini\n[Directory d]\nLocation = /srv/d\nRemoteLocation = /in\n";

#[test]
fn included_files_are_read_in_order_and_their_problems_name_them() {
    let place = written(&[
        ("settings.ini", MAIN),
        ("settings.d/20-b.ini", "[Vessel b]\nAddress = b\nPort = 22a\n"),
        ("settings.d/10-a.ini", "[Vessel a]\nAddress = a\n[MONSTER]\nInclude = ../more/x.ini\n"),
        ("more/x.ini", "[Vessel x]\nAddress = x\nUsername = u\nColour = red\n"),
        ("settings.d/.hidden.ini", "[Vessel a]\n"),
        ("settings.d/30.ini~", "[Vessel a]\n"),
    ]);
    let file = place.path().join("settings.ini");
    let said = Settings::load(&file).unwrap_err().to_string();
    assert!(said.contains("settings.d/20-b.ini:3: [Vessel b] Port: invalid port `22a`"), "{said}");
    assert!(said.contains("more/x.ini:4: [Vessel x] Colour: unknown key"), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
    fs::write(place.path().join("settings.d/20-b.ini"), "[Vessel b]\nAddress = b\n").unwrap();
    fs::write(place.path().join("more/x.ini"), "[Vessel x]\nAddress = x\n").unwrap();
    let settings = Settings::load(&file).unwrap();
    let names: Vec<_> = settings.vessels.iter().map(|vessel| vessel.name.to_string()).collect();
    assert_eq!(names, ["a", "x", "b"]);
    assert_eq!(settings.files.len(), 4);
    let own = &settings.directories[0].own_files.fixed;
    assert!(own.iter().any(|path| path.ends_with("settings.d/20-b.ini")), "an included file is never sent: {own:?}");
}

#[test]
fn a_file_that_is_included_twice_or_by_itself_is_refused() {
    for (files, words) in [
        (&[("settings.ini", "Include = settings.ini\n")][..], "settings.ini:1: Include: "),
        (&[("settings.ini", "Include = a.ini\n"), ("a.ini", "Include = settings.ini\n")], "a.ini:1: Include: "),
        (&[("settings.ini", "Include = a.ini, ./a.ini\n"), ("a.ini", "")], "is already included by "),
        (&[("settings.ini", "Include = missing.ini\n")], "cannot read "),
        (&[("settings.ini", "Include = d\n"), ("d/x", "")], "Is a directory"),
        (
            &[("settings.ini", "Include = a.ini\n[Vessel v]\nAddress = v\n"), ("a.ini", "[Vessel v]\nAddress = w\n")],
            "a.ini:1: [Vessel v] this section is already in ",
        ),
        (&[("settings.ini", "[Directory d]\nInclude = x\n"), ("x", "")], "there is no vessel"),
    ] {
        let place = written(files);
        let said = Settings::load(&place.path().join("settings.ini")).unwrap_err().to_string();
        assert!(said.contains(words), "{files:?}: {said}");
    }
    // A link to a file is the file.
    let place = written(&[("settings.ini", MAIN), ("settings.d/a.ini", "[Vessel v]\nAddress = v\n")]);
    std::os::unix::fs::symlink("a.ini", place.path().join("settings.d/b.ini")).unwrap();
    let said = Settings::load(&place.path().join("settings.ini")).unwrap_err().to_string();
    assert!(said.contains("b.ini is already included"), "{said}");
    // An empty directory includes nothing.
    let place = written(&[("settings.ini", &format!("{MAIN}[Vessel v]\nAddress = v\n"))]);
    assert_eq!(Settings::load(&place.path().join("settings.ini")).unwrap().vessels.len(), 1);
    assert!(Settings::load(&place.path().join("settings.ini")).is_ok());
}

#[test]
fn a_secret_in_an_included_file_that_others_can_read_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let place = written(&[("settings.ini", MAIN), ("settings.d/a.ini", "[Vessel v]\nAddress = v\nPassword = x\n")]);
    let mode =
        |mode| fs::set_permissions(place.path().join("settings.d/a.ini"), fs::Permissions::from_mode(mode)).unwrap();
    let warnings = || Settings::load(&place.path().join("settings.ini")).unwrap().warnings;
    mode(0o644);
    let said = warnings();
    assert!(
        said.iter().any(|one| one.contains("a.ini:3: [Vessel v] Password") && one.contains("chmod 600")),
        "{said:?}"
    );
    mode(0o600);
    assert!(warnings().iter().all(|one| !one.contains("Password")));
}

#[test]
fn every_key_is_shown_with_where_it_comes_from() {
    let text = "[DEFAULT]\nPassword = hunter2\n[Directory d]\nLocation = /srv/d\nRemoteLocation = /in/{vessel}\n\
                [Group g]\nPort = 7\n[Vessel a{1..2}]\nAddress = {vessel}.example\nGroups = g\nTimeout = 3s\n";
    let (_, all) = Settings::explain_text(text, Path::new("/etc/cm/settings.ini"), &environment()).unwrap();
    let shown = |section: &str, key: &str| {
        let one = all.iter().find(|one| one.section == section && one.key == key);
        let json = serde_json::to_value(one.unwrap_or_else(|| panic!("no {section} {key}"))).unwrap();
        (
            json["value"].clone(),
            json["source"].as_str().unwrap().to_owned(),
            json["line"].as_u64(),
            json["from"].clone(),
        )
    };
    assert_eq!(shown("Vessel a2", "Port"), ("7".into(), "line".into(), Some(7), "Group g".into()));
    assert_eq!(shown("Vessel a2", "Address"), ("a2.example".into(), "line".into(), Some(9), "Vessel a{1..2}".into()));
    assert_eq!(shown("Vessel a1", "Password"), ("(not shown)".into(), "line".into(), Some(2), "DEFAULT".into()));
    assert_eq!(shown("Vessel a1", "Verify").1, "default");
    assert_eq!(shown("Vessel a1", "RemoteLocation.d").0, "/in/a1");
    assert_eq!(shown("Directory d", "RemoteLocation").0, "/in/{vessel}");
    assert_eq!(shown("MONSTER", "ChunkSize").0, "10485760");
    assert!(!format!("{all:?}").contains("hunter2"));
    let sections: BTreeSet<_> = all.iter().map(|one| one.section.as_str()).collect();
    assert_eq!(sections, BTreeSet::from(["MONSTER", "Directory d", "Vessel a1", "Vessel a2"]));
}

#[test]
fn a_value_of_the_ssh_config_is_shown_as_one() {
    let place = written(&[
        (
            "settings.ini",
            "[Directory d]\nLocation = /srv/d\n[Vessel v]\nAddress = v\nUsername = own\nSSHConfig = config\n",
        ),
        ("config", "Host v\n  Port 2200\n  User other\n  HostName v.example\n"),
    ]);
    fs::set_permissions(place.path().join("config"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (_, all) = Settings::explain(&place.path().join("settings.ini")).unwrap();
    let json = serde_json::to_value(&all).unwrap();
    let one = |key: &str| {
        json.as_array().unwrap().iter().find(|one| one["key"] == key && one["section"] == "Vessel v").unwrap()
    };
    assert_eq!((&one("Port")["value"], &one("Port")["source"]), (&"2200".into(), &"ssh-config".into()));
    assert!(one("Port")["place"].as_str().unwrap().ends_with("config:2"), "{}", one("Port"));
    assert_eq!(one("Username")["value"], "own");
    assert_eq!(one("SSHConfig HostName")["value"], "v.example");
}

#[test]
fn the_schema_names_every_key() {
    let schema = schema();
    let keys = |at: &serde_json::Value| at["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert!(keys(&schema["properties"]["MONSTER"]).contains("Include"));
    assert!(keys(&schema["patternProperties"]["^Vessel .+"]).contains("Groups"));
    assert_eq!(schema["patternProperties"]["^Directory .+"]["required"], serde_json::json!(["Location"]));
    let written = include_str!("../../settings.schema.json");
    assert_eq!(
        written.trim_end(),
        format!("{schema:#}"),
        "CONTENTMONSTER_REWRITE=1 cargo test --test it book::reference"
    );
}

#[test]
fn the_settings_are_checked_and_formatted_without_the_network() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    fleet.vessel("tern").stop();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let ugly = format!("Include=more/*.ini\n{}", text.replace(" = ", "  =").replace("\n[", "\n\n\n["));
    fleet.write_settings(&ugly);
    fs::create_dir(fleet.path("more")).unwrap();
    fs::write(fleet.path("more/a.ini"), "  [Group   g]\nPort=7\n").unwrap();
    let checked = fleet.call(&["settings", "check"], "");
    assert_eq!(checked.code, Some(0), "{checked:?}");
    checked.must_say(&["is valid: 2 files, 1 directory, 1 vessel"]);
    let asked = fleet.call(&["settings", "fmt", "--check"], "");
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert_eq!(fs::read_to_string(fleet.settings()).unwrap(), ugly);
    assert_eq!(fleet.call(&["settings", "fmt"], "").code, Some(0));
    let formatted = fs::read_to_string(fleet.settings()).unwrap();
    assert_eq!(formatted, format!("Include = more/*.ini\n\n{}\n", text.trim_end()));
    assert_eq!(fs::read_to_string(fleet.path("more/a.ini")).unwrap(), "[Group g]\nPort = 7\n");
    assert_eq!(crate::fleet::mode_and_mtime(&fleet.settings()).0, 0o600, "a file with secrets stays its owner's");
    assert_eq!(fleet.call(&["settings", "fmt", "--check"], "").code, Some(0));
    fleet.write_settings(&format!("{formatted}[Vessel x]\nAdress = 1\n"));
    let refused = fleet.call(&["settings", "check"], "");
    assert_eq!(refused.code, Some(3), "{refused:?}");
    refused.must_say(&["did you mean Address"]);
    assert_eq!(fleet.call(&["settings", "fmt"], "").code, Some(3), "a file with errors stays as it is");
}

/// The settings of 60 vessels in four groups, all on one server.
fn sixty(fleet: &Fleet) -> String {
    let hub = fleet.vessel("hub");
    let (port, shore) = (hub.port(), fleet.path("shore").display().to_string());
    let (charts, temp) = (hub.remote("fleet"), hub.remote("temp"));
    format!(
        "Include = settings.d/*.ini

[DEFAULT]
Address = 127.0.0.1
Port = {port}
Username = root
Connections = 1
TempDir = {temp}/{{vessel}}

[Directory in]
Location = {shore}/in
RemoteLocation = {charts}/{{group}}/{{vessel}}/{{directory}}
SettleTime = 300ms

[Group north]
[Group south]
[Group coast]
[Group river]

[Vessel north{{01..15}}]
Groups = north
[Vessel south{{01..15}}]
Groups = south
[Vessel coast{{01..15}}]
Groups = coast
[Vessel river{{01..15}}]
Groups = river
"
    )
}

#[test]
fn sixty_vessels_of_thirty_lines_get_their_files_and_one_more_joins_by_a_file() {
    let Some(fleet) = Fleet::new().openssh("hub").start() else { return };
    fleet.vessel("hub").configure("MaxStartups 100\n");
    let text = sixty(&fleet);
    assert!(text.lines().count() <= 30, "{} lines", text.lines().count());
    fs::create_dir(fleet.path("settings.d")).unwrap();
    fleet.write_settings(&text);
    let daemon = fleet.run();
    fleet.put("chart", b"chart");
    let place = |group: &str, vessel: &str, name: &str| {
        fleet.vessel("hub").path("fleet").join(group).join(vessel).join("in").join(name)
    };
    let all: Vec<(&str, String)> = ["north", "south", "coast", "river"]
        .into_iter()
        .flat_map(|group| (1..=15).map(move |number| (group, format!("{group}{number:02}"))))
        .collect();
    let arrived = |name: &str| {
        all.iter()
            .filter(|(group, vessel)| fs::read(place(group, vessel, name)).is_ok_and(|held| held == b"chart"))
            .count()
    };
    wait_until("all sixty to have the chart", || arrived("chart") == 60);
    fleet.wait_until_retired("chart");

    // A tool drops a file, and one more vessel is served.
    fs::write(fleet.path("settings.d/late.ini"), "[Vessel late]\nGroups = coast\n").unwrap();
    daemon.reload();
    daemon.wait_for_log(&["Settings reloaded: added vessel late"]);
    fleet.put("second", b"chart");
    wait_until("all to have the second chart", || arrived("second") == 60 && place("coast", "late", "second").exists());
    fleet.wait_until_retired("second");

    let grouped = fleet.call(&["status", "--group", "coast"], "");
    grouped.must_say(&["late", "connected"]);
    assert!(grouped.says(&["coast01"]) && !grouped.says(&["north01"]), "{grouped:?}");
    let paused = fleet.call(&["pause", "--group", "river", "--note", "in the lock"], "");
    assert_eq!((paused.code, paused.stdout.lines().count()), (Some(0), 15), "{paused:?}");
    fleet.call(&["status", "--vessel", "river07"], "").must_say(&["river07", "in the lock"]);
    fleet.put("third", b"chart");
    wait_until("all but the paused to have the third chart", || arrived("third") == 45);
    let queue = fleet.call(&["queue", "in"], "");
    assert_eq!(queue.stdout.lines().filter(|line| line.contains("in/third")).count(), 15, "{queue:?}");
    assert_eq!(fleet.call(&["resume", "--group", "river"], "").code, Some(0));
    wait_until("all to have the third chart", || arrived("third") == 60);
    let unknown = fleet.call(&["pause", "--group", "rvier"], "");
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    unknown.must_say(&["did you mean river?"]);
    daemon.terminate();
}

#[test]
fn a_pause_ends_by_itself_at_its_time_also_across_a_restart() {
    let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
    let daemon = fleet.run();
    fleet.put("first", b"1");
    fleet.wait_until_retired("first");
    fleet.call(&["pause", "tern", "--until", "3s", "--note", "short"], "").must_say(&["tern is paused", "until"]);
    fleet.put("second", b"2");
    fleet.call(&["status"], "").must_say(&["tern", "short", "resumes in"]);
    fleet.call(&["why", "in/second"], "");
    fleet.wait_until_retired("second");
    assert!(daemon.logged(&["pause has ended", "tern"]).is_some());
    fleet.call(&["pause", "tern", "--until", "2s"], "");
    daemon.terminate();
    let daemon = fleet.run();
    fleet.put("third", b"3");
    fleet.wait_until_retired("third");
    daemon.terminate();
    let past = fleet.call(&["pause", "tern", "--until", "2020-01-01"], "");
    assert_eq!(past.code, Some(2), "{past:?}");
    past.must_say(&["has passed"]);
}

#[test]
fn the_host_keys_of_a_group_are_trusted_at_once_and_known_ones_are_skipped() {
    let plan = Fleet::new().openssh("a").unknown().key("Groups", "g").openssh("b").unknown().key("Groups", "g");
    let Some(fleet) = plan.openssh("c").start() else { return };
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&format!("{text}[Group g]\nTimeout = 9s\n"));
    fleet.vessel("b").stop();
    let some = fleet.call(&["trust", "--group", "g", "--yes"], "");
    assert_eq!(some.code, Some(5), "b can't be reached: {some:?}");
    some.must_say(&["host key recorded"]);
    fleet.vessel("b").start();
    let new = fleet.call(&["trust", "--new", "--yes"], "");
    assert_eq!(new.code, Some(0), "{new:?}");
    new.must_say(&["2 host keys known already"]);
    assert_eq!(new.stdout.matches("host key recorded").count(), 1, "{new:?}");
    let all = fleet.call(&["trust", "--all", "--yes"], "");
    assert_eq!(all.stdout.matches("already trusted").count(), 3, "{all:?}");
    assert_eq!(fleet.call(&["trust"], "").code, Some(2));
}
