//! Places, the destinations of deliveries: a host, and a directory on that host. An acknowledgement counts for one
//! place only; when the place changes, every file is delivered again.

use async_trait::async_trait;

use super::LedgerError;
use crate::names::{DirectoryName, RemotePath, VesselName};
use crate::records::{Delivery, DeliveryCost, Host, Seen, Verified, VersionId};

type Result<T> = std::result::Result<T, LedgerError>;

/// Returns the names of vessels as a JSON array, sorted, so that the text does not depend on their order in the
/// settings.
pub(super) fn sorted_names(vessels: &[VesselName]) -> String {
    let mut names: Vec<&str> = vessels.iter().map(VesselName::as_str).collect();
    names.sort_unstable();
    serde_json::Value::from(names).to_string()
}

/// The ledger's records of places. Updates of many deliveries run in steps, so that other writers get their turn; when
/// an update is interrupted, the next call completes it.
#[async_trait]
pub trait Places: Send + Sync {
    /// Records the location of a directory on each vessel of `locations`. When a location differs from the recorded
    /// one, [`Store::reconcile`] makes all files that the directory holds now due again. The first recorded location
    /// doesn't cause deliveries: earlier deliveries count as sent there.
    ///
    /// [`Store::reconcile`]: super::Store::reconcile
    async fn locate(&self, directory: &DirectoryName, locations: &[(VesselName, RemotePath)]) -> Result<()>;

    /// Records a vessel's host. If the host differs from the recorded host, the new host counts as empty: all files
    /// that the vessel's directories hold now become due. Returns the number of deliveries that became due.
    async fn meet(&self, vessel: &VesselName, host: &Host) -> Result<u64>;

    /// Makes acknowledged deliveries to vessels due again: those of one version, or of all versions that a directory
    /// holds now. Returns the number of deliveries that became due.
    async fn resend(
        &self,
        directory: &DirectoryName,
        version: Option<VersionId>,
        vessels: &[VesselName],
    ) -> Result<u64>;

    /// Records that the vessel holds a version at the delivery's place. `seen` is the state of the vessel's copy if it
    /// differs from the source's; `cost` is added to the delivery's cost. Returns `false` if the delivery was
    /// superseded meanwhile, or now goes to another place.
    async fn acknowledge_there(
        &self,
        delivery: &Delivery,
        verified: Verified,
        seen: Option<Seen>,
        cost: Option<DeliveryCost>,
    ) -> Result<bool>;
}
