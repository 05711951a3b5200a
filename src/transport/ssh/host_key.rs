//! Verifies host keys against `HostKey` or `known_hosts`.

use std::sync::Arc;
use std::time::SystemTime;

use russh::keys::ssh_key::{Algorithm, PublicKey};
use russh::keys::{PublicKeyOrCertificate, ssh_key};

use super::SshEnvironment;
use super::endpoint::Endpoint;
use crate::settings::{HostKeyPolicy, SshHost};
use crate::transport::ConnectError;
use crate::transport::known_hosts::{self, KnownHosts, Verdict};

/// A host key that a host showed, for the `trust` command.
#[derive(Clone, Debug)]
pub struct SeenKey {
    pub(super) key: PublicKey,
}

impl SeenKey {
    /// Returns the SHA-256 fingerprint, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        known_hosts::fingerprint(&self.key)
    }

    /// Returns the key type, such as `ssh-ed25519`.
    pub fn algorithm(&self) -> String {
        self.key.algorithm().to_string()
    }
}

/// The trust status of a host key.
#[derive(Clone, Debug)]
pub enum Standing {
    /// The key is accepted for this host.
    Trusted,
    /// No key of this host is known yet.
    Unknown,
    /// The key must not be trusted.
    Refused(ConnectError),
}

/// The accepted host keys of a vessel, or of a hop on the route to it.
#[derive(Clone)]
pub struct HostKeys {
    endpoint: Endpoint,
    environment: Arc<SshEnvironment>,
    known: Arc<KnownHosts>,
}

impl HostKeys {
    /// Reads the `known_hosts` files for an endpoint. Every connection calls this, so that changes apply to the next
    /// connection.
    pub fn read(endpoint: Endpoint, environment: Arc<SshEnvironment>) -> Self {
        let host = endpoint.host();
        let own = host.known_hosts.clone().unwrap_or_else(|| environment.known_hosts().into_iter().collect());
        let global = host.global_known_hosts.clone();
        let files = [own, global.unwrap_or_else(|| vec![environment.global_known_hosts.clone()])].concat();
        let known = KnownHosts::read(&files);
        for warning in &known.warnings {
            tracing::debug!(vessel = %endpoint.vessel().name, "{warning}");
        }
        Self { endpoint, environment, known: known.into() }
    }

    fn host(&self) -> &SshHost {
        self.endpoint.host()
    }

    /// Returns the name and port to look up in `known_hosts`.
    fn known_as(&self) -> (String, u16) {
        self.host().known_name()
    }

    /// Returns `all` key algorithms in the order in which to request them. As in `ssh`, the algorithms of the known
    /// keys come first, so that a host with several keys shows a known one.
    pub(super) fn preferred(&self, all: &[Algorithm]) -> Vec<Algorithm> {
        let (name, port) = self.known_as();
        let known = self.known.key_types(&name, port);
        let is_known = |a: &Algorithm| known.iter().any(|k| same_type(k, a));
        let (mut first, rest): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_known);
        first.extend(rest);
        first
    }

    /// Returns whether a certificate of the host could be accepted.
    pub(super) fn want_certificate(&self) -> bool {
        let (name, port) = self.known_as();
        self.host().host_keys.is_empty() && self.known.trusts_a_ca_for(&name, port)
    }

    /// Checks the key or certificate that the host showed.
    pub(super) fn check(&self, shown: &PublicKeyOrCertificate) -> Result<(), ConnectError> {
        let key = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            PublicKeyOrCertificate::Certificate(certificate) => return self.check_certificate(certificate),
        };
        let fingerprint = known_hosts::fingerprint(&key);
        let (name, port) = self.known_as();
        let noun = self.endpoint.noun();
        if !self.host().host_keys.is_empty() {
            return if self.host().host_keys.contains(&fingerprint) {
                Ok(())
            } else {
                Err(self.refuse(
                    format!("shows the host key {fingerprint}, which is not in HostKey"),
                    format!(
                        "if the vessel was set up again, change HostKey of [Vessel {}]",
                        self.endpoint.vessel().name
                    ),
                ))
            };
        }
        match self.known.check(&name, port, &key) {
            Verdict::Known => Ok(()),
            // The key may be in a file that contentmonster can't read, so the advice to run `trust` would be wrong.
            Verdict::Unknown if !self.known.unreadable.is_empty() => Err(self.refuse(
                format!(
                    "shows the host key {} {fingerprint}, but {}",
                    key.algorithm(),
                    self.known.unreadable.join(", ")
                ),
                "give contentmonster's user permission to read the known_hosts files".into(),
            )),
            Verdict::Unknown if self.host().host_key_policy == HostKeyPolicy::AcceptNew => self.learn(&key),
            Verdict::Unknown => Err(self.refuse(
                format!("shows an unknown host key ({} {fingerprint})", key.algorithm()),
                format!("compare it with the {noun}'s own, then run: {} trust {}", self.program(), self.vessel_word()),
            )),
            Verdict::Changed { file, line } => Err(self.refuse(
                format!(
                    "shows the host key {} {fingerprint}, but {}:{line} has another key: someone may be intercepting \
                     the connection",
                    key.algorithm(),
                    file.display()
                ),
                format!(
                    "if the {noun} was set up again, remove line {line} of {}, then run: {} trust {}",
                    file.display(),
                    self.program(),
                    self.vessel_word()
                ),
            )),
            Verdict::Revoked { file, line } => Err(self.refuse(
                format!("presented a host key that {}:{line} marks as revoked ({fingerprint})", file.display()),
                format!("give the {noun} a new host key"),
            )),
            Verdict::Refused { reason: why } => Err(self.refuse(
                format!("presented a host key that is rejected: {why}"),
                format!("give the {noun} another key"),
            )),
        }
    }

    fn check_certificate(&self, certificate: &ssh_key::Certificate) -> Result<(), ConnectError> {
        let (name, port) = self.known_as();
        match self.known.check_certificate(&name, port, certificate, SystemTime::now()) {
            Verdict::Known => Ok(()),
            Verdict::Refused { reason: why } => Err(self.refuse(
                format!("shows a host certificate that is rejected: {why}"),
                format!("have the certificate authority sign the {}'s host key again", self.endpoint.noun()),
            )),
            Verdict::Revoked { file, line } => Err(self.refuse(
                format!("shows a host certificate that {}:{line} marks as revoked", file.display()),
                format!("give the {} a new host key", self.endpoint.noun()),
            )),
            Verdict::Unknown | Verdict::Changed { .. } => Err(self.refuse(
                "shows a host certificate of an unknown authority".into(),
                "add the authority to known_hosts as @cert-authority".into(),
            )),
        }
    }

    /// Returns the trust status of a key without recording it.
    pub fn standing(&self, seen: &SeenKey) -> Standing {
        let (name, port) = self.known_as();
        let unknown = self.host().host_keys.is_empty()
            && self.known.unreadable.is_empty()
            && matches!(self.known.check(&name, port, &seen.key), Verdict::Unknown);
        if unknown {
            return Standing::Unknown;
        }
        match self.check(&PublicKeyOrCertificate::from(seen.key.clone())) {
            Ok(()) => Standing::Trusted,
            Err(refused) => Standing::Refused(refused),
        }
    }

    /// Records a key for this host in the first configured `known_hosts` file, or in the user's own if none is
    /// configured. Returns the path of the file.
    ///
    /// # Errors
    /// When `UserKnownHostsFile` names no file, when no file is configured and there is no home directory, or when the
    /// file can't be written.
    pub fn record(&self, seen: &SeenKey) -> std::io::Result<std::path::PathBuf> {
        let (name, port) = self.known_as();
        let file = match &self.host().known_hosts {
            Some(files) => files.first().cloned().ok_or("UserKnownHostsFile names no file"),
            None => self.environment.known_hosts().ok_or("HOME is not set"),
        };
        let file = file.map_err(std::io::Error::other)?;
        known_hosts::append(&file, &name, port, &seen.key)?;
        Ok(file)
    }

    fn learn(&self, key: &PublicKey) -> Result<(), ConnectError> {
        if !self.environment.records_host_keys {
            return Ok(());
        }
        let recorded = self.record(&SeenKey { key: key.clone() });
        let fingerprint = known_hosts::fingerprint(key);
        match recorded {
            Ok(file) => {
                tracing::info!(
                    vessel = %self.endpoint.vessel().name, %fingerprint, file = %file.display(),
                    "Recorded a new host key"
                );
                Ok(())
            }
            Err(e) => Err(self.refuse(
                format!("shows a new host key ({fingerprint}), which can't be recorded: {e}"),
                "make ~/.ssh/known_hosts (or UserKnownHostsFile) writable, or set HostKey to this fingerprint".into(),
            )),
        }
    }

    fn refuse(&self, why: String, remedy: String) -> ConnectError {
        ConnectError::HostKey { why: format!("{} {why}", self.endpoint.place()), remedy }
    }

    fn program(&self) -> &str {
        &self.environment.program
    }

    /// Returns the vessel's name, quoted for a command that the operator can paste.
    fn vessel_word(&self) -> String {
        let name = self.endpoint.vessel().name.as_str();
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
