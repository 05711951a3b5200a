//! Is this the vessel that we mean? The host key's check, against `HostKey` or `known_hosts`.

use std::sync::Arc;
use std::time::SystemTime;

use russh::keys::ssh_key::{Algorithm, PublicKey};
use russh::keys::{PublicKeyOrCertificate, ssh_key};

use super::SshEnvironment;
use crate::settings::{HostKeyPolicy, Vessel};
use crate::transport::ConnectError;
use crate::transport::known_hosts::{self, KnownHosts, Verdict};

/// A host key as it was shown, for `trust`.
#[derive(Clone, Debug)]
pub struct SeenKey {
    pub(super) key: PublicKey,
}

impl SeenKey {
    /// Its SHA-256 fingerprint, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        known_hosts::fingerprint(&self.key)
    }

    /// Its type, as `ssh-ed25519`.
    pub fn algorithm(&self) -> String {
        self.key.algorithm().to_string()
    }
}

/// How a host key stands with us.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It is the vessel's.
    Trusted,
    /// Nothing is known of the vessel yet.
    Unknown,
    /// It must not be trusted.
    Refused(ConnectError),
}

/// Which host keys are those of one vessel.
#[derive(Clone)]
pub struct HostKeys {
    vessel: Arc<Vessel>,
    environment: Arc<SshEnvironment>,
    known: Arc<KnownHosts>,
}

impl HostKeys {
    /// Reads the `known_hosts` files afresh, so that what a person mends there counts for the next connection.
    pub fn read(vessel: Arc<Vessel>, environment: Arc<SshEnvironment>) -> Self {
        let mut files: Vec<_> = environment.known_hosts().into_iter().collect();
        files.push(environment.global_known_hosts.clone());
        let known = KnownHosts::read(&files);
        for warning in &known.warnings {
            tracing::debug!(vessel = %vessel.name, "{warning}");
        }
        Self { vessel, environment, known: known.into() }
    }

    /// The key algorithms to ask for: those that are known for the host first, as `ssh` does, so that a host with
    /// several keys shows the one that we know.
    pub(super) fn preferred(&self, all: &[Algorithm]) -> Vec<Algorithm> {
        let known = self.known.key_types(&self.vessel.address, self.vessel.port);
        let is_known = |a: &Algorithm| known.iter().any(|k| same_type(k, a));
        let (mut first, rest): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_known);
        first.extend(rest);
        first
    }

    /// Whether a certificate of the host would mean anything to us.
    pub(super) fn want_certificate(&self) -> bool {
        self.vessel.host_keys.is_empty() && self.known.trusts_a_ca_for(&self.vessel.address, self.vessel.port)
    }

    /// Checks what the vessel showed.
    pub(super) fn check(&self, shown: &PublicKeyOrCertificate) -> Result<(), ConnectError> {
        let key = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            PublicKeyOrCertificate::Certificate(certificate) => return self.check_certificate(certificate),
        };
        let fingerprint = known_hosts::fingerprint(&key);
        if !self.vessel.host_keys.is_empty() {
            return if self.vessel.host_keys.contains(&fingerprint) {
                Ok(())
            } else {
                Err(self.refuse(
                    format!("shows the host key {fingerprint}, which HostKey does not name"),
                    format!("if the vessel was set up anew, change HostKey of [Vessel {}]", self.vessel.name),
                ))
            };
        }
        match self.known.check(&self.vessel.address, self.vessel.port, &key) {
            Verdict::Known => Ok(()),
            Verdict::Unknown if self.vessel.host_key_policy == HostKeyPolicy::AcceptNew => self.learn(&key),
            Verdict::Unknown => Err(self.refuse(
                format!("shows an unknown host key ({} {fingerprint})", key.algorithm()),
                format!("compare it with the vessel's own, then run: {} trust {}", self.program(), self.vessel_word()),
            )),
            Verdict::Changed { file, line } => Err(self.refuse(
                format!(
                    "shows the host key {} {fingerprint}, but {}:{line} has another: someone may be in between",
                    key.algorithm(),
                    file.display()
                ),
                format!(
                    "if the vessel was set up anew, remove line {line} of {}, then run: {} trust {}",
                    file.display(),
                    self.program(),
                    self.vessel_word()
                ),
            )),
            Verdict::Revoked { file, line } => Err(self.refuse(
                format!("shows a host key that {}:{line} marks as revoked ({fingerprint})", file.display()),
                "give the vessel a new host key".to_string(),
            )),
            Verdict::Refused { reason: why } => {
                Err(self
                    .refuse(format!("shows a host key that is refused: {why}"), "give the vessel another key".into()))
            }
        }
    }

    fn check_certificate(&self, certificate: &ssh_key::Certificate) -> Result<(), ConnectError> {
        let (host, port) = (&self.vessel.address, self.vessel.port);
        match self.known.check_certificate(host, port, certificate, SystemTime::now()) {
            Verdict::Known => Ok(()),
            Verdict::Refused { reason: why } => Err(self.refuse(
                format!("shows a host certificate that is refused: {why}"),
                "have the certificate authority sign the vessel's host key anew".into(),
            )),
            Verdict::Revoked { file, line } => Err(self.refuse(
                format!("shows a host certificate that {}:{line} marks as revoked", file.display()),
                "give the vessel a new host key".into(),
            )),
            Verdict::Unknown | Verdict::Changed { .. } => Err(self.refuse(
                "shows a host certificate of an unknown authority".into(),
                "add the authority to known_hosts as @cert-authority".into(),
            )),
        }
    }

    /// How a key stands, without recording anything.
    pub fn standing(&self, seen: &SeenKey) -> Standing {
        let unknown = self.vessel.host_keys.is_empty()
            && matches!(self.known.check(&self.vessel.address, self.vessel.port, &seen.key), Verdict::Unknown);
        if unknown {
            return Standing::Unknown;
        }
        match self.check(&PublicKeyOrCertificate::from(seen.key.clone())) {
            Ok(()) => Standing::Trusted,
            Err(refused) => Standing::Refused(refused),
        }
    }

    /// Records a key for this vessel in the user's `known_hosts`.
    ///
    /// # Errors
    /// When there is no home directory or the file can't be written.
    pub fn record(&self, seen: &SeenKey) -> std::io::Result<std::path::PathBuf> {
        let file = self.environment.known_hosts().ok_or_else(|| std::io::Error::other("HOME is not set"))?;
        known_hosts::append(&file, &self.vessel.address, self.vessel.port, &seen.key)?;
        Ok(file)
    }

    fn learn(&self, key: &PublicKey) -> Result<(), ConnectError> {
        let recorded = self.record(&SeenKey { key: key.clone() });
        let fingerprint = known_hosts::fingerprint(key);
        match recorded {
            Ok(file) => {
                tracing::info!(vessel = %self.vessel.name, %fingerprint, file = %file.display(), "recorded a new host key");
                Ok(())
            }
            Err(e) => Err(self.refuse(
                format!("shows a new host key ({fingerprint}), which can't be recorded: {e}"),
                "make ~/.ssh/known_hosts writable, or name the key as HostKey".into(),
            )),
        }
    }

    fn refuse(&self, why: String, remedy: String) -> ConnectError {
        ConnectError::HostKey { why: format!("{} {why}", place(&self.vessel)), remedy }
    }

    fn program(&self) -> &str {
        &self.environment.program
    }

    /// The vessel's name as a word of a command that a person can paste.
    fn vessel_word(&self) -> String {
        let name = self.vessel.name.as_str();
        if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            name.into()
        } else {
            format!("'{}'", name.replace('\'', r"'\''"))
        }
    }
}

fn same_type(a: &Algorithm, b: &Algorithm) -> bool {
    matches!((a, b), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. })) || a == b
}

/// A vessel's address and port as people write them.
pub(crate) fn place(vessel: &Vessel) -> String {
    if vessel.address.contains(':') {
        format!("[{}]:{}", vessel.address, vessel.port)
    } else {
        format!("{}:{}", vessel.address, vessel.port)
    }
}
