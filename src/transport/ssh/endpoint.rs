//! One SSH server on the route to a vessel: a hop, or the vessel itself.

use std::sync::Arc;

use crate::settings::{SshHost, Vessel};

/// An SSH server on a vessel's route, which consists of the hops (the nearest first) and finally the vessel. Cheap to
/// clone.
#[derive(Clone)]
pub struct Endpoint {
    vessel: Arc<Vessel>,
    /// The index of the hop, or the number of hops for the vessel itself.
    number: usize,
}

impl Endpoint {
    /// Returns all endpoints of the route, in order.
    pub fn all(vessel: &Arc<Vessel>) -> impl Iterator<Item = Self> + use<> {
        let vessel = vessel.clone();
        (0..=vessel.hops.len()).map(move |number| Self { vessel: vessel.clone(), number })
    }

    /// Returns the endpoint of the vessel itself.
    pub(super) fn last(vessel: &Arc<Vessel>) -> Self {
        Self { vessel: vessel.clone(), number: vessel.hops.len() }
    }

    /// Returns the hops before this endpoint, the nearest hop first.
    pub(super) fn before(&self) -> impl Iterator<Item = Self> + use<> {
        Self::all(&self.vessel).take(self.number)
    }

    /// Returns the key under which logins at this endpoint are counted: the addresses of the hops before the endpoint,
    /// and its own address.
    pub(super) fn way(&self) -> String {
        let hosts = self.before().map(|hop| place_of(hop.host())).chain([place_of(self.host())]);
        hosts.collect::<Vec<_>>().join(" ")
    }

    /// Returns the settings to reach, verify and log in to the endpoint.
    pub fn host(&self) -> &SshHost {
        self.vessel.hops.get(self.number).unwrap_or(&self.vessel.ssh)
    }

    /// Returns the vessel whose route the endpoint is on.
    pub fn vessel(&self) -> &Vessel {
        &self.vessel
    }

    /// Returns address and port of the endpoint for messages, with the word "hop" if the endpoint is a hop.
    pub(super) fn place(&self) -> String {
        place_of(self.host())
    }

    /// Returns the text that names the settings `keys` and where to change them: in the vessel's section or, for a hop,
    /// also in the ssh config.
    pub(super) fn key_setting(&self, keys: &str) -> String {
        match &self.host().hop {
            None => format!("{keys} of [Vessel {}]", self.vessel.name),
            Some(hop) => format!("{keys} of [Vessel {}], or of `Host {hop}` in the ssh config", self.vessel.name),
        }
    }

    /// Returns the word for the endpoint in messages: "hop" or "vessel".
    pub(super) fn noun(&self) -> &'static str {
        if self.host().hop.is_some() { "hop" } else { "vessel" }
    }
}

/// Returns a vessel's address and port for messages.
pub(crate) fn place(vessel: &Vessel) -> String {
    place_of(&vessel.ssh)
}

fn place_of(host: &SshHost) -> String {
    let at = host.at();
    match &host.hop {
        Some(hop) if *hop == host.address => format!("the hop {at}"),
        Some(hop) => format!("the hop {hop} at {at}"),
        None => at,
    }
}
