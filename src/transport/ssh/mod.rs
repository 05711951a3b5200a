//! SSH: logged-in connections with a verified host key, through hops if there are any.
//!
//! [`Connection`] opens channels, which other modules use.

mod agent;
mod algorithms;
mod certificate;
mod client_config;
mod client_handler;
mod congestion;
mod connection;
mod counted_stream;
mod dial;
mod dial_in;
mod endpoint;
mod handshake_error;
mod hop_tunnel;
mod host_key;
mod key_file;
mod link_meter;
mod login;
mod login_limit;
mod login_order;
mod path_state;
mod quickack;
mod session;

pub(crate) use connection::Connection;
pub use dial_in::DialIn;
pub use endpoint::Endpoint;
pub(crate) use endpoint::place;
pub use host_key::{HostKeys, SeenKey, Standing};
pub use link_meter::{LinkMeter, LinkMeters};
pub(crate) use login_limit::{Admission, StartTurn, Starts};
pub use login_limit::{LoginLimit, Rank};
pub(crate) use login_order::Turn;
pub use login_order::{Follow, Lead, RoundTrip};
pub use path_state::PathState;
pub use session::see_host_key;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::names::VesselName;
use crate::settings::{Assembly, Shell, Vessel};

/// The environment of the account that runs the program.
#[derive(Clone, Debug)]
pub struct SshEnvironment {
    /// The home directory, for `~/.ssh`.
    pub home: Option<PathBuf>,
    /// The socket of the SSH agent (`SSH_AUTH_SOCK`).
    pub agent: Option<PathBuf>,
    /// The `known_hosts` file of the whole machine.
    pub global_known_hosts: PathBuf,
    /// The command that runs this program with the same settings, for messages.
    pub program: String,
    /// Whether new host keys are recorded if `HostKeyPolicy` is `accept-new`.
    pub records_host_keys: bool,
    /// The limit on concurrent logins.
    pub logins: LoginLimit,
    /// The counters of the bytes on the link to each vessel.
    pub meters: LinkMeters,
    /// The vessels whose shells can't expand compressed files.
    pub unexpanding: Unexpanding,
}

/// The vessels whose shells can't expand compressed files, as found on earlier connections. Clones share the set.
#[derive(Clone, Debug, Default)]
pub struct Unexpanding(Arc<Mutex<HashSet<VesselName>>>);

impl Unexpanding {
    /// Records whether a vessel's shell can expand compressed files.
    pub(super) fn note(&self, vessel: &VesselName, expands: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match expands {
            true => all.remove(vessel),
            false => all.insert(vessel.clone()),
        };
    }

    /// Returns whether compressed files can't be expanded on a vessel, because its shell can't expand them or the
    /// settings exclude that.
    pub(super) fn has(&self, vessel: &Vessel) -> bool {
        let is_noted = || self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&vessel.name);
        vessel.shell == Shell::No || vessel.assembly == Assembly::Direct || is_noted()
    }
}

impl SshEnvironment {
    /// Takes the environment from the process: `HOME` and `SSH_AUTH_SOCK`. The global `known_hosts` is
    /// `/etc/ssh/ssh_known_hosts`.
    ///
    /// `program` is the command that runs this program with the same settings.
    pub fn from_process(program: String) -> Self {
        Self {
            home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
            agent: std::env::var_os("SSH_AUTH_SOCK").filter(|s| !s.is_empty()).map(PathBuf::from),
            global_known_hosts: "/etc/ssh/ssh_known_hosts".into(),
            program,
            records_host_keys: true,
            logins: LoginLimit::default(),
            meters: LinkMeters::default(),
            unexpanding: Unexpanding::default(),
        }
    }

    /// Returns the path of the user's own `known_hosts`, or `None` if the home directory is unknown.
    pub fn known_hosts(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".ssh/known_hosts"))
    }
}
