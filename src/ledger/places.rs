//! Destinations of deliveries: a host, and a directory on it. A vessel's content belongs to one place; at another place
//! everything must be delivered again.

use async_trait::async_trait;

use super::LedgerError;
use crate::names::{DirectoryName, RemotePath, VesselName};
use crate::records::{Delivery, Host, Seen, Verified, VersionId};

type Result<T> = std::result::Result<T, LedgerError>;

/// The ledger's records of places. Updates of many deliveries run in steps, so that other writers get their turn; the
/// next call completes an interrupted one.
#[async_trait]
pub trait Places: Send + Sync {
    /// Records the location of a directory on vessels. If it differs from the one before, [`Store::reconcile`] creates
    /// deliveries to it of all that the directory holds now. The first location recorded counts as the one used so far.
    ///
    /// [`Store::reconcile`]: super::Store::reconcile
    async fn locate(&self, directory: &DirectoryName, locations: &[(VesselName, RemotePath)]) -> Result<()>;

    /// Records a vessel's host. Another host than before holds nothing, so everything that the vessel's directories
    /// hold now becomes due. Returns the number of these deliveries.
    async fn meet(&self, vessel: &VesselName, host: &Host) -> Result<u64>;

    /// Makes acknowledged deliveries to vessels due again: of all that a directory holds now, or of one version.
    /// Returns their number.
    async fn resend(
        &self,
        directory: &DirectoryName,
        version: Option<VersionId>,
        vessels: &[VesselName],
    ) -> Result<u64>;

    /// Records that the vessel holds a version at the delivery's place, and the file's state there where it differs
    /// from its source. Returns `false` when the delivery was superseded meanwhile, or goes to another place now.
    async fn acknowledge_there(&self, delivery: &Delivery, verified: Verified, seen: Option<Seen>) -> Result<bool>;
}
