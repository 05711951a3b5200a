//! Compares the handling of `known_hosts` with the real `ssh-keygen`.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Duration;

use russh::keys::ssh_key::known_hosts::HostPatterns;
use tempfile::TempDir;

use super::*;

/// A temporary directory with keys and `known_hosts` files made by the real `ssh-keygen`.
struct Desk {
    directory: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn keygen(&self, arguments: &[&str]) -> Output {
        Command::new("ssh-keygen").args(arguments).current_dir(self.directory.path()).output().unwrap()
    }

    fn keygen_ok(&self, arguments: &[&str]) {
        let output = self.keygen(arguments);
        assert!(output.status.success(), "ssh-keygen {arguments:?}: {output:?}");
    }

    fn key(&self, name: &str, kind: &str) -> PublicKey {
        self.keygen_ok(&["-q", "-t", kind, "-N", "", "-C", "a comment", "-f", name]);
        PublicKey::read_openssh_file(self.path(&format!("{name}.pub"))).unwrap()
    }

    fn known_hosts(&self, text: impl AsRef<[u8]>) -> KnownHosts {
        fs::write(self.path("known_hosts"), text).unwrap();
        KnownHosts::read(&[self.path("known_hosts")])
    }

    /// Returns the lines that `ssh-keygen -F` finds for a name.
    fn found_by_keygen(&self, name: &str) -> BTreeSet<usize> {
        let output = self.keygen(&["-F", name, "-f", "known_hosts"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let line = |text: &str| text.split("found: line ").nth(1)?.split_whitespace().next()?.parse().ok();
        text.lines().filter_map(line).collect()
    }

    fn changed(&self, line: usize) -> Verdict {
        Verdict::Changed { file: self.path("known_hosts"), line }
    }

    fn revoked(&self, line: usize) -> Verdict {
        Verdict::Revoked { file: self.path("known_hosts"), line }
    }
}

/// Returns a public key in the format of a `known_hosts` line, without a comment.
fn text(key: &PublicKey) -> String {
    PublicKey::from(key.key_data().clone()).to_openssh().unwrap()
}

const PATTERNS: &[&str] = &[
    "h",
    "host.example.com",
    "HOST.Example.com",
    "*",
    "?",
    "*.example.com",
    "*.example.*",
    "h*t.*e*.c?m",
    "host.example.com,!host.example.com",
    "*.example.com,!host.example.com",
    "!host.example.com,*",
    "!*",
    "!nobody",
    "[host.example.com]:2222",
    "[*.example.com]:2222",
    "[*]:*",
    "[host.example.com]:22",
    "*:2222",
    "other,host.example.com,127.0.0.1",
    "127.0.0.1",
    "127.0.0.?",
    "::1",
    "[::1]:2222",
    "fe80::1%lo",
    "host.example.com.",
    "ho",
    "**",
    "*?",
    "host.example.com*",
];

const HOSTS: &[&str] =
    &["h", "host.example.com", "a.b.example.com", "127.0.0.1", "::1", "fe80::1%lo", "nobody", "other"];

fn lines_for(known: &KnownHosts, host: &str, port: u16) -> BTreeSet<usize> {
    let name = &names(host, port)[0];
    known.entries.iter().filter(|line| line.concerns(name)).map(|line| line.number).collect()
}

fn assert_finds_what_keygen_finds(desk: &Desk, known: &KnownHosts) {
    assert_eq!(known.warnings, Vec::<String>::new());
    for host in HOSTS {
        for port in [22, 2222, 22222] {
            let theirs = desk.found_by_keygen(&names(host, port)[0]);
            assert_eq!(lines_for(known, host, port), theirs, "{host} port {port}");
        }
    }
}

#[test]
fn every_pattern_matches_what_ssh_keygen_matches() {
    let desk = Desk::new();
    let key = text(&desk.key("k", "ed25519"));
    let known = desk.known_hosts(PATTERNS.iter().map(|p| format!("{p} {key}\n")).collect::<String>());
    assert_eq!(known.entries.len(), PATTERNS.len());
    assert_finds_what_keygen_finds(&desk, &known);
}

#[test]
fn hashed_names_match_what_ssh_keygen_matches() {
    let desk = Desk::new();
    let key = text(&desk.key("k", "ed25519"));
    let plain = "h\nhost.example.com\n[host.example.com]:2222\n[::1]:22222\n127.0.0.1\n";
    desk.known_hosts(plain.lines().map(|name| format!("{name} {key}\n")).collect::<String>());
    desk.keygen_ok(&["-q", "-H", "-f", "known_hosts"]);
    let known = KnownHosts::read(&[desk.path("known_hosts")]);
    assert!(known.entries.iter().all(|line| matches!(line.entry.host_patterns(), HostPatterns::HashedName { .. })));
    assert_finds_what_keygen_finds(&desk, &known);
    assert_eq!(lines_for(&known, "HOST.example.COM", 2222), BTreeSet::from([3]));
}

#[test]
fn a_key_is_known_changed_or_unknown() {
    let desk = Desk::new();
    let (ours, theirs) = (desk.key("ours", "ed25519"), desk.key("theirs", "ed25519"));
    let rsa = desk.key("rsa", "rsa");
    let known = desk.known_hosts(format!("# a comment\n\nhost {}\nhost {}\n", text(&rsa), text(&ours)));
    assert_eq!(known.check("host", 22, &ours), Verdict::Known, "the comment on a key doesn't matter");
    assert_eq!(known.check("HOST", 22, &rsa), Verdict::Known);
    assert_eq!(known.check("host", 22, &theirs), desk.changed(4), "the line of the same type is named");
    assert_eq!(known.check("host", 22, &desk.key("ec", "ecdsa")), desk.changed(3), "another type does not help");
    assert_eq!(known.check("elsewhere", 22, &ours), Verdict::Unknown);
    assert_eq!(known.key_types("host", 22), vec![rsa.algorithm(), Algorithm::Ed25519]);
    assert_eq!(known.key_types("elsewhere", 22), vec![]);
}

#[test]
fn any_of_two_keys_of_one_type_is_known() {
    let desk = Desk::new();
    let (one, two) = (desk.key("one", "ed25519"), desk.key("two", "ed25519"));
    let known = desk.known_hosts(format!("host {}\nhost {}\n", text(&one), text(&two)));
    assert_eq!(known.check("host", 22, &one), Verdict::Known);
    assert_eq!(known.check("host", 22, &two), Verdict::Known);
    assert_eq!(known.key_types("host", 22), vec![Algorithm::Ed25519]);
}

#[test]
fn another_port_falls_back_to_the_plain_name_for_a_match_only() {
    let desk = Desk::new();
    let (ours, theirs) = (desk.key("ours", "ed25519"), desk.key("theirs", "ed25519"));
    let known = desk.known_hosts(format!("host {}\n[host]:2223 {}\n", text(&ours), text(&theirs)));
    assert_eq!(known.check("host", 2222, &ours), Verdict::Known);
    assert_eq!(known.check("host", 2222, &theirs), Verdict::Unknown, "port 22 may have another key");
    assert_eq!(known.check("host", 2223, &ours), desk.changed(2), "what is known of the port comes first");
    assert_eq!(known.check("host", 22, &theirs), desk.changed(1));
    assert_eq!(known.key_types("host", 2222), vec![Algorithm::Ed25519]);
}

#[test]
fn a_revoked_key_is_refused_whatever_else_stands_there() {
    let desk = Desk::new();
    let (bad, good) = (desk.key("bad", "ed25519"), desk.key("good", "ed25519"));
    let (b, g) = (text(&bad), text(&good));
    let known = desk.known_hosts(format!("host {b}\n@revoked * {b}\nhost {g}\n[port]:2222 {b}\n@revoked plain {b}\n"));
    assert_eq!(known.check("host", 22, &bad), desk.revoked(2));
    assert_eq!(known.check("host", 22, &good), Verdict::Known);
    assert_eq!(known.check("port", 2222, &bad), desk.revoked(2));

    let known = desk.known_hosts(format!("[plain]:2222 {b}\n@revoked plain {b}\n"));
    assert_eq!(known.check("plain", 2222, &bad), desk.revoked(2), "on every port");
    assert_eq!(known.check("elsewhere", 22, &bad), Verdict::Unknown);
}

#[test]
fn tabs_line_ends_and_latin_1_comments_are_read() {
    let desk = Desk::new();
    let key = desk.key("k", "ed25519");
    let k = text(&key).replace(' ', "\t");
    let mut lines = format!("  tab\t\t{k}\r\n@revoked\t gone \t{k}\nlatin {k} caf").into_bytes();
    lines.extend(b"\xe9 # and more\nlast ");
    lines.extend(text(&key).into_bytes());
    let known = desk.known_hosts(lines);
    assert_eq!(known.warnings, Vec::<String>::new());
    for host in ["tab", "latin", "last"] {
        assert_eq!(known.check(host, 22, &key), Verdict::Known, "{host}");
    }
    assert_eq!(known.check("gone", 22, &key), desk.revoked(2));
}

#[test]
fn broken_lines_and_unreadable_files_are_skipped_and_named() {
    let desk = Desk::new();
    let key = desk.key("k", "ed25519");
    let good = format!("host {}", text(&key));
    fs::create_dir(desk.path("folder")).unwrap();
    fs::write(
        desk.path("some"),
        format!("host ssh-ed25519 AAAA!\n{good}\nhost\n@mystery {good}\nhost 1024 35 4711\n|1|short {good}\n"),
    )
    .unwrap();
    let known = KnownHosts::read(&[desk.path("none"), desk.path("folder"), desk.path("some")]);
    assert_eq!(known.check("host", 22, &key), Verdict::Known);
    let starts: Vec<String> = [1, 3, 4, 5, 6].map(|n| format!("{}:{n}: ", desk.path("some").display())).into();
    assert!(known.warnings[0].starts_with(&format!("{}: can't be read", desk.path("folder").display())));
    assert_eq!(known.warnings.len(), 6, "{:?}", known.warnings);
    assert!(known.warnings[1..].iter().zip(starts).all(|(w, start)| w.starts_with(&start)), "{:?}", known.warnings);
}

#[test]
fn what_is_appended_is_what_ssh_keygen_finds() {
    let desk = Desk::new();
    let (one, two) = (desk.key("one", "ed25519"), desk.key("two", "rsa"));
    let file = desk.path("home/.ssh/known_hosts");
    append(&file, "Host.Example.com", 22, &one).unwrap();
    append(&file, "host.example.com", 2222, &two).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let expected = format!("host.example.com {}\n[host.example.com]:2222 {}\n", text(&one), text(&two));
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    fs::copy(&file, desk.path("known_hosts")).unwrap();
    assert_eq!(desk.found_by_keygen("[host.example.com]:2222"), BTreeSet::from([2]));
    assert_eq!(KnownHosts::read(&[file]).check("host.example.com", 2222, &two), Verdict::Known);
}

#[test]
fn appending_ends_an_unfinished_line_first() {
    let desk = Desk::new();
    let key = desk.key("k", "ed25519");
    fs::write(desk.path("known_hosts"), format!("a {}", text(&key))).unwrap();
    append(&desk.path("known_hosts"), "b", 22, &key).unwrap();
    let known = KnownHosts::read(&[desk.path("known_hosts")]);
    assert_eq!((known.entries.len(), known.warnings.len()), (2, 0));
}

#[test]
fn a_name_that_would_forge_a_line_is_not_appended() {
    let desk = Desk::new();
    let key = desk.key("k", "ed25519");
    for host in ["", "a b", "a,b", "*", "a\nb", "!a", "@revoked", "|1|x", "#a", "[a]:22"] {
        let error = append(&desk.path("known_hosts"), host, 22, &key).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{host:?}");
    }
    assert!(!desk.path("known_hosts").exists());
}

#[test]
fn the_fingerprint_is_the_one_ssh_keygen_shows() {
    let desk = Desk::new();
    let key = desk.key("k", "ecdsa");
    let shown = String::from_utf8(desk.keygen(&["-l", "-f", "k.pub"]).stdout).unwrap();
    assert_eq!(shown.split(' ').nth(1), Some(fingerprint(&key).as_str()));
}

/// Creates a host certificate for the key in the file `key`, signed by the key in the file `ca`, with further options
/// of `ssh-keygen`.
fn certify(desk: &Desk, ca: &str, key: &str, more: &[&str]) -> Certificate {
    let public = format!("{key}.pub");
    desk.keygen_ok(&[&["-q", "-s", ca, "-I", "a host"], more, &[public.as_str()]].concat());
    Certificate::read_file(&desk.path(&format!("{key}-cert.pub"))).unwrap()
}

const HOST: &[&str] = &["-h", "-V", "-1d:+1w", "-n", "host.example.com,*.lan"];

#[test]
fn a_certificate_of_a_trusted_ca_makes_a_key_known() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let desk = Desk::new();
        let ca = text(&desk.key("ca", kind));
        desk.key("k", "ed25519");
        let certificate = certify(&desk, "ca", "k", HOST);
        let known = desk.known_hosts(format!("@cert-authority *.example.com,*.lan,[*.lan]:2222 {ca}\n"));
        let now = SystemTime::now();
        assert_eq!(known.check_certificate("Host.example.com", 22, &certificate, now), Verdict::Known, "{kind}");
        assert_eq!(known.check_certificate("nas.lan", 2222, &certificate, now), Verdict::Known, "{kind}");
        assert_eq!(known.check_certificate("nas.lan", 2223, &certificate, now), Verdict::Known, "plain fallback");
        assert!(known.trusts_a_ca_for("any.lan", 22) && !known.trusts_a_ca_for("host.net", 22));
        let bare = PublicKey::from(certificate.public_key().clone());
        assert_eq!(known.check("host.example.com", 22, &bare), Verdict::Unknown, "a CA knows no bare key");
        assert_eq!(known.key_types("host.example.com", 22), vec![]);
    }
}

#[test]
fn a_certificate_that_falls_short_is_refused_with_the_reason() {
    let desk = Desk::new();
    let ca = text(&desk.key("ca", "ed25519"));
    desk.key("k", "ed25519");
    desk.key("rsa-ca", "rsa");
    let rsa_ca = fs::read_to_string(desk.path("rsa-ca.pub")).unwrap();
    let known = desk.known_hosts(format!("@cert-authority * {ca}\n@cert-authority * {rsa_ca}"));
    let now = SystemTime::now();
    let week = Duration::from_secs(7 * 24 * 3600 + 60);
    let cases: &[(&str, &[&str], SystemTime, &str)] = &[
        ("ca", HOST, now + week, "expired"),
        ("ca", HOST, now - week, "not valid yet"),
        ("ca", &["-n", "host.example.com"], now, "user's certificate"),
        ("ca", &["-h", "-n", "another"], now, "the certificate is for \"another\", not for host.example.com"),
        ("ca", &["-h"], now, "no host at all"),
        ("ca", &["-h", "-n", "host.example.com", "-O", "critical:x=y"], now, "critical option"),
        ("rsa-ca", &["-t", "ssh-rsa", "-h", "-n", "host.example.com"], now, "no longer safe"),
    ];
    for (authority, options, at, expected) in cases {
        let certificate = certify(&desk, authority, "k", options);
        match known.check_certificate("host.example.com", 22, &certificate, *at) {
            Verdict::Refused { reason } => assert!(reason.contains(expected), "{reason:?} instead of {expected:?}"),
            verdict => panic!("{verdict:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn a_forged_certificate_is_refused() {
    let desk = Desk::new();
    let ca = text(&desk.key("ca", "ed25519"));
    desk.key("k", "ed25519");
    let genuine = certify(&desk, "ca", "k", &["-h", "-n", "host.example.com"]).to_bytes().unwrap();
    let at = genuine.windows(9).position(|bytes| bytes == b"host.exam").unwrap();
    let mut forged = genuine.clone();
    forged[at..at + 4].copy_from_slice(b"evil");
    let known = desk.known_hosts(format!("@cert-authority * {ca}\n"));
    let forged = Certificate::from_bytes(&forged).unwrap();
    let verdict = known.check_certificate("evil.example.com", 22, &forged, SystemTime::now());
    assert_eq!(verdict, Verdict::Refused { reason: "the certificate's signature is invalid".into() });
}

#[test]
fn a_revoked_ca_or_key_spoils_a_certificate() {
    let desk = Desk::new();
    let (ca, key) = (text(&desk.key("ca", "ed25519")), text(&desk.key("k", "ed25519")));
    let certificate = certify(&desk, "ca", "k", HOST);
    for revoked in [&ca, &key] {
        let known = desk.known_hosts(format!("@cert-authority * {ca}\n@revoked * {revoked}\n"));
        assert_eq!(known.check_certificate("host.example.com", 22, &certificate, SystemTime::now()), desk.revoked(2));
    }
}

#[test]
fn a_certificate_without_a_trusted_ca_is_judged_by_the_key_inside() {
    let desk = Desk::new();
    desk.key("ca", "ed25519");
    let (key, other) = (desk.key("k", "ed25519"), desk.key("other", "ed25519"));
    let certificate = certify(&desk, "ca", "k", HOST);
    let judge = |known: KnownHosts| known.check_certificate("host.example.com", 22, &certificate, SystemTime::now());
    assert_eq!(judge(desk.known_hosts("")), Verdict::Unknown);
    assert_eq!(judge(desk.known_hosts(format!("host.example.com {}\n", text(&key)))), Verdict::Known);
    assert_eq!(judge(desk.known_hosts(format!("host.example.com {}\n", text(&other)))), desk.changed(1));
}
