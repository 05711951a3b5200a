//! The links to vessels: rates, bytes and costs.

use std::time::Duration;

use crate::names::VesselName;

/// A measured rate of the path to a vessel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRate {
    /// Payload bytes per second.
    pub rate: u64,
    /// The shortest measured round-trip time.
    pub round_trip: Duration,
}

/// A vessel, and the name of one of its ways: the name of a link, or an address. `None` if the vessel has only one
/// address and no link.
pub type WayOf = (VesselName, Option<String>);

/// Bytes that went over the link to a vessel, including resent bytes and an estimate of the TCP and IP headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkBytes {
    /// Bytes sent to the vessel, including `resent`.
    pub sent: u64,
    /// Bytes received from the vessel.
    pub received: u64,
    /// Bytes that TCP sent again because they were lost.
    pub resent: u64,
}

impl LinkBytes {
    /// Returns the bytes of both directions.
    pub fn total(&self) -> u64 {
        self.sent.saturating_add(self.received)
    }

    /// Returns the sum of both amounts.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.merged(other, u64::saturating_add)
    }

    /// Returns this amount minus `earlier`; each count is at least 0.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.merged(earlier, u64::saturating_sub)
    }

    /// Returns the larger value of each count.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.merged(other, u64::max)
    }

    fn merged(self, other: Self, merge: fn(u64, u64) -> u64) -> Self {
        Self {
            sent: merge(self.sent, other.sent),
            received: merge(self.received, other.received),
            resent: merge(self.resent, other.resent),
        }
    }
}

/// The bytes that a delivery cost, in all attempts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCost {
    /// Bytes of the file that were written to connections. Includes bytes that were written again, and bytes that were
    /// lost with a connection before they were sent.
    pub written: u64,
    /// The delivery's share of the bytes on the link in both directions; `None` if they are not counted.
    pub link: Option<u64>,
}

/// A day in UTC, as the number of days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcDay(pub i64);

impl UtcDay {
    /// Returns the day of a time in milliseconds since 1970.
    pub fn at(ms: i64) -> Self {
        Self(ms.div_euclid(86_400_000))
    }
}
