//! `known_hosts`: the host keys of known hosts, matched as OpenSSH's client does.
//!
//! This module reads, matches and appends to these files. It does not depend on connections or settings: the caller
//! passes the files, the host, the port and the key. `ssh_key` parses a line. This module has its own matching, because
//! russh's matching ignores `@revoked`, wildcards and tabs, and stops at the first invalid line.
//!
//! The rules are those of OpenSSH 9.2 (`hostfile.c`, `sshconnect.c`, tested against the real `ssh`):
//!
//! - On port 22 a host's name is `host`, on any other port `[host]:port`. Patterns are matched against this whole name,
//!   so `*` matches every port, and `*.example.com` only port 22.
//! - If no line matches `[host]:port`, the lines of the plain `host` are checked, and only a matching key counts.
//!   Another key on the plain name belongs to the server on port 22 and does not indicate a change.
//! - If the keys on matching lines do not include the server's key, the key is *changed*, even if the types differ.
//!   Otherwise a man in the middle could show a key of a type that the file does not contain.
//! - If a certificate is not acceptable, the bare key inside it is checked instead.
//!
//! This module is stricter than OpenSSH in three ways: a key revoked for the plain `host` is also revoked for
//! `[host]:port` (`ssh` does not check this if a line matches `[host]:port`, and ignores it with
//! `StrictHostKeyChecking=accept-new`); a certificate must name the host (for OpenSSH 9.2, an empty list of principals
//! means "any host"); and a certificate signed with SHA-1 or DSA is rejected regardless of `CASignatureAlgorithms`.

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

/// The lines of several `known_hosts` files, in order.
#[derive(Clone, Debug, Default)]
pub struct KnownHosts {
    entries: Vec<Line>,
    /// The skipped lines and files with the reason, as `file:line: reason` or `file: reason`.
    pub warnings: Vec<String>,
    /// The files that exist but can't be read, with the reason.
    pub unreadable: Vec<String>,
}

/// The result of checking a host key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The key is a known key of the host, or a CA trusted for this host has certified the key.
    Known,
    /// No line matches this host.
    Unknown,
    /// Only other keys of this host are known.
    Changed {
        /// The file that contains another key of this host.
        file: PathBuf,
        /// The line of the other key, counted from 1. A key of the same type as the shown key is preferred.
        line: usize,
    },
    /// The key or its CA must never be accepted.
    Revoked {
        /// The file that contains the revocation.
        file: PathBuf,
        /// The line of the revocation, counted from 1.
        line: usize,
    },
    /// A trusted CA signed the certificate, but the certificate is not acceptable, and the key inside it is unknown.
    Refused {
        /// The flaw of the certificate, such as "the certificate has expired; is the clock right?".
        reason: String,
    },
}

impl KnownHosts {
    /// Reads the files that exist. A missing file has no entries; unreadable files and lines are skipped and listed in
    /// `warnings`.
    pub fn read(files: &[PathBuf]) -> Self {
        let mut known = Self::default();
        for file in files {
            match fs::read(file) {
                Ok(text) => known.add_lines(file, &text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    known.warnings.push(format!("{}: can't be read: {error}", file.display()));
                    known.unreadable.push(format!("{} can't be read: {error}", file.display()));
                }
            }
        }
        known
    }

    /// Parses `text` as the content of the file `file`.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(file: &Path, text: &[u8]) -> Self {
        let mut known = Self::default();
        known.add_lines(file, text);
        known
    }

    /// Checks whether `key` is the key of `host` on `port`. Comments on keys are ignored.
    pub fn check(&self, host: &str, port: u16, key: &PublicKey) -> Verdict {
        let names = names(host, port);
        if let Some(line) = self.revocation(&names, key.key_data()) {
            return Verdict::Revoked { file: line.file.to_path_buf(), line: line.number };
        }
        let verdict = self.look_up(&names[0], key.key_data());
        let plain_name_knows = || names.get(1).is_some_and(|name| self.look_up(name, key.key_data()) == Verdict::Known);
        if verdict == Verdict::Unknown && plain_name_knows() { Verdict::Known } else { verdict }
    }

    /// Checks whether `certificate` proves its key to be the key of `host` on `port` at the time `now`.
    ///
    /// If the certificate does not prove that, the verdict is the one for the bare key inside the certificate. If a
    /// trusted CA signed the certificate and the bare key is unknown, the verdict is [`Verdict::Refused`].
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

    /// Returns whether a CA is trusted for this host, in which case the client should offer certificate algorithms.
    pub fn trusts_a_ca_for(&self, host: &str, port: u16) -> bool {
        self.authorities(&names(host, port)).next().is_some()
    }

    /// Returns the types of this host's known keys, in the order of the files, without duplicates. The type of an RSA
    /// key is `Rsa { hash: None }`.
    ///
    /// If a client requests these types first, the host shows a key that the client can compare with a known key.
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

    /// Returns the lines without a marker that match this name.
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

/// Returns the key's fingerprint as OpenSSH shows it: `SHA256:` and 43 characters.
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
