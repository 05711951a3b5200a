//! The order in which vessels are listed where the output is limited: the vessels in the worst trouble first.

use super::document::{LinkState, VesselStatus};

/// How urgently a vessel needs attention, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The vessel can't be served.
    Away,
    /// Files for the vessel are parked.
    Parked,
    /// Deliveries to the vessel failed, and are retried automatically.
    PutOff,
    /// A person paused the vessel.
    Paused,
    /// The first connection is being made.
    Connecting,
    /// Files wait for the vessel without any trouble.
    Waiting,
    /// The vessel has all files.
    Fine,
}

impl VesselStatus {
    /// Returns how urgently the vessel needs the attention of a person.
    pub fn rank(&self) -> Rank {
        match self.link.state {
            LinkState::Away => Rank::Away,
            LinkState::Off if self.link.reason.is_some() => Rank::Away,
            _ if self.parked > 0 => Rank::Parked,
            _ if self.put_off > 0 => Rank::PutOff,
            LinkState::Paused => Rank::Paused,
            LinkState::Connecting => Rank::Connecting,
            _ if self.backlog.files > 0 => Rank::Waiting,
            _ => Rank::Fine,
        }
    }

    /// Returns whether a problem keeps files from the vessel; a pause is not a problem.
    pub fn is_in_trouble(&self) -> bool {
        self.rank() < Rank::Paused
    }
}
