//! The ledger's record of the bytes on the link: by vessel and day, and by delivery.

use std::ops::RangeInclusive;

use async_trait::async_trait;

use super::LedgerError;
use crate::names::VesselName;
use crate::records::{DeliveryCost, DeliveryId, LinkBytes, UtcDay, WayOf};

type Result<T> = std::result::Result<T, LedgerError>;

/// Counts of the bytes on the link. The updates add to what is recorded, so they must not be repeated after a success.
#[async_trait]
pub trait LinkUsage: Send + Sync {
    /// Adds bytes to the sums of a day, for several ways in one transaction. Of more than 400 days with
    /// sums or ceilings, the earliest are removed, so that a clock that was ahead for a while removes none of the others.
    async fn add_link_bytes(&self, day: UtcDay, bytes: &[(WayOf, LinkBytes)]) -> Result<()>;

    /// Returns each vessel's bytes, summed over `days`, for the vessels that have any, ordered by name. Only the last 400
    /// days are stored.
    async fn link_bytes(&self, days: RangeInclusive<UtcDay>) -> Result<Vec<(VesselName, LinkBytes)>>;

    /// Returns the bytes of the days that have any, at most `most` days, the nearest to `day`: those to each vessel (`None`), and those
    /// of each of its ways.
    async fn link_days(&self, day: UtcDay, most: u32) -> Result<Vec<(UtcDay, WayOf, LinkBytes)>>;

    /// Records that a payer with a budget may use up to so many bytes on a day. A higher number recorded before stays.
    async fn raise_ceiling(&self, payer: &str, day: UtcDay, bytes: u64) -> Result<()>;

    /// Returns the recorded ceilings of the days that have any, at most `most` days, the nearest to `day`, ordered by payer
    /// and day.
    async fn ceilings(&self, day: UtcDay, most: u32) -> Result<Vec<(String, UtcDay, u64)>>;

    /// Replaces the ceiling of a payer and a day by a lower one, or removes it, if it is still `from`.
    async fn lower_ceiling(&self, payer: &str, day: UtcDay, from: u64, to: Option<u64>) -> Result<()>;

    /// Returns the share of a budget, in percent, that was reported last for the period that begins on `first`; 0 if none was.
    async fn budget_told(&self, payer: &str, period: &str, first: UtcDay) -> Result<u32>;

    /// Records that a share of a budget was reported, in place of the one before.
    async fn tell_budget(&self, payer: &str, period: &str, first: UtcDay, percent: u32) -> Result<()>;

    /// Adds to the costs of deliveries that were not acknowledged, or not yet. A delivery may occur more than once.
    async fn add_costs(&self, costs: &[(DeliveryId, DeliveryCost)]) -> Result<()>;
}
