//! The ledger's record of the bytes on the link: by vessel and day, and by delivery.

use std::ops::RangeInclusive;

use async_trait::async_trait;

use super::LedgerError;
use crate::names::VesselName;
use crate::records::{DeliveryCost, DeliveryId, LinkBytes, UtcDay, WayOf};

type Result<T> = std::result::Result<T, LedgerError>;

/// Counts of the bytes on the link. [`Self::add_link_bytes`] and [`Self::add_costs`] add to the recorded counts, so a
/// caller must not repeat them after a success.
#[async_trait]
pub trait LinkUsage: Send + Sync {
    /// Adds bytes to the sums of a day, for several ways in one transaction. Also removes the sums and ceilings of days
    /// more than 400 days before `day`, but keeps the newest 400 days that have a record, however old they are. So if
    /// the clock was ahead for a while, only as many days are removed as were added meanwhile.
    async fn add_link_bytes(&self, day: UtcDay, bytes: &[(WayOf, LinkBytes)]) -> Result<()>;

    /// Returns the bytes of each vessel, summed over `days`, ordered by vessel; without vessels that have no bytes.
    /// Only the last 400 days are stored.
    async fn link_bytes(&self, days: RangeInclusive<UtcDay>) -> Result<Vec<(VesselName, LinkBytes)>>;

    /// Returns the bytes of the days nearest to `day` that have any bytes, at most `most` days: the sums of each vessel
    /// (way `None`), and the sums of each of the vessel's ways.
    async fn link_days(&self, day: UtcDay, most: u32) -> Result<Vec<(UtcDay, WayOf, LinkBytes)>>;

    /// Records the ceiling of a payer with a budget: the number of bytes that it may use on a day. A higher ceiling
    /// that was recorded before stays.
    async fn raise_ceiling(&self, payer: &str, day: UtcDay, bytes: u64) -> Result<()>;

    /// Returns the recorded ceilings of the days nearest to `day` that have any, at most `most` days, ordered by payer
    /// and day.
    async fn ceilings(&self, day: UtcDay, most: u32) -> Result<Vec<(String, UtcDay, u64)>>;

    /// Replaces the ceiling of a payer on a day by the lower ceiling `to`, or removes it if `to` is `None`. Does
    /// nothing if the recorded ceiling is not `from`.
    async fn lower_ceiling(&self, payer: &str, day: UtcDay, from: u64, to: Option<u64>) -> Result<()>;

    /// Returns the percentage of a budget that was last reported as used in the period that begins on `first`; 0 if
    /// none was reported.
    async fn budget_told(&self, payer: &str, period: &str, first: UtcDay) -> Result<u32>;

    /// Records the percentage of a budget that was reported as used, and replaces the one recorded before.
    async fn tell_budget(&self, payer: &str, period: &str, first: UtcDay, percent: u32) -> Result<()>;

    /// Adds to the costs of deliveries without acknowledging the deliveries. A delivery may occur in `costs` more than
    /// once.
    async fn add_costs(&self, costs: &[(DeliveryId, DeliveryCost)]) -> Result<()>;
}
