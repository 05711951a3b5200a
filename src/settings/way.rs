//! A way to a vessel: one of its addresses, over a link or over the system's routes.

use std::sync::Arc;

use super::network_link::Link;
use super::priorities::Priorities;
use super::ssh_host::SshHost;

/// A way to a vessel.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// The link that the way uses; `None` for a plain `Address`.
    pub link: Option<Arc<Link>>,
    /// The vessel's SSH server, at the end of the way.
    pub ssh: SshHost,
    /// The hops on the way, the nearest first.
    pub hops: Vec<SshHost>,
}

impl Way {
    /// Returns the way's name: the name of its link, or else its address.
    pub fn name(&self) -> String {
        self.link.as_ref().map_or_else(|| self.ssh.at(), |link| link.name.to_string())
    }

    /// Returns the priorities of the files that may go over the way.
    pub fn priorities(&self) -> Priorities {
        self.link.as_ref().map(|link| link.priorities).unwrap_or_default()
    }

    /// Returns the sort key of the way, by preference and then by price. The lowest key is the preferred way.
    pub(super) fn rank(&self) -> (std::cmp::Reverse<u32>, u128) {
        let preference = self.link.as_ref().map_or(0, |link| link.preference);
        let cost = self.link.as_ref().map_or(0, |link| link.cost.per_terabyte());
        (std::cmp::Reverse(preference), cost)
    }
}
