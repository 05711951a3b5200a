//! Errors and warnings of the settings, word for word.

use super::*;

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
    settings.ini:3: [DEFAULT] Colour: unknown key; [DEFAULT] accepts only keys of the other sections
    settings.ini:4: [Monster] unknown section; did you mean [MONSTER]?
    settings.ini:5: [Vesel x] unknown section; did you mean [Vessel x]?
    settings.ini:6: [Server x] unknown section; known are [MONSTER], [Directory x], [Vessel y], [Link z], [Group w] and [DEFAULT]
    settings.ini:7: [Directory] the section has no name; write a name after the kind of section, such as [Vessel backup]
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
    settings.ini:5: [Directory again] Location: is also the Location of [Directory d]; choose another Location for one of them, or merge the two sections; only mirrors may share a Location
    "###);
}

#[test]
fn what_is_unwise_is_a_warning() {
    let text = "[Directory d]\nLocation = /srv/d\n[Directory next]\nLocation = /srv/d/processed\n\
                [Vessel v]\nAddress = v\nIgnoreDirs = d\nPassword = hunter2\n";
    let environment = Environment { settings_mode: Some(0o100_644), ..environment() };
    let settings = Settings::parse(text, Path::new("/etc/c m/settings.ini"), &environment).unwrap();
    insta::assert_snapshot!(settings.warnings.join("\n"), @r###"
    /etc/c m/settings.ini:1: [Directory d] no vessel receives this directory, so its files stay where they are; add the directory to a vessel's Dirs, remove it from a vessel's IgnoreDirs, or remove this section
    /etc/c m/settings.ini:3: [Directory next] Location: is the processed/ of [Directory d]: this directory also delivers the files that [Directory d] has delivered; choose another Location if that is not intended
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
    settings.ini:17: [Vessel d d] Address: the vessel's name `d d` is not a valid host name, but is looked up in known_hosts, because the address is a socket; write `HostKeyAlias = …` or `HostKey = …`
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
fn an_unknown_link_is_answered_with_the_nearest() {
    let text = with("Address.vsatt = v.example\n[Link vsat]\n[Vessel w]\nAddress.lte = w.example\n");
    insta::assert_snapshot!(errors(&text), @r"
    settings.ini:5: [Vessel v] Address.vsatt: there is no [Link vsatt]; did you mean Address.vsat?
    settings.ini:8: [Vessel w] Address.lte: there is no [Link lte]; add a section [Link lte]
    ");
}
