//! The ledger's record of the bytes on the link: by vessel and day, and by delivery.

use std::ops::RangeInclusive;

use async_trait::async_trait;

use super::LedgerError;
use crate::names::VesselName;
use crate::records::{DeliveryCost, DeliveryId, LinkBytes, UtcDay};

type Result<T> = std::result::Result<T, LedgerError>;

/// Counts of the bytes on the link. The updates add to what is recorded, so they must not be repeated after a success.
#[async_trait]
pub trait LinkUsage: Send + Sync {
    /// Adds bytes to the sums of a day, for several vessels in one transaction. Sums of more than 400 days before `day`
    /// are removed.
    async fn add_link_bytes(&self, day: UtcDay, bytes: &[(VesselName, LinkBytes)]) -> Result<()>;

    /// Returns the sums over `days` of all vessels that have any, ordered by vessel. The last 400 days are kept.
    async fn link_bytes(&self, days: RangeInclusive<UtcDay>) -> Result<Vec<(VesselName, LinkBytes)>>;

    /// Adds to the costs of deliveries that were not acknowledged, or not yet.
    async fn add_costs(&self, costs: &[(DeliveryId, DeliveryCost)]) -> Result<()>;
}
