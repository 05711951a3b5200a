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

mod certificate;
mod line;
mod record;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use russh::keys::ssh_key::known_hosts::Marker;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};

use certificate::acceptable;
use line::{Line, names, parse};
pub use record::append;

/// The lines of some `known_hosts` files, in their order.
#[derive(Clone, Debug, Default)]
pub struct KnownHosts {
    entries: Vec<Line>,
    /// What was skipped and why, as `file:line: what` or `file: what`, one message each.
    pub warnings: Vec<String>,
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

    /// The lines of a file of this name.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(file: &Path, text: &[u8]) -> Self {
        let mut known = Self::default();
        known.add_lines(file, text);
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

/// The key's fingerprint as OpenSSH shows it: `SHA256:` and 43 characters.
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
