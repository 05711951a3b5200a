//! The settings file from outside: its errors word for word, the example, the original's sample, and its secrets.

mod errors;
mod secrets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contentmonster::names::{DirectoryName, RemotePath};
use contentmonster::settings::{
    Assembly, Compression, CongestionControl, Connections, EXAMPLE, Environment, HostKeyPolicy, KeepProcessed, Preset,
    RateSchedule, SectionKind, Settings, SettingsError, known_keys,
};
use proptest::prelude::*;
use secrecy::ExposeSecret;

const FILE: &str = "/etc/cm/settings.ini";

fn environment() -> Environment {
    Environment { user: Some("ann".into()), home: Some("/home/ann".into()), ..Environment::default() }
}

fn parse(text: &str) -> Result<Settings, SettingsError> {
    Settings::parse(text, Path::new(FILE), &environment())
}

/// The problems as a person reads them, without the directory of the file.
fn errors(text: &str) -> String {
    parse(text).expect_err("the settings are broken").to_string().replace("/etc/cm/", "")
}

/// A sound file with room for more.
fn with(more: &str) -> String {
    format!("[Directory d]\nLocation = /srv/d\n[Vessel v]\nAddress = v.example\n{more}")
}

/// What a commented or active line of the example sets, if it sets something.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.strip_prefix("# ").unwrap_or(line).split_once('=')?;
    let key = key.trim();
    let named = |known: &str| {
        key == known || known.strip_suffix('x').is_some_and(|it| it.ends_with('.') && key.starts_with(it))
    };
    known_keys().iter().any(|known| named(known.name)).then_some((key, value.trim()))
}

#[test]
fn the_example_is_valid() {
    let settings = parse(EXAMPLE).unwrap();
    assert_eq!(settings.warnings, Vec::<String>::new());
    assert_eq!(settings.monster.chunk_size, 10 << 20);
    assert_eq!(settings.monster.database.file(), Some(Path::new("/etc/cm/database.sqlite3")));
    assert_eq!(settings.directories[0].settle_time, Duration::from_secs(2));
    assert_eq!(settings.directories[0].rescan_interval, Duration::from_secs(60));
    assert!(settings.directories[0].ignore_names.is_match(".notes.swp"));
    let vessel = &settings.vessels[0];
    assert_eq!((vessel.ssh.port, vessel.timeout, vessel.ssh.username.as_str()), (22, Duration::from_secs(10), "ann"));
    assert_eq!(vessel.ssh.host_key_policy, HostKeyPolicy::Strict);
    assert_eq!((vessel.connections, vessel.assembly), (Connections::Auto, Assembly::Cat));
    assert_eq!((&vessel.congestion_control, vessel.compression), (&CongestionControl::Auto, Compression::No));
    assert_eq!([&settings.monster.rate_limit, &vessel.rate_limit], [&RateSchedule::default(); 2]);
}

#[test]
fn what_is_set_of_a_link_arrives_typed() {
    let text = with(
        "Connections = 3\nCongestionControl = reno\nCompression = yes\nAssembly = direct # all at once\n\
                     RateLimit = 08:00-18:00 2 MiB/s, 10 MiB/s\n[MONSTER]\nRateLimit = 100 Mbit/s\n",
    );
    let settings = parse(&text).unwrap();
    let vessel = &settings.vessels[0];
    assert_eq!((vessel.connections, vessel.assembly), (Connections::Fixed(3), Assembly::Direct));
    assert_eq!(vessel.congestion_control, CongestionControl::Named("reno".into()));
    assert_eq!(vessel.compression, Compression::Yes);
    let noon = 12 * 60;
    assert_eq!((vessel.rate_limit.at(noon), vessel.rate_limit.at(0)), (Some(2 << 20), Some(10 << 20)));
    assert_eq!(settings.monster.rate_limit.at(noon), Some(12_500_000));
}

#[test]
fn who_is_told_and_what_is_kept_arrives_typed_and_a_directory_goes_before_the_rest() {
    let text = "[MONSTER]
OnDelivered = logger -t 'a b' $HOME
OnParked = hooks/parked.sh
KeepProcessed = 30d
KeepHistory = 90d
Webhook = https://example.com/a, http://localhost:8080/b
WebhookSecret = open sesame
Heartbeat = https://example.com/ping
[Directory plain]
Location = /srv/plain
[Directory other]
Location = /srv/other
OnDelivered = none
KeepProcessed = no
[Vessel v]
Address = v.example
";
    let settings = parse(text).unwrap();
    let [plain, other] = &settings.directories[..] else { panic!("there are two") };
    assert_eq!(plain.hooks.on_delivered, ["logger", "-t", "a b", "$HOME"]);
    assert_eq!(plain.hooks.on_parked, ["/etc/cm/hooks/parked.sh"]);
    assert_eq!((&other.hooks.on_delivered, &other.hooks.on_parked), (&Vec::new(), &plain.hooks.on_parked));
    let month = KeepProcessed::For(Duration::from_secs(30 * 86400));
    assert_eq!((plain.keep_processed, other.keep_processed), (month, KeepProcessed::No));
    assert_eq!(settings.monster.keep_history, Some(Duration::from_secs(90 * 86400)));
    let recipients = &settings.monster.notifications;
    assert_eq!(
        recipients.webhooks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["https://example.com", "http://localhost:8080"]
    );
    assert_eq!(recipients.webhook_secret.as_ref().unwrap().expose_secret(), "open sesame");
    assert_eq!(
        (recipients.heartbeat_interval, recipients.hook_timeout),
        (Duration::from_secs(60), Duration::from_secs(60))
    );
    assert_eq!((settings.monster.min_free, settings.warnings.len()), (64 << 20, 0));
}

#[test]
fn the_example_names_every_key_with_its_default() {
    let mut section = None;
    let mut named = Vec::new();
    for line in EXAMPLE.lines() {
        match line.trim_start_matches('[').split([' ', ']']).next() {
            Some("DEFAULT") if line.starts_with('[') => section = None,
            Some("MONSTER") if line.starts_with('[') => section = Some(SectionKind::Monster),
            Some("Directory") if line.starts_with('[') => section = Some(SectionKind::Directory),
            Some("Vessel") if line.starts_with('[') => section = Some(SectionKind::Vessel),
            Some("Link") if line.starts_with('[') => section = Some(SectionKind::Link),
            _ => named.extend(section.zip(setting(line)).map(|found| (found, line.starts_with('#')))),
        }
    }
    for key in known_keys() {
        let name =
            key.name.replace("RemoteLocation.x", "RemoteLocation.sampledir").replace("Address.x", "Address.samplelink");
        let found = named.iter().find(|((section, (k, _)), _)| *section == key.section && *k == name);
        let ((_, (_, value)), commented) = found.unwrap_or_else(|| panic!("settings.example.ini lacks {}", key.name));
        assert_eq!(*commented, key.preset != Preset::Required, "{}", key.name);
        if let Preset::Value(default) = key.preset {
            assert_eq!(*value, default, "{}", key.name);
        }
    }
}

#[test]
fn the_example_stays_valid_with_every_key_active() {
    let active = |line: &str| match setting(line) {
        Some((key, _))
            // A secret is given as text or in a file, not both.
            if !matches!(
                key,
                "PasswordFile" | "PassphraseFile" | "ListenTokenFile" | "WebhookSecretFile" | "DatabasePasswordFile"
            ) =>
        {
            line.trim_start_matches("# ").to_owned()
        }
        _ => line.to_owned(),
    };
    let text: Vec<String> = EXAMPLE.lines().map(active).collect();
    let settings = parse(&text.join("\n")).unwrap();
    let vessel = &settings.vessels[0];
    assert_eq!(vessel.ssh.password.as_ref().unwrap().expose_secret(), "verysecret");
    assert_eq!(vessel.ssh.identity_files, [PathBuf::from("/home/ann/.ssh/id_ed25519")]);
    assert_eq!(vessel.remote_location(&settings.directories[0]), &RemotePath::new("/srv/replication"));
}

#[test]
fn what_a_file_sets_is_listed_with_the_defaults_and_without_secrets() {
    let text = "[DEFAULT]\nUsername = bob\n[MONSTER]\nWebhook = https://a.example/T0K3N\n[Directory d]\nLocation = /srv/d\n\
                Include = *.pdf\n[Vessel v]\nAddress = v\nTimeout = 30s\nPassword = hunter2\nRemoteLocation.d = /in\n";
    insta::assert_snapshot!(parse(text).unwrap().listing.join("\n"), @r"
    [DEFAULT] Username = bob
    [MONSTER] Webhook = (not shown) (default: none)
    [Directory d] Location = /srv/d
    [Directory d] Include = *.pdf (default: nothing)
    [Vessel v] Address = v
    [Vessel v] Timeout = 30s (default: 10s)
    [Vessel v] Password = (not shown) (default: none, login with a key)
    [Vessel v] RemoteLocation.d = /in (default: the RemoteLocation of the directory)
    ");
}

#[test]
fn the_originals_file_works_unchanged() {
    let settings = parse(
        "[MONSTER]
ChunkSize = 10485760  # Size of individual chunks in bytes (default: 10 MiB)
Database = database.sqlite3  # Database file

[Directory sampledir]  # Each directory needs a unique name - here: \"sampledir\"
Location = /home/user/replication  # Required: File system location of the directory

[Vessel samplevessel]  # Each vessel needs a unique name - here: \"samplevessel\"
Address = example.com  # Required: Hostname / IP address of the vessel
TempDir = /tmp/.ContentMonster/  # Temporary directory for uploaded chunks - needs to be writable
Username = replication  # Username to authenticate as on the vessel (default: same as user running it)
Password = very\\secret%=:'#;  # Password to use to authenticate on the vessel (default: none, use SSH key)
Passphrase = moresecret  # Passphrase of the SSH key you use to authenticate (default: none)
Port = 22  # Port of the SSH server on the vessel (default: 22)
Timeout = 10  # Seconds
IgnoreDirs = sampledir, anotherdir  # Names of directories *not* to replicate to this vessel, separated by commas

[Vessel second]
Address = second.example.com
",
    )
    .unwrap();
    // The original's sample ignores a directory that it doesn't have.
    assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
    assert!(settings.warnings[0].contains("there is no [Directory anotherdir]"));
    assert_eq!(settings.monster.chunk_size, 10 << 20);
    let directory = &settings.directories[0];
    assert_eq!(directory.location, Path::new("/home/user/replication"));
    assert_eq!(directory.remote_location, RemotePath::new("/home/user/replication"));
    let vessel = &settings.vessels[0];
    assert_eq!((vessel.ssh.address.as_str(), vessel.ssh.username.as_str()), ("example.com", "replication"));
    assert_eq!(vessel.temp_dir, RemotePath::new("/tmp/.ContentMonster"));
    assert_eq!(vessel.ssh.password.as_ref().unwrap().expose_secret(), "very\\secret%=:'#;");
    assert_eq!(vessel.ssh.passphrase.as_ref().unwrap().expose_secret(), "moresecret");
    assert!(!vessel.takes(&DirectoryName::new("sampledir")) && !vessel.takes(&DirectoryName::new("anotherdir")));
    assert_eq!(settings.vessels_of(&directory.name), [settings.vessels[1].name.clone()]);
}

#[test]
fn default_supplies_what_a_section_leaves_out() {
    let text = "[DEFAULT]\nUsername = bob\nPort = 2200\nSettleTime = 1m\nPasswordFile = /not/asked/for\nRemoteLocation.d = /all\n\
                [Directory d]\nLocation = d\n\
                [Vessel a]\nAddress = a\nPassword = own\n\
                [Vessel b]\nAddress = [::1]:22\nPassword = own\nUsername = carl\nRemoteLocation.d = in/d\n";
    let settings = parse(text).unwrap();
    let (d, a, b) = (&settings.directories[0], &settings.vessels[0], &settings.vessels[1]);
    assert_eq!((d.settle_time, d.location.as_path()), (Duration::from_secs(60), Path::new("/etc/cm/d")));
    assert_eq!((a.ssh.username.as_str(), a.ssh.port), ("bob", 2200));
    assert_eq!((b.ssh.username.as_str(), b.ssh.address.as_str(), b.ssh.port), ("carl", "::1", 22));
    assert_eq!(a.remote_location(d), &RemotePath::new("/all"));
    assert_eq!(b.remote_location(d), &RemotePath::new("in/d"));
    assert_eq!(a.ssh.password.as_ref().unwrap().expose_secret(), "own");
}

#[test]
fn a_directory_name_may_hold_blanks_and_dots() {
    let text = "[Directory my v1.2 files]\nLocation = /srv/d\n[Vessel v]\nAddress = v\nRemoteLocation.my v1.2 files = /x # there\n";
    let settings = parse(text).unwrap();
    assert_eq!(settings.vessels[0].remote_location(&settings.directories[0]), &RemotePath::new("/x"));
}

#[test]
fn a_bom_and_windows_line_ends_change_nothing() {
    let plain = with("Password = \"a # b\"  ; comment\n");
    let windows = format!("\u{feff}{}", plain.replace('\n', "\r\n"));
    assert_eq!(format!("{:?}", parse(&plain).unwrap()), format!("{:?}", parse(&windows).unwrap()));
    assert_eq!(parse(&windows).unwrap().vessels[0].ssh.password.as_ref().unwrap().expose_secret(), "a # b");
}

#[test]
fn load_names_what_keeps_it_from_reading() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("settings.ini");
    let missing = Settings::load(&file).unwrap_err().to_string();
    assert!(missing.ends_with("--settings FILE, or write one with `contentmonster init`"), "{missing}");
    fs::write(&file, b"[MONSTER]\n# caf\xe9\n").unwrap();
    let latin1 = Settings::load(&file).unwrap_err().to_string();
    assert!(latin1.ends_with("settings.ini:2: this line is not UTF-8 text; save the file as UTF-8"), "{latin1}");
    assert!(Settings::load(directory.path()).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text: String, lines in prop::collection::vec(line(), 0..30)) {
        let _ = parse(&text);
        let _ = parse(&lines.join("\n"));
    }
}

/// Lines that look like settings.
fn line() -> impl Strategy<Value = String> {
    let keys: Vec<&str> = known_keys().iter().map(|key| key.name).collect();
    prop_oneof![
        prop::sample::select(vec!["[MONSTER]", "[DEFAULT]", "[Directory x]", "[Vessel x]", "[Vessel", "[Directory y]"])
            .prop_map(str::to_owned),
        (prop::sample::select(keys), "[ =:]{0,3}", "[ -~é]{0,20}")
            .prop_map(|(key, mark, value)| key.to_owned() + &mark + &value),
        any::<String>(),
    ]
}

#[test]
fn ways_are_in_the_order_in_which_they_are_preferred() {
    let text = "[Directory d]
Location = /srv/d
[Link a]
Cost = 5 EUR/MB
[Link b]
Cost = 1 EUR/MB
[Link c]
Preference = 1
Cost = 9 EUR/MB
[Vessel v]
Address = plain.example, other.example
Address.a = over-a.example
Address.b = over-b.example
Address.c = over-c.example
";
    let settings = parse(text).unwrap();
    let names: Vec<String> = settings.vessels[0].ways.iter().map(contentmonster::settings::Way::name).collect();
    assert_eq!(names, ["c", "plain.example:22", "other.example:22", "b", "a"]);
    let known = settings.vessels[0].ways.iter().map(|way| way.ssh.known_name());
    assert!(known.into_iter().all(|name| name == ("plain.example".to_owned(), 22)));
    assert_eq!(settings.vessels[0].ssh.address, "over-c.example");
}
