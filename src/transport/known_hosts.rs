//! `known_hosts`: which host key belongs to which host, matched as OpenSSH's client does.
//!
//! Owns the reading, matching and appending of these files. Knows nothing of connections or settings: who asks passes
//! the files, the host, the port and the key. `ssh_key` parses a line; the matching is ours, as russh's own ignores
//! `@revoked`, wildcards and tabs, and gives up at the first broken line.
//!
//! The rules are those of OpenSSH 9.2 (`hostfile.c`, `sshconnect.c`, tried against the real `ssh`):
//!
//! - On port 22 a host's name is `host`, on any other `[host]:port`. Patterns are matched against this whole name, so
//!   `*` matches every port, and `*.example.com` port 22 only.
//! - Where no line knows `[host]:port`, the plain `host` lines are asked, and only a matching key there counts: another
//!   key on the plain name belongs to the server on port 22 and is no sign of a change.
//! - A key on a matching line that is not the server's makes the key *changed*, be it of another type or not. Or else
//!   whoever sits in between would only have to show a type that isn't on file.
//! - A certificate that can't be accepted falls back to the bare key inside it.
//!
//! Stricter than OpenSSH in three places: a key revoked for plain `host` is revoked for `[host]:port` too (`ssh` doesn't
//! look there once it knows the port, and forgets what it saw there with `StrictHostKeyChecking=accept-new`); a
//! certificate must name the host (an empty list of principals means "any host" to OpenSSH 9.2); and one signed with
//! SHA-1 or DSA is refused whatever `CASignatureAlgorithms` says.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};
use sha1::Sha1;

const DEFAULT_PORT: u16 = 22;

/// The lines of some `known_hosts` files, in their order.
#[derive(Clone, Debug, Default)]
pub struct KnownHosts {
    entries: Vec<Line>,
    /// What was skipped and why, as `file:line: what` or `file: what`, one message each.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
struct Line {
    file: Arc<Path>,
    number: usize,
    entry: Entry,
}

/// What the files say of a host key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The key is the host's, or a CA that is trusted for this host vouches for it.
    Known,
    /// No line knows this host.
    Unknown,
    /// The host is known by other keys only.
    Changed {
        /// The file that holds another key of this host.
        file: PathBuf,
        /// The line of that key, from 1; one with a key of the same type where there is one.
        line: usize,
    },
    /// The key, or the CA behind it, must never be accepted.
    Revoked {
        /// The file that revokes it.
        file: PathBuf,
        /// The revoking line, from 1.
        line: usize,
    },
    /// A trusted CA signed the certificate, but it isn't acceptable, and the key inside it isn't known either.
    Refused {
        /// What is wrong with it, as the end of a sentence: "it expired ...".
        reason: String,
    },
}

impl KnownHosts {
    /// Reads the files that exist. A missing file holds no entry; what can't be read is skipped and kept in `warnings`.
    pub fn read(files: &[PathBuf]) -> Self {
        let mut known = Self::default();
        for file in files {
            match fs::read(file) {
                Ok(text) => known.add_lines(file, &text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => known.warnings.push(format!("{}: can't be read: {error}", file.display())),
            }
        }
        known
    }

    /// Whether `key` is the key of `host` on `port`. Comments on keys don't matter.
    pub fn check(&self, host: &str, port: u16, key: &PublicKey) -> Verdict {
        let names = names(host, port);
        if let Some(line) = self.revocation(&names, key.key_data()) {
            return Verdict::Revoked { file: line.file.to_path_buf(), line: line.number };
        }
        let verdict = self.look_up(&names[0], key.key_data());
        let plain_name_knows = || names.get(1).is_some_and(|name| self.look_up(name, key.key_data()) == Verdict::Known);
        if verdict == Verdict::Unknown && plain_name_knows() { Verdict::Known } else { verdict }
    }

    /// Whether `certificate` makes its key the key of `host` on `port` at the time `now`.
    ///
    /// Where it doesn't, the verdict is that on the bare key inside it, or [`Verdict::Refused`] where that is unknown.
    pub fn check_certificate(&self, host: &str, port: u16, certificate: &Certificate, now: SystemTime) -> Verdict {
        let names = names(host, port);
        let authority = certificate.signature_key();
        if let Some(line) = self.revocation(&names, authority) {
            return Verdict::Revoked { file: line.file.to_path_buf(), line: line.number };
        }
        let bare = self.check(host, port, &PublicKey::from(certificate.public_key().clone()));
        if matches!(bare, Verdict::Revoked { .. }) || !self.authorities(&names).any(|key| key == authority) {
            return bare;
        }
        match (acceptable(certificate, host, now), bare) {
            (Ok(()), _) => Verdict::Known,
            (Err(reason), Verdict::Unknown) => Verdict::Refused { reason },
            (Err(_), bare) => bare,
        }
    }

    /// Whether a host certificate could be accepted, so that it is worth offering their algorithms.
    pub fn trusts_a_ca_for(&self, host: &str, port: u16) -> bool {
        self.authorities(&names(host, port)).next().is_some()
    }

    /// The types of the keys known for this host, in the files' order, each once. RSA is `Rsa { hash: None }`.
    ///
    /// A client that asks for these first is shown a key that it can compare.
    pub fn key_types(&self, host: &str, port: u16) -> Vec<Algorithm> {
        for name in names(host, port) {
            let mut types = Vec::new();
            for line in self.plain(&name) {
                let algorithm = line.entry.public_key().algorithm();
                if !types.contains(&algorithm) {
                    types.push(algorithm);
                }
            }
            if !types.is_empty() {
                return types;
            }
        }
        Vec::new()
    }

    fn add_lines(&mut self, file: &Path, text: &[u8]) {
        let shared: Arc<Path> = Arc::from(file);
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            match parse(line) {
                Ok(None) => {}
                Ok(Some(entry)) => self.entries.push(Line { file: shared.clone(), number, entry }),
                Err(what) => self.warnings.push(format!("{}:{number}: {what}", file.display())),
            }
        }
    }

    /// The lines for exactly this name that carry no marker.
    fn plain(&self, name: &str) -> impl Iterator<Item = &Line> {
        self.entries.iter().filter(move |line| line.entry.marker().is_none() && line.concerns(name))
    }

    fn marked(&self, marker: Marker, names: &[String]) -> impl Iterator<Item = &Line> {
        let concerns_one = |line: &Line| names.iter().any(|name| line.concerns(name));
        self.entries.iter().filter(move |line| line.entry.marker() == Some(&marker) && concerns_one(line))
    }

    fn revocation(&self, names: &[String], key: &KeyData) -> Option<&Line> {
        self.marked(Marker::Revoked, names).find(|line| line.key() == key)
    }

    fn authorities(&self, names: &[String]) -> impl Iterator<Item = &KeyData> {
        self.marked(Marker::CertAuthority, names).map(Line::key)
    }

    fn look_up(&self, name: &str, key: &KeyData) -> Verdict {
        let mut other: Option<&Line> = None;
        for line in self.plain(name) {
            if line.key() == key {
                return Verdict::Known;
            }
            let same_type = |line: &Line| line.key().algorithm() == key.algorithm();
            if other.is_none_or(|other| same_type(line) && !same_type(other)) {
                other = Some(line);
            }
        }
        match other {
            Some(line) => Verdict::Changed { file: line.file.to_path_buf(), line: line.number },
            None => Verdict::Unknown,
        }
    }
}

impl Line {
    fn key(&self) -> &KeyData {
        self.entry.public_key().key_data()
    }

    fn concerns(&self, name: &str) -> bool {
        match self.entry.host_patterns() {
            HostPatterns::Patterns(patterns) => matches_list(patterns, name),
            HostPatterns::HashedName { salt, hash } => hashed(salt, name).is_some_and(|ours| ours == hash[..]),
        }
    }
}

/// Adds a line for this key at the end of `file`, in one write; makes the directory (0700) and the file (0600) if missing.
///
/// # Errors
/// Where `host` can't stand in a line (blanks, commas, wildcards), and whatever the file system answers.
pub fn append(file: &Path, host: &str, port: u16, key: &PublicKey) -> io::Result<()> {
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || ",*?!|#@[]".contains(c)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no host name")));
    }
    if let Some(directory) = file.parent().filter(|path| path.as_os_str() != OsStr::new("")) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let bare = PublicKey::from(key.key_data().clone()).to_openssh().map_err(io::Error::other)?;
    let mut known_hosts = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file)?;
    let separator = if ends_in_a_line(&mut known_hosts)? { "" } else { "\n" };
    known_hosts.write_all(format!("{separator}{} {}\n", names(host, port)[0], bare.trim_end()).as_bytes())
}

/// The key's fingerprint as OpenSSH shows it: `SHA256:` and 43 characters.
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

fn ends_in_a_line(file: &mut fs::File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// What `host` on `port` is called in the files, the name to be looked up first in front.
fn names(host: &str, port: u16) -> Vec<String> {
    let host = host.to_ascii_lowercase();
    if port == DEFAULT_PORT { vec![host] } else { vec![format!("[{host}]:{port}"), host] }
}

/// Parses one line; `None` for an empty line and a comment.
///
/// `ssh_key` takes single spaces only, and would stumble over a comment that is no UTF-8: it gets the fields that count.
fn parse(line: &[u8]) -> Result<Option<Entry>, &'static str> {
    let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).peekable();
    let wanted = match fields.peek() {
        None => return Ok(None),
        Some(first) if first.starts_with(b"#") => return Ok(None),
        Some(first) if first.starts_with(b"@") => 4,
        Some(_) => 3,
    };
    let fields: Vec<&[u8]> = fields.take(wanted).collect();
    if fields.len() < wanted {
        return Err("the line is cut short, and is ignored");
    }
    let entry = str::from_utf8(&fields.join(&b' ')).ok().and_then(|line| line.parse().ok());
    entry.map(Some).ok_or("no host and key that can be read, the line is ignored")
}

/// OpenSSH's `match_pattern_list`: one pattern must match, and no negated one may. `name` is in lower case.
fn matches_list(patterns: &[String], name: &str) -> bool {
    let mut matched = false;
    for pattern in patterns {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern.as_str()),
        };
        if matches_pattern(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()) {
            if negated {
                return false;
            }
            matched = true;
        }
    }
    matched
}

/// `*` is any run of characters, `?` any one; all else, brackets too, stands for itself. Takes at most
/// pattern x name steps: on a mismatch only the last `*` is tried again.
fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut last_star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                last_star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match last_star {
                Some((star, from)) => {
                    last_star = Some((star, from + 1));
                    p = star + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// HMAC-SHA1 of the name, keyed by the salt. `None` only for a salt HMAC can't use, which there is none of.
fn hashed(salt: &[u8], name: &str) -> Option<[u8; 20]> {
    let mut mac = Hmac::<Sha1>::new_from_slice(salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.finalize().into_bytes().into())
}

/// Whether a certificate of a trusted CA may vouch for `host` now, or why not.
fn acceptable(certificate: &Certificate, host: &str, now: SystemTime) -> Result<(), String> {
    let host = host.to_ascii_lowercase();
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if certificate.cert_type() != CertType::Host {
        return Err("it is a user's certificate, not a host's".into());
    }
    if matches!(certificate.signature().algorithm(), Algorithm::Dsa | Algorithm::Rsa { hash: None }) {
        return Err("its CA signed it with an algorithm that is no longer safe".into());
    }
    if !certificate.valid_principals().iter().any(|name| {
        let pattern = name.to_ascii_lowercase();
        matches_pattern(pattern.as_bytes(), host.as_bytes())
    }) {
        return Err(format!("it is for {}, not for {host}", listed(certificate.valid_principals())));
    }
    if let Some((option, _)) = certificate.critical_options().iter().next() {
        return Err(format!("it carries the critical option {option:?}, which no host certificate may"));
    }
    if now < certificate.valid_after() {
        return Err("it is not valid yet; is the clock right?".into());
    }
    if now >= certificate.valid_before() {
        return Err("it has expired; is the clock right?".into());
    }
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    certificate.validate_at(now, [&authority]).map_err(|_| "its signature is wrong".into())
}

fn listed(principals: &[String]) -> String {
    if principals.is_empty() { "no host at all".into() } else { format!("{:?}", principals.join(", ")) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Output};
    use std::time::Duration;

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

        /// The lines that `ssh-keygen -F` finds for a name.
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

    /// A key as it stands in a line, without a comment.
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
    fn a_pattern_full_of_stars_is_matched_in_no_time() {
        let name = "a".repeat(5000);
        assert!(!matches_pattern(format!("{}b", "a*".repeat(200)).as_bytes(), name.as_bytes()));
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
        assert_eq!(known.check("host", 22, &desk.key("ec", "ecdsa")), desk.changed(3), "another type is no excuse");
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
        let known =
            desk.known_hosts(format!("host {b}\n@revoked * {b}\nhost {g}\n[port]:2222 {b}\n@revoked plain {b}\n"));
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

    /// A host certificate for `principals`, valid for a week, signed by the key in the file `ca`.
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
            ("ca", &["-h", "-n", "another"], now, "it is for \"another\", not for host.example.com"),
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
        assert_eq!(verdict, Verdict::Refused { reason: "its signature is wrong".into() });
    }

    #[test]
    fn a_revoked_ca_or_key_spoils_a_certificate() {
        let desk = Desk::new();
        let (ca, key) = (text(&desk.key("ca", "ed25519")), text(&desk.key("k", "ed25519")));
        let certificate = certify(&desk, "ca", "k", HOST);
        for revoked in [&ca, &key] {
            let known = desk.known_hosts(format!("@cert-authority * {ca}\n@revoked * {revoked}\n"));
            assert_eq!(
                known.check_certificate("host.example.com", 22, &certificate, SystemTime::now()),
                desk.revoked(2)
            );
        }
    }

    #[test]
    fn a_certificate_without_a_trusted_ca_is_judged_by_the_key_inside() {
        let desk = Desk::new();
        desk.key("ca", "ed25519");
        let (key, other) = (desk.key("k", "ed25519"), desk.key("other", "ed25519"));
        let certificate = certify(&desk, "ca", "k", HOST);
        let judge =
            |known: KnownHosts| known.check_certificate("host.example.com", 22, &certificate, SystemTime::now());
        assert_eq!(judge(desk.known_hosts("")), Verdict::Unknown);
        assert_eq!(judge(desk.known_hosts(format!("host.example.com {}\n", text(&key)))), Verdict::Known);
        assert_eq!(judge(desk.known_hosts(format!("host.example.com {}\n", text(&other)))), desk.changed(1));
    }
}
