//! An SSH server on the route to a vessel: its address, host keys and login.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::secrets::Secret;
use super::values::SOCKET;

/// Which host keys are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Only keys in `known_hosts` or `HostKey`.
    #[default]
    Strict,
    /// Also the first key of an unknown host, which is then recorded; never a changed key.
    AcceptNew,
}

/// The SSH agent whose keys are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AgentChoice {
    /// The agent that `SSH_AUTH_SOCK` names, if any.
    #[default]
    Usual,
    /// The agent at this socket.
    At(PathBuf),
    /// No agent.
    Nobody,
}

/// The SSH server of a vessel, or of a hop before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SshHost {
    /// A hop's name in the configuration; `None` for the vessel itself.
    pub hop: Option<String>,
    /// Host name or IP address, without brackets; or `unix:` and the path of a socket on this host, through which the
    /// vessel has dialled in.
    pub address: String,
    /// The port.
    pub port: u16,
    /// The user.
    pub username: String,
    /// Private keys to log in with; empty: the default keys in `~/.ssh`.
    pub identity_files: Vec<PathBuf>,
    /// Certificates of the keys, in addition to the certificates beside the keys (`KEY-cert.pub`).
    pub certificate_files: Vec<PathBuf>,
    /// Whether only keys that are in files are used, even if the agent has more keys.
    pub identities_only: bool,
    /// The SSH agent whose keys are used.
    pub agent: AgentChoice,
    /// The passphrase of the private keys.
    pub passphrase: Option<Secret>,
    /// The password. It is never sent to a hop.
    pub password: Option<Secret>,
    /// The only accepted host keys, as `SHA256:` fingerprints; empty: `known_hosts` decides.
    pub host_keys: Vec<String>,
    /// The policy for unknown hosts.
    pub host_key_policy: HostKeyPolicy,
    /// The host's name in `known_hosts` and in host certificates, instead of address and port.
    pub host_key_alias: Option<String>,
    /// The name and port under which `known_hosts` lists the host, instead of its own address and port. Set for each
    /// address of a vessel except the first, to the name and port of the first address.
    pub known_as: Option<(String, u16)>,
    /// The user's own `known_hosts` files; `None`: the default file.
    pub known_hosts: Option<Vec<PathBuf>>,
    /// System-wide `known_hosts` files; `None`: the default file.
    pub global_known_hosts: Option<Vec<PathBuf>>,
    /// The time limit for connecting, and also for the SSH greeting that follows.
    pub connect_timeout: Duration,
    /// Idle time before a keepalive request, and the allowed number of unanswered requests.
    pub alive: (Duration, usize),
    /// Values from the ssh config with their places: `Port 2222 (/home/ann/.ssh/config:3)`.
    pub from_ssh_config: Vec<String>,
    /// Unsupported values of the ssh config, each with the reason.
    pub unheeded: Vec<String>,
}

impl SshHost {
    /// Returns the path of the socket through which the vessel has dialled in; `None` if the address is no socket.
    pub fn socket(&self) -> Option<&Path> {
        self.address.strip_prefix(SOCKET).map(Path::new)
    }

    /// Returns the name and port to look up in `known_hosts`. An alias (`HostKeyAlias`) is looked up without the port.
    pub fn known_name(&self) -> (String, u16) {
        match (&self.host_key_alias, &self.known_as) {
            (_, Some(known_as)) => known_as.clone(),
            (Some(alias), None) => (alias.clone(), 22),
            (None, None) => (self.address.clone(), self.port),
        }
    }

    /// Returns whether the vessel dials in: whether its address is a socket or a port on this host. Such a socket or
    /// port exists only while the vessel forwards it, so an attempt to connect at another time costs nothing.
    pub fn is_dialled_in(&self) -> bool {
        let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
        self.hop.is_none()
            && (self.socket().is_some()
                || self.address.eq_ignore_ascii_case("localhost")
                || self.address.parse().is_ok_and(is_loopback))
    }

    /// Returns the address and port in the form of the settings, such as `[::1]:22`. For a socket, returns its address
    /// alone.
    pub fn at(&self) -> String {
        let Self { address, port, .. } = self;
        match (self.socket(), address.contains(':')) {
            (Some(_), _) => address.clone(),
            (None, true) => format!("[{address}]:{port}"),
            (None, false) => format!("{address}:{port}"),
        }
    }
}

/// Defaults of [`SshHost::alive`].
pub(super) const ALIVE: (Duration, usize) = (Duration::from_secs(15), 3);
