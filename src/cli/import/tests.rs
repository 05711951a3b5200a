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
        text.contains("# Poni simulated (simulate: true) copying these directories to this vessel: usual; to copy them, add them to Dirs\n"),
        "{text}"
    );
    let all = translate(&CONFIGURATION.replace("simulate: false", "simulate: true"), "config.yml").unwrap();
    assert_eq!(section(&all, "MONSTER"), ["Simulate = yes", "LogFile = /var/log/poni.log"]);
    assert!(section(&all, "Vessel north").contains(&"Dirs = usual, config.json".into()), "{all}");
}

/// The examples of Poni's README, each with lines that its settings must contain.
#[test]
fn every_example_of_ponis_readme_is_imported() {
    let first = "sync:\n  \"sync dir1 to nycweb1\":               ## unique name\n    source_path: /opt/dir1\n    \
                 remote_host: nycweb1\n    remote_path: /opt\n    remote_user: jsmith\n    priv_key: \
                 /home/jsmith/.ssh/id_rsa\n    port: 1122\n    rsync_opts: azBP                    ## more flags\n    \
                 interval: 15\n    recurse: true\n    simulate: true\n\n  \"sync syslog to web9\":\n    source_path: \
                 /var/log/syslog\n    remote_host: web9\n    remote_path: /mnt/backup/logs/host123\n    remote_user: \
                 root\n    priv_key: /root/.ssh/id_rsa\n";
    let defaults = "defaults:\n  source_path: /my/default/source/path\n  remote_host: default-host-name\n  remote_user: \
                    default-user-name\n  remote_path: /default/path/on/remote/host\n  priv_key: default-ssh-key\n  \
                    interval: 3\n  rsync_opts: aVZPs\n\nsync:\n  \"sync default path to default target path\": []  # all \
                    defaults\n\n  \"sync default path except for Interval\":\n    interval: 30\n";
    let one_source = "sync:\n  \"sync to web1 - JOE\":\n    source_path: /my/local/file\n    remote_path: /home/joe/\n    \
                      remote_host: web1\n    interval: 30\n\n  \"sync to web1 - MARY\":\n    source_path: \
                      /my/local/file\n    remote_path: /home/mary\n    remote_host: web1\n    interval: 30\n    simulate: \
                      false\n";
    let log =
        |text: &str| format!("{text}\nsync:\n  a:\n    source_path: /a\n    remote_host: h\n    remote_path: /b\n");
    let file = log("log:\n  destination: /var/log/poni.log\n  level: warning\n");
    let screen = log("log:\n  destination: stdout\n  level: INFO\n");
    let old = log("log: /var/log/poni.log");
    for (example, expected) in [
        (first, &["Simulate = yes", "Port = 1122", "Interval = 15s", "Interval = 10s", "its code waits 10"][..]),
        (defaults, &["Interval = 3s", "Interval = 30s", "Username = default-user-name", "prints its version"]),
        (one_source, &["RemoteLocation.file = /home/joe/file", "RemoteLocation.file-2 = /home/mary/file"]),
        (&file, &["LogFile = /var/log/poni.log\nLogLevel = warn\n", "documents `simulate: true`"]),
        (&screen, &["[MONSTER]\nSimulate = yes\nLogLevel = info\n"]),
        (&old, &["LogFile = /var/log/poni.log\n"]),
    ] {
        let text = translate(example, "config.yml").unwrap_or_else(|why| panic!("{why:?}\n{example}"));
        expected.iter().for_each(|line| assert!(text.contains(line), "no {line}\nin\n{text}\nfrom\n{example}"));
    }
    for (wrong, why) in [
        (log("log:\n  level: loud\n"), "invalid level: `loud`; expected debug, info, warning or error"),
        (log("log:\n  destintion: x\n"), "did you mean destination?"),
        (log("log: [1]\n"), "invalid log; expected a word"),
    ] {
        let complaints = translate(&wrong, "config.yml").unwrap_err();
        assert!(complaints.iter().any(|one| one.what.contains(why)), "{complaints:?}");
    }
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
        (5, "invalid port: `many`; expected a number from 1 to 65535"),
        (6, "invalid recurse: `maybe`; expected true or false"),
        (7, "expected a mapping of keys to values"),
        (8, "unknown key \"colour\" at the top level; known here: log"),
    ] {
        let found = said.iter().any(|said| said.starts_with(&format!("{line}: ")) && said.contains(what));
        assert!(found, "{line} {what}: {said:#?}");
    }
    assert_eq!(translate("a: [", "config.yml").unwrap_err()[0].line, 2);
    assert!(translate("", "config.yml").is_err());
}
