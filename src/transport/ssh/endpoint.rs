//! One SSH server on the way to a vessel: a hop, or the vessel itself.

use std::sync::Arc;

use crate::settings::{SshHost, Vessel};

/// A vessel's way has one for each hop, the nearest first, and one for the vessel; cheap to clone.
#[derive(Clone)]
pub struct Endpoint {
    vessel: Arc<Vessel>,
    /// Which hop; their number for the vessel itself.
    number: usize,
}

impl Endpoint {
    /// The whole way, in its order.
    pub fn all(vessel: &Arc<Vessel>) -> impl Iterator<Item = Self> + use<> {
        let vessel = vessel.clone();
        (0..=vessel.hops.len()).map(move |number| Self { vessel: vessel.clone(), number })
    }

    /// The vessel itself.
    pub(super) fn last(vessel: &Arc<Vessel>) -> Self {
        Self { vessel: vessel.clone(), number: vessel.hops.len() }
    }

    /// The endpoints before it.
    pub(super) fn before(&self) -> impl Iterator<Item = Self> + use<> {
        Self::all(&self.vessel).take(self.number)
    }

    /// The way to it, by which logins are counted: the addresses of the hops before it, and its own.
    pub(super) fn way(&self) -> String {
        let hosts = self.before().map(|hop| place_of(hop.host())).chain([place_of(self.host())]);
        hosts.collect::<Vec<_>>().join(" ")
    }

    /// How it is reached, known and logged in to.
    pub fn host(&self) -> &SshHost {
        self.vessel.hops.get(self.number).unwrap_or(&self.vessel.ssh)
    }

    /// The vessel whose way it is on.
    pub fn vessel(&self) -> &Vessel {
        &self.vessel
    }

    /// Its address and port as people write them; a hop is called one.
    pub(super) fn place(&self) -> String {
        place_of(self.host())
    }

    /// Which setting of the vessel's, or of the ssh config for a hop, a person may have to change.
    pub(super) fn key_setting(&self, keys: &str) -> String {
        match &self.host().hop {
            None => format!("{keys} of [Vessel {}]", self.vessel.name),
            Some(hop) => format!("{keys} of [Vessel {}], or of `Host {hop}` in the ssh config", self.vessel.name),
        }
    }

    /// What it is called in a sentence.
    pub(super) fn noun(&self) -> &'static str {
        if self.host().hop.is_some() { "hop" } else { "vessel" }
    }
}

/// A vessel's address and port as people write them.
pub(crate) fn place(vessel: &Vessel) -> String {
    place_of(&vessel.ssh)
}

fn place_of(host: &SshHost) -> String {
    let SshHost { address, port, .. } = host;
    let at = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    match &host.hop {
        Some(hop) if hop == address => format!("the hop {at}"),
        Some(hop) => format!("the hop {hop} at {at}"),
        None => at,
    }
}
