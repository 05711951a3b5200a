//! Where deliveries go: to which host, and to which directory on it. What a vessel holds, it holds at one place; at another
//! place everything is still to be delivered.

use async_trait::async_trait;

use super::LedgerError;
use crate::names::{DirectoryName, RemotePath, VesselName};
use crate::records::{Delivery, Host, Seen, Verified, VersionId};

type Result<T> = std::result::Result<T, LedgerError>;

/// The ledger's knowledge of places. Entries that concern many deliveries are made in steps, between which others get their
/// turn; one that was cut off is made whole by the next call.
#[async_trait]
pub trait Places: Send + Sync {
    /// Enters where a directory goes on vessels. Where that is another place than before, [`Store::reconcile`] makes
    /// deliveries to it of all that the directory holds now. A place that is entered for the first time is the one that
    /// everything went to so far.
    ///
    /// [`Store::reconcile`]: super::Store::reconcile
    async fn locate(&self, directory: &DirectoryName, locations: &[(VesselName, RemotePath)]) -> Result<()>;

    /// Enters which host a vessel is. Another one than before holds nothing: all that the vessel's directories hold now
    /// becomes due. Returns how many deliveries that were.
    async fn meet(&self, vessel: &VesselName, host: &Host) -> Result<u64>;

    /// Makes what vessels were given due once more: all that a directory holds now, or one version of that. Returns how
    /// many deliveries that were.
    async fn resend(
        &self,
        directory: &DirectoryName,
        version: Option<VersionId>,
        vessels: &[VesselName],
    ) -> Result<u64>;

    /// Enters that the vessel holds a version at the place that its delivery went to, and what it looks like there where it
    /// does not look as its source. `false`: it was superseded meanwhile, or goes to another place by now.
    async fn acknowledge_there(&self, delivery: &Delivery, verified: Verified, seen: Option<Seen>) -> Result<bool>;
}
