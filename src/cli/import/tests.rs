use super::translate;
use crate::settings::known_keys;

const CONFIGURATION: &str = r#"---
log_path: /var/log/poni.log

defaults:
  source_path: /srv/usual
  remote_host: north
  remote_path: /tmp
  remote_user: bob
  priv_key: /home/bob/.ssh/id_rsa
  rsync_opts: azP
  interval: 3
  simulate: "true"

sync:
  "everything usual": []

  "a directory as it is":
    source_path: /srv/charts
    remote_path: /opt
    remote_user: jane
    interval: 15
    recurse: true
    simulate: false

  "only what is in it":
    source_path: /srv/charts/
    remote_host: south
    remote_path: data//charts/
    rsync_opts: rtuL
    simulate: false
    port: 2222

  "a file, one":
    source_path: /etc/app/config.json
    remote_path: /backup
    simulate: false

  "a file, two":
    source_path: /etc/app/config.json
    remote_host: south
    remote_path: /backup # in another place
    simulate: false

  /srv/older:
    delete_on_remote: true
    rsync_opts: azBP
    remote_host: localhost
    remote_path: /mnt/disk
"#;

fn imported() -> String {
    translate(CONFIGURATION, "config.yml").unwrap()
}

/// Returns the lines of a section, without comments.
#[track_caller]
fn section(text: &str, title: &str) -> Vec<String> {
    let from = text.split_once(&format!("[{title}]\n")).unwrap_or_else(|| panic!("no [{title}] in\n{text}")).1;
    let lines = from.lines().take_while(|line| !line.starts_with('['));
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn a_slash_at_the_end_of_a_source_means_what_is_in_it() {
    let text = imported();
    let north = section(&text, "Vessel north-2");
    assert!(north.contains(&"RemoteLocation.charts = /opt/charts".into()), "{text}");
    let south = section(&text, "Vessel south");
    assert!(south.contains(&"RemoteLocation.charts-2 = /data/charts".into()), "{text}");
    assert_eq!(
        section(&text, "Directory charts-2"),
        [
            "Location = /srv/charts",
            "Mode = mirror",
            "Recursive = yes",
            "Links = follow",
            "Interval = 3s",
            "IgnoreNames = none"
        ]
    );
}

#[test]
fn one_source_to_several_hosts_is_one_directory() {
    let text = imported();
    assert_eq!(text.matches("Location = /etc/app/config.json").count(), 1, "{text}");
    assert_eq!(text.matches("RemoteLocation.config.json = /backup/config.json").count(), 2, "{text}");
}

#[test]
fn defaults_fill_what_a_sync_leaves_out() {
    let text = imported();
    let usual = section(&text, "Directory usual");
    assert_eq!(usual[1..4], ["Mode = mirror", "Recursive = yes", "Links = copy"]);
    assert!(usual.contains(&"Owner = yes".into()), "{text}");
    let north = section(&text, "Vessel north");
    assert_eq!(
        north[..5],
        [
            "Address = north",
            "Username = bob",
            "TempDir = /tmp/.ContentMonster-bob",
            "IdentityFile = /home/bob/.ssh/id_rsa",
            "Compression = yes"
        ]
    );
    assert_eq!(section(&text, "MONSTER"), ["LogFile = /var/log/poni.log"]);
}

#[test]
fn what_is_not_carried_over_is_named() {
    let text = imported();
    assert!(text.contains("# rsync_opts rtuL: `u` is not imported"), "{text}");
    assert!(text.contains("# rsync_opts azBP: `BP` is not imported"), "{text}");
    assert!(text.contains("recurse: false. Poni sees only changes at the top level"), "{text}");
    assert!(section(&text, "Directory older").contains(&"Delete = yes".into()), "{text}");
}

#[test]
fn what_poni_only_simulates_goes_nowhere() {
    let text = imported();
    assert!(section(&text, "Vessel north").contains(&"Dirs = config.json".into()), "{text}");
    let nowhere = "IgnoreDirs = usual, charts, charts-2, config.json, older";
    assert!(section(&text, "Vessel localhost").contains(&nowhere.into()), "{text}");
    assert!(
        text.contains("# simulate: true, unlike other syncs; add to Dirs the directories to copy: usual\n"),
        "{text}"
    );
    let all = translate(&CONFIGURATION.replace("simulate: false", "simulate: true"), "config.yml").unwrap();
    assert_eq!(section(&all, "MONSTER"), ["Simulate = yes", "LogFile = /var/log/poni.log"]);
    assert!(section(&all, "Vessel north").contains(&"Dirs = usual, config.json".into()), "{all}");
}

#[test]
fn every_key_that_is_written_is_one_of_ours() {
    let text = imported();
    let keys = text.lines().filter(|line| !line.starts_with(['#', '['])).filter_map(|line| line.split_once(" = "));
    for (key, _) in keys {
        let name = if key.starts_with("RemoteLocation.") { "RemoteLocation.x" } else { key };
        assert!(known_keys().iter().any(|known| known.name == name), "{key}");
    }
}

#[test]
fn everything_wrong_is_named_with_its_line() {
    let wrong = "sync:\n  one:\n    source_path: in\n    rsync opts: az\n    port: many\n    recurse: maybe\n  two: 5\ncolour: red\n";
    let complaints = translate(wrong, "config.yml").unwrap_err();
    let said: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    for (line, what) in [
        (2, "no remote_host"),
        (2, "not absolute"),
        (4, "unknown key \"rsync opts\" in sync \"one\"; did you mean rsync_opts?"),
        (5, "port must be a number from 1 to 65535"),
        (6, "recurse must be true or false"),
        (7, "must be a mapping of keys to values"),
        (8, "unknown key \"colour\" at the top level; known here: log"),
    ] {
        let found = said.iter().any(|said| said.starts_with(&format!("{line}: ")) && said.contains(what));
        assert!(found, "{line} {what}: {said:#?}");
    }
    assert_eq!(translate("a: [", "config.yml").unwrap_err()[0].line, 2);
    assert!(translate("", "config.yml").is_err());
}
