//! The settings file from outside: its errors word for word, the example, the original's sample, and its secrets.

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
fn every_bad_value_of_a_link_is_named() {
    let text = "[DEFAULT]
RateLimit = 1 MiB
[MONSTER]
[Directory d]
Location = /srv/d
RateLimit = 1 MiB/s
[Vessel a]
Address = a
Connections = 9
CongestionControl = BBR
Compression = zlib
Assembly = dog
RateLimit = 1000/s
[Vessel b]
Address = b
RateLimit = 8:00-8:00 1 MiB/s
[Vessel c]
Address = c
RateLimit = 1 MiB/s, 2 MiB/s
[Vessel d]
Address = d
RateLimit =
[Vessel e]
Address = e
RateLimit = 08:00-18:00
";
    insta::assert_snapshot!(errors(text), @r###"
    settings.ini:2: [DEFAULT] RateLimit: invalid rate `1 MiB`; expected 1 KiB/s to 1 TiB/s, such as 10 MiB/s or 8 Mbit/s, or none
    settings.ini:6: [Directory d] RateLimit: does not belong here; it is a key of [MONSTER] and [Vessel y] and [Link z]
    settings.ini:9: [Vessel a] Connections: invalid value `9`; expected auto, or a number from 1 to 8
    settings.ini:10: [Vessel a] CongestionControl: invalid value `BBR`; expected auto, system, or a name that `sysctl net.ipv4.tcp_available_congestion_control` shows, such as bbr
    settings.ini:11: [Vessel a] Compression: invalid value `zlib`; expected no, yes or auto
    settings.ini:12: [Vessel a] Assembly: invalid value `dog`; expected cat or direct
    settings.ini:13: [Vessel a] RateLimit: invalid rate `1000/s`; expected 1 KiB/s to 1 TiB/s, such as 10 MiB/s or 8 Mbit/s, or none
    settings.ini:16: [Vessel b] RateLimit: invalid time span `8:00-8:00`; expected two times of day with a `-` and no spaces between them, such as 08:00-18:00 or 22:00-06:00
    settings.ini:19: [Vessel c] RateLimit: `2 MiB/s` is a second rate without a time of day; put a time before it, such as 08:00-18:00, or keep one of the two
    settings.ini:22: [Vessel d] RateLimit: empty; give a value or remove the line; a value that starts with # or ; goes in double quotes
    settings.ini:25: [Vessel e] RateLimit: no rate follows `08:00-18:00`; write one, such as `08:00-18:00 2 MiB/s`
    "###);
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
    let telling = &settings.monster.telling;
    assert_eq!(
        telling.webhooks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["https://example.com", "http://localhost:8080"]
    );
    assert_eq!(telling.webhook_secret.as_ref().unwrap().expose_secret(), "open sesame");
    assert_eq!((telling.heartbeat_interval, telling.hook_timeout), (Duration::from_secs(60), Duration::from_secs(60)));
    assert_eq!((settings.monster.min_free, settings.warnings.len()), (64 << 20, 0));
}

#[test]
fn every_bad_value_of_telling_and_keeping_is_named() {
    let text = "[MONSTER]
OnDelivered = told 'half
OnParked =
HookTimeout = 0
Webhook = https://ann:hunter2@example.com/
Heartbeat = example.com
KeepProcessed = sometimes
KeepHistory = 0
MinFree = enough
[Directory d]
Location = /srv/d
Webhook = https://example.com/
OnRetired = ~bob/told
[Vessel v]
Address = v.example
";
    insta::assert_snapshot!(errors(text), @r###"
    settings.ini:2: [MONSTER] OnDelivered: a quote is not closed; write a program and its arguments, quoted as for a shell; no shell is used
    settings.ini:3: [MONSTER] OnParked: empty; give a value or remove the line; a value that starts with # or ; goes in double quotes
    settings.ini:4: [MONSTER] HookTimeout: invalid value `0`; expected a duration from 1s to 1d
    settings.ini:5: [MONSTER] Webhook: the address contains a user or a password; put a token into the path instead
    settings.ini:6: [MONSTER] Heartbeat: invalid web address: relative URL without a base; expected one such as https://example.com/hook
    settings.ini:7: [MONSTER] KeepProcessed: invalid value `sometimes`; expected forever, no, or a duration from 1s to 36500d
    settings.ini:8: [MONSTER] KeepHistory: invalid value `0`; expected forever, or a duration from 1s to 36500d
    settings.ini:9: [MONSTER] MinFree: invalid value `enough`; expected a size such as 64 MiB
    settings.ini:12: [Directory d] Webhook: does not belong here; it is a key of [MONSTER]
    settings.ini:13: [Directory d] OnRetired: `~bob/told` starts with a `~` that is not followed by `/`; write another user's path in full, or ./~ for a file of that name
    "###);
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
fn every_malformed_line_is_named_and_swallows_nothing() {
    let text = "Stray = 1
[MONSTER]
ChunkSize 10485760
Password hunter2
hunter2
= hunter2
Database = \"a\" b
[Directory d
Location = /in/a/refused/section
[] # nothing
[Directory d] Location = /srv/d
[Directory d]
Location: /srv/d
Location = \"/srv/d
Location = /srv/d\u{1b}[2J
Password:hunter2 = x
RemoteLocation=/a:b=c
[Vessel v]
Address = v
[Directory  d]
[Vessel v]
Address = other
";
    insta::assert_snapshot!(errors(text), @r###"
    settings.ini:1: Stray: set before the first section; move it below [MONSTER], [Directory x], [Vessel y], [Link z] or [DEFAULT]
    settings.ini:3: [MONSTER] ChunkSize: the line has no `=`; a line is `Key = value`, a `[Section]`, or a comment after # or ;
    settings.ini:4: [MONSTER] Password: the line has no `=`; a line is `Key = value`, a `[Section]`, or a comment after # or ;
    settings.ini:5: [MONSTER] the line has no `=`; a line is `Key = value`, a `[Section]`, or a comment after # or ;
    settings.ini:6: [MONSTER] the line has no key before its `=`; a line is `Key = value`, a `[Section]`, or a comment after # or ;
    settings.ini:7: [MONSTER] Database: unexpected text after the closing `"`; put the whole value in quotes; a `"` inside it is written `""`
    settings.ini:8: the section's `]` is missing; write [Directory x] or [Vessel y]
    settings.ini:10: the section has no title; write [Directory x] or [Vessel y]
    settings.ini:11: unexpected text after the section's `]`; put the keys on lines of their own
    settings.ini:13: [Directory d] Location: the line has no `=`; a line is `Key = value`, a `[Section]`, or a comment after # or ;
    settings.ini:14: [Directory d] Location: the closing `"` is missing; a `"` inside a value in quotes is written `""`
    settings.ini:15: [Directory d] Location: the line contains a control character; remove it
    settings.ini:16: [Directory d] Password: does not belong here; it is a key of [Vessel y]
    settings.ini:20: [Directory d] this section is already on line 12; merge the two sections
    settings.ini:21: [Vessel v] this section is already on line 18; merge the two sections
    "###);
}

#[test]
fn every_unknown_name_is_answered_with_the_nearest() {
    let text = "[DEFAULT]
Tiemout = 5
Colour = blue
[Monster]
[Vesel x]
[Server x]
[Directory]
[Directory a,b]
[Vessel x]
Prot = 22
port = 22
adress = x
SettleTime = 2s
Password hunter2 = 1
Password: hunter2 = 1
Colour = blue
IgnoreDirs = documnts, music
RemoteLocation.documnts = /srv
RemoteLocation. = /srv
[Directory documents]
Location = /srv/documents
RemoteLocation.documents = /srv
";
    insta::assert_snapshot!(errors(text), @r###"
    settings.ini:2: [DEFAULT] Tiemout: unknown key; did you mean Timeout?
    settings.ini:3: [DEFAULT] Colour: unknown key; [DEFAULT] takes the keys of all sections, and no others
    settings.ini:4: [Monster] unknown section; did you mean [MONSTER]?
    settings.ini:5: [Vesel x] unknown section; did you mean [Vessel x]?
    settings.ini:6: [Server x] unknown section; known are [MONSTER], [Directory x], [Vessel y], [Link z], [Group w] and [DEFAULT]
    settings.ini:7: [Directory] the section has no name; write one after the word, such as [Vessel backup]
    settings.ini:8: [Directory a,b] the name contains a comma; choose a name without one
    settings.ini:9: [Vessel x] Address: missing; write `Address = …`, host name, IP address, a host of the ssh config, or unix: and a path; several, separated by commas
    settings.ini:10: [Vessel x] Prot: unknown key; did you mean Port?
    settings.ini:11: [Vessel x] port: unknown key; did you mean Port?
    settings.ini:12: [Vessel x] adress: unknown key; did you mean Address?
    settings.ini:13: [Vessel x] SettleTime: does not belong here; it is a key of [Directory x]
    settings.ini:14: [Vessel x] Password: unexpected text between the key and the `=`; write `Password = value`
    settings.ini:15: [Vessel x] Password: unexpected text between the key and the `=`; write `Password = value`
    settings.ini:16: [Vessel x] Colour: unknown key; known here: Address, Address.x, Transport, MountPoint, Port, Username, SSHConfig, ProxyJump, Password, PasswordFile, IdentityFile, CertificateFile, Passphrase, PassphraseFile, HostKey, HostKeyAlias, HostKeyPolicy, Groups, TempDir, Timeout, AwayAfter, ReconnectWait, Connections, CongestionControl, Compression, RateLimit, Budget, BudgetReserve, Together, Assembly, Shell, SmallFiles, Verify, Schedule, Schedule.tz, ScheduleExempt, Dirs, IgnoreDirs, RemoteLocation.x
    settings.ini:17: [Vessel x] IgnoreDirs: there is no [Directory documnts]; did you mean documents?
    settings.ini:17: [Vessel x] IgnoreDirs: there is no [Directory music]; name a configured directory
    settings.ini:18: [Vessel x] RemoteLocation.documnts: there is no [Directory documnts]; did you mean documents?
    settings.ini:19: [Vessel x] RemoteLocation.: the name of the directory is missing; write it after `RemoteLocation.`
    settings.ini:22: [Directory documents] RemoteLocation.documents: does not belong here; it is a key of [Vessel y]
    "###);
}

#[test]
fn every_bad_value_is_named_with_its_range() {
    let text = "[DEFAULT]
Timeout = 2h
[MONSTER]
ChunkSize = 1 KiB
Database =
[Directory a]
Location = ~bob/in
RemoteLocation = ~/in
SettleTime = soon
RescanInterval = 2 d
IgnoreNames = *.tmp, [
[Directory b]
[Vessel a]
Address = ann:hunter2@host
Port = 65536
Username =
Password =
HostKey = MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48
HostKeyPolicy = yes
TempDir = ~
Port = 22
[Vessel b]
Address = [::1]:22
Port = 22
Password = hunter2
PasswordFile = hunter2.txt
Passphrase =
RemoteLocation.a =
[Vessel c]
Address = under score/path
PassphraseFile = missing.txt
ChunkSize = 1 GiB
";
    insta::assert_snapshot!(errors(text), @r###"
    settings.ini:2: [DEFAULT] Timeout: invalid value `2h`; expected a duration from 1s to 1h
    settings.ini:4: [MONSTER] ChunkSize: invalid value `1 KiB`; expected a size from 64 KiB to 1 GiB
    settings.ini:5: [MONSTER] Database: empty; give a value or remove the line; a value that starts with # or ; goes in double quotes
    settings.ini:7: [Directory a] Location: `~bob/in` starts with a `~` that is not followed by `/`; write another user's path in full, or ./~ for a file of that name
    settings.ini:8: [Directory a] RemoteLocation: `~/in`: SFTP does not expand `~`; a relative path starts at the login directory: write `in`
    settings.ini:9: [Directory a] SettleTime: invalid value `soon`; expected a duration from 10ms to 1d
    settings.ini:10: [Directory a] RescanInterval: invalid value `2 d`; expected a duration from 1s to 1d
    settings.ini:11: [Directory a] IgnoreNames: invalid glob `[`: unclosed character class; missing ']'; expected one such as `*.tmp` or `.*.sw?`
    settings.ini:12: [Directory b] Location: missing; write `Location = …`, a path
    settings.ini:14: [Vessel a] Address: the address contains an `@`; write the host alone, and the user as Username
    settings.ini:15: [Vessel a] Port: invalid port `65536`; expected a number from 1 to 65535
    settings.ini:16: [Vessel a] Username: empty; give a value or remove the line; a value that starts with # or ; goes in double quotes
    settings.ini:17: [Vessel a] Password: empty; give a value or remove the line; a value that starts with # or ; goes in double quotes
    settings.ini:18: [Vessel a] HostKey: invalid SHA256 fingerprint `MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48`; expected SHA256: and 43 characters, as `ssh-keygen -lf FILE` shows them for the host's key
    settings.ini:19: [Vessel a] HostKeyPolicy: invalid value `yes`; expected strict or accept-new
    settings.ini:20: [Vessel a] TempDir: `~`: SFTP does not expand `~`; a relative path starts at the login directory: write `.`
    settings.ini:21: [Vessel a] Port: already set on line 15; keep one of the two
    settings.ini:24: [Vessel b] Port: the port is already part of Address; keep one of the two
    settings.ini:26: [Vessel b] PasswordFile: Password is already set on line 25; keep one of the two
    settings.ini:27: [Vessel b] Passphrase: empty; give a value or remove the line; a value that starts with # or ; goes in double quotes
    settings.ini:28: [Vessel b] RemoteLocation.a: empty; give a value or remove the line; a value that starts with # or ; goes in double quotes
    settings.ini:30: [Vessel c] Address: invalid host name or IP address `under score/path`; expected one such as example.com, 192.0.2.7 or ::1
    settings.ini:31: [Vessel c] PassphraseFile: cannot read missing.txt: No such file or directory (os error 2); name a file that contentmonster may read
    settings.ini:32: [Vessel c] ChunkSize: does not belong here; it is a key of [MONSTER]
    "###);
}

#[test]
fn bounds_are_inclusive_and_named() {
    for (least, most) in [("1s", "60m"), ("1", "3600s")] {
        assert!(parse(&with(&format!("Timeout = {least}\n[MONSTER]\nChunkSize = 65536\n"))).is_ok(), "{least}");
        assert!(parse(&with(&format!("Timeout = {most}\n[MONSTER]\nChunkSize = 1024 MiB\n"))).is_ok(), "{most}");
    }
    insta::assert_snapshot!(errors(&with("Timeout = 3601\nReconnectWait = 999ms\n[MONSTER]\nChunkSize = 65535")), @r"
    settings.ini:5: [Vessel v] Timeout: invalid value `3601`; expected a duration from 1s to 1h
    settings.ini:6: [Vessel v] ReconnectWait: invalid value `999ms`; expected a duration from 1s to 1d
    settings.ini:8: [MONSTER] ChunkSize: invalid value `65535`; expected a size from 64 KiB to 1 GiB
    ");
}

#[test]
fn an_empty_file_lacks_directories_and_vessels() {
    insta::assert_snapshot!(errors(""), @r###"
    settings.ini: there is no directory to replicate; add a section [Directory x] with its Location
    settings.ini: there is no vessel to replicate to; add a section [Vessel y] with its Address
    "###);
}

#[test]
fn what_sections_do_to_each_other_is_refused() {
    let text = with(
        "[Directory again]
Location = /srv/./d/
RemoteLocation = /elsewhere
",
    );
    insta::assert_snapshot!(errors(&text), @r###"
    settings.ini:5: [Directory again] Location: is also the Location of [Directory d]; choose another Location for one of them, or merge the two sections; only mirrors may share one
    "###);
}

#[test]
fn what_is_unwise_is_a_warning() {
    let text = "[Directory d]\nLocation = /srv/d\n[Directory next]\nLocation = /srv/d/processed\n\
                [Vessel v]\nAddress = v\nIgnoreDirs = d\nPassword = hunter2\n";
    let environment = Environment { settings_mode: Some(0o100_644), ..environment() };
    let settings = Settings::parse(text, Path::new("/etc/c m/settings.ini"), &environment).unwrap();
    insta::assert_snapshot!(settings.warnings.join("\n"), @r###"
    /etc/c m/settings.ini:1: [Directory d] no vessel takes this directory: its files stay where they are; add the directory to a vessel's Dirs, remove it from a vessel's IgnoreDirs, or remove this section
    /etc/c m/settings.ini:3: [Directory next] Location: is the processed/ of [Directory d]; files delivered there are sent on from here; choose another Location if that is not intended
    /etc/c m/settings.ini:8: [Vessel v] Password: other users can read this secret (mode 0644); run: chmod 600 '/etc/c m/settings.ini'
    "###);
}

#[test]
fn who_runs_it_is_asked_for_when_unknown() {
    let nobody = Environment::default();
    let error = Settings::parse(&with(""), Path::new("settings.ini"), &nobody).unwrap_err();
    insta::assert_snapshot!(error, @r###"
    settings.ini:3: [Vessel v] Username: missing, and the current user is unknown; write `Username = …`
    "###);
    assert!(Settings::parse(&with("Username = bob"), Path::new("settings.ini"), &nobody).is_ok());
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
fn secrets_come_from_files_and_credentials() {
    let (beside, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret_file = |directory: &Path, name: &str, text: &str, mode| {
        fs::write(directory.join(name), text).unwrap();
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    secret_file(beside.path(), "a.txt", "from file\r\nsecond line\n", 0o600);
    secret_file(beside.path(), "open.txt", "everybody's", 0o644);
    secret_file(credentials.path(), "shared", "from credential\n", 0o640);
    secret_file(credentials.path(), "d.password", "d's own credential\n", 0o640);
    secret_file(credentials.path(), "d.passphrase", "d's passphrase", 0o640);
    secret_file(credentials.path(), "a.ssh.password", "not taken: a has a key", 0o640);
    let text = "[Directory x]\nLocation = /x\n\
                [Vessel a]\nAddress = a\nPasswordFile = a.txt\n[Vessel b]\nAddress = b\nPasswordFile = open.txt\n\
                [Vessel c]\nAddress = c\nPasswordFile = shared\n[Vessel d]\nAddress = d\n[Vessel e]\nAddress = e\n";
    let environment = Environment { credentials: Some(credentials.path().to_owned()), ..environment() };
    let settings = Settings::parse(text, &beside.path().join("settings.ini"), &environment).unwrap();
    let passwords: Vec<_> =
        settings.vessels.iter().map(|v| v.ssh.password.as_ref().map(|p| p.expose_secret())).collect();
    let expected = [Some("from file"), Some("everybody's"), Some("from credential"), Some("d's own credential"), None];
    assert_eq!(passwords, expected);
    assert_eq!(settings.vessels[3].ssh.passphrase.as_ref().unwrap().expose_secret(), "d's passphrase");
    let [warning] = settings.warnings.as_slice() else { panic!("{:?}", settings.warnings) };
    assert!(
        warning.contains(":8: [Vessel b] PasswordFile: other users can read this secret (mode 0644); run: chmod 600 ")
    );
}

#[test]
fn a_secret_file_that_gives_no_secret_is_refused() {
    let beside = tempfile::tempdir().unwrap();
    fs::write(beside.path().join("empty"), "\nhunter2").unwrap();
    fs::write(beside.path().join("latin1"), b"hunter2\xe9").unwrap();
    for (name, reason) in
        [("empty", "is empty"), ("latin1", "not UTF-8"), ("missing", "No such file"), (".", "directory")]
    {
        let text = with(&format!("PasswordFile = {name}"));
        let error = Settings::parse(&text, &beside.path().join("settings.ini"), &environment()).unwrap_err();
        let shown = error.to_string();
        assert_eq!(error.problems.len(), 1, "{shown}");
        assert!(shown.contains(reason) && !shown.contains("hunter2"), "{shown}");
    }
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

#[test]
fn load_warns_of_a_secret_that_others_can_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("settings.ini");
    fs::write(&file, with("Username = bob\nPassword = hunter2\n")).unwrap();
    for (mode, warnings) in [(0o600, 0), (0o640, 1), (0o604, 1)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let settings = Settings::load(&file).unwrap();
        assert_eq!(settings.warnings.len(), warnings, "{mode:o}: {:?}", settings.warnings);
        assert_eq!(settings.file, file);
    }
}

/// A secret that no word of ours contains.
fn secret() -> impl Strategy<Value = String> {
    "[!-~]{0,8}Qq7[ -~]{0,8}Zz9[!-~]{0,8}"
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text: String, lines in prop::collection::vec(line(), 0..30)) {
        let _ = parse(&text);
        let _ = parse(&lines.join("\n"));
    }

    #[test]
    fn a_secret_is_never_shown(secret in secret(), shape in prop::sample::select(vec![
        "Password = {}", "Passphrase = {}", "Password={}", "Password = \"{}", "Password = {}\nPassword = {}", "Password {}",
        "Password:{}", "Password = {}\nPasswordFile = x", "Password = \u{1}{}", "Port = 0\nPassword = {}",
    ])) {
        let result = parse(&with(&shape.replace("{}", &secret)));
        let shown = match &result {
            Ok(settings) => format!("{settings:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains("Qq7") && !shown.contains("Zz9"), "{shown}");
    }

    #[test]
    fn a_secret_in_quotes_arrives_as_it_is(secret in "[^\\p{Cc}]{1,40}") {
        let settings = parse(&with(&format!("Password = \"{}\"", secret.replace('"', "\"\"")))).unwrap();
        prop_assert_eq!(settings.vessels[0].ssh.password.as_ref().unwrap().expose_secret(), secret);
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
fn bad_combinations_of_ways_and_budgets_are_refused_with_a_remedy() {
    let text = "[MONSTER]
[Directory d]
Location = /srv/d
[Link lte]
Budget = 5 MB/day
[Link vsat]
Preference = -1
Cost = much
[Vessel a]
Address.lte = a.example
Address.vsatt = a.example
[Vessel b]
Address = b.example, b.example
[Vessel c]
Address = unix:run/c.sock
[Vessel d d]
Address = unix:/run/d.sock
[Vessel e]
Address = unix:/run/e.sock
ProxyJump = gate
[Vessel f]
Address.lte = f.example
Budget = 1 MB/day
[Vessel g]
Address = localhost
Transport = local
RemoteLocation.d = /mnt/g
Address.lte = g.example
[Vessel h]
Address = h.example:2222
Address.lte = h.example:2222
Port = 22
";
    insta::assert_snapshot!(errors(text), @r"
    settings.ini:5: [Link lte] Budget: the budget of 5 MB/day is less than one chunk of 10485760 bytes (ChunkSize); raise the budget, or make ChunkSize in [MONSTER] smaller
    settings.ini:7: [Link vsat] Preference: invalid value `-1`; expected a number from 0 to 1000
    settings.ini:8: [Link vsat] Cost: invalid cost `much`; expected a price per amount of data, such as 0.25 EUR/MB, 12/GB, or 0
    settings.ini:13: [Vessel b] Address: the address `b.example` is there twice; keep one of the two
    settings.ini:15: [Vessel c] Address: invalid socket `unix:run/c.sock`; expected an absolute path, such as unix:/run/contentmonster/vessel.sock
    settings.ini:17: [Vessel d d] Address: the name `d d` cannot stand in known_hosts for the vessel behind this socket; write `HostKeyAlias = …`, or HostKey
    settings.ini:20: [Vessel e] ProxyJump: has no effect on a socket of this host, through which the vessel dials in; remove the line
    settings.ini:23: [Vessel f] Budget: the budget of 1 MB/day is less than one chunk of 10485760 bytes (ChunkSize); raise the budget, or make ChunkSize in [MONSTER] smaller
    settings.ini:28: [Vessel g] Address.lte: has no effect with Transport = local, which uses no SSH; remove the line
    settings.ini:32: [Vessel h] Port: the port is already part of Address; keep one of the two
    ");
}

#[test]
fn a_link_without_a_vessel_is_a_warning_and_an_unfinished_one_is_not() {
    let text = with("[Link unused]\nCost = 1 EUR/MB\n[Link empty]\n");
    let warnings = parse(&text).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("[Link unused] no vessel uses this link"), "{warnings:?}");
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

#[test]
fn an_unknown_link_is_answered_with_the_nearest() {
    let text = with("Address.vsatt = v.example\n[Link vsat]\n[Vessel w]\nAddress.lte = w.example\n");
    insta::assert_snapshot!(errors(&text), @r"
    settings.ini:5: [Vessel v] Address.vsatt: there is no [Link vsatt]; did you mean Address.vsat?
    settings.ini:8: [Vessel w] Address.lte: there is no [Link lte]; add a section [Link lte]
    ");
}
