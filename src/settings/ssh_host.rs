//! An SSH server on the way to a vessel: how it is reached, known, and logged in to.

use std::path::PathBuf;
use std::time::Duration;

use super::secrets::Secret;

/// How a host key becomes known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Only keys that `known_hosts` or `HostKey` names are taken.
    #[default]
    Strict,
    /// The first key of a host that is not known yet is taken and recorded; a changed one never.
    AcceptNew,
}

/// Which agent is asked for keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AgentChoice {
    /// The one that `SSH_AUTH_SOCK` names, if any.
    #[default]
    Usual,
    /// The one that listens here.
    At(PathBuf),
    /// None.
    Nobody,
}

/// A vessel's SSH server, or that of a hop before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SshHost {
    /// What a hop is called where it is configured; `None` for the vessel itself.
    pub hop: Option<String>,
    /// Host name or IP address, without brackets.
    pub address: String,
    /// The port.
    pub port: u16,
    /// The user.
    pub username: String,
    /// Private keys to log in with; empty: the default keys in `~/.ssh`.
    pub identity_files: Vec<PathBuf>,
    /// Certificates of keys, beside those that lie next to the keys (`KEY-cert.pub`).
    pub certificate_files: Vec<PathBuf>,
    /// Whether only the keys in files are used, of those that the agent holds too.
    pub identities_only: bool,
    /// Which agent is asked.
    pub agent: AgentChoice,
    /// Opens the private keys.
    pub passphrase: Option<Secret>,
    /// The password. A hop is never sent one.
    pub password: Option<Secret>,
    /// The only host keys taken, as `SHA256:` fingerprints; empty: `known_hosts` decides.
    pub host_keys: Vec<String>,
    /// What becomes of a host that is not known.
    pub host_key_policy: HostKeyPolicy,
    /// What it is called in `known_hosts` and in host certificates, instead of address and port.
    pub host_key_alias: Option<String>,
    /// The user's own `known_hosts` files; `None`: the usual one.
    pub known_hosts: Option<Vec<PathBuf>>,
    /// `known_hosts` of the whole machine; `None`: the usual one.
    pub global_known_hosts: Option<Vec<PathBuf>>,
    /// The deadline for a connection and its SSH greeting; for each of the two.
    pub connect_timeout: Duration,
    /// After how long a silence it is asked for a sign of life, and how often in vain.
    pub alive: (Duration, usize),
    /// What was taken from the ssh config, and from where: `Port 2222 (/home/ann/.ssh/config:3)`.
    pub from_ssh_config: Vec<String>,
    /// What the ssh config asks for and is not heeded here, and why.
    pub unheeded: Vec<String>,
}

/// After how long a silence it is asked for a sign of life, and how often in vain, where nothing else is configured.
pub(super) const ALIVE: (Duration, usize) = (Duration::from_secs(15), 3);
