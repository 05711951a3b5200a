//! The deliveries that run in a session, and the paths that they have locked.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Vessel;
use super::late_changes::LateChanges;
use super::path_locks::PathLocks;
use crate::fault::Fault;
use crate::link::ON_THE_WAY;
use crate::monitor::Event;
use crate::names::{DirectoryName, RelPath};
use crate::records::{Delivery, DeliveryId, VersionId, VersionKind};
use crate::settings::{self, Priority};
use crate::transfer::{Outcome, RunningDeliveries, Transfers, deliver};

/// A delivery that has ended, and how.
pub(super) type EndedDelivery = (Delivery, Result<Outcome, Fault>);

/// State of a running delivery. Each running delivery locks its path, because versions of one path must be published in
/// order.
pub(super) struct Busy {
    pub(super) large: bool,
    pub(super) bytes: u64,
    pub(super) version: VersionId,
    pub(super) priority: Priority,
    /// Whether the file was moved, so that it is probably not sent.
    pub(super) moved: bool,
    /// Settings of the delivery's directory when the delivery started. They determine its source and destination.
    pub(super) directory: Option<Arc<settings::Directory>>,
    /// Cancels the delivery when it was superseded, or when its directory's settings have changed or its directory's
    /// window has closed.
    pub(super) unwanted: CancellationToken,
    /// The paths that the delivery has locked.
    paths: Vec<RelPath>,
    below: DirectoryName,
    /// Whether the delivery may rename a directory with its entries.
    moves_tree: bool,
}

/// The running deliveries of a session.
#[derive(Default)]
pub(super) struct Running {
    tasks: JoinSet<EndedDelivery>,
    busy: HashMap<DeliveryId, Busy>,
    /// Number of small deliveries in `busy`.
    small: usize,
    /// The ids of the deliveries in `busy`, shared with the sweep, which skips these deliveries.
    ids: RunningDeliveries,
    paths: PathLocks,
    late: LateChanges,
    /// Whether the session has ended deliveries whose requests the vessel has not answered.
    is_unanswered: bool,
}

/// Returns the paths that a delivery locks.
fn paths_of(delivery: &Delivery) -> Vec<RelPath> {
    std::iter::once(&delivery.version.path).chain(renamed_from(delivery)).cloned().collect()
}

/// Returns the earlier path of a delivery's entry, if the vessel may rename the entry from there. No other delivery may
/// use that path meanwhile.
fn renamed_from(delivery: &Delivery) -> Option<&RelPath> {
    delivery.origin.as_ref().filter(|origin| origin.is_free).map(|origin| &origin.path)
}

impl Running {
    pub(super) fn new(late: LateChanges) -> Self {
        Self { late, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.busy.len()
    }

    pub(super) fn contains(&self, delivery: DeliveryId) -> bool {
        self.busy.contains_key(&delivery)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (DeliveryId, &Busy)> {
        self.busy.iter().map(|(delivery, busy)| (*delivery, busy))
    }

    /// Returns the ids of the running deliveries, for the sweep.
    pub(super) fn ids(&self) -> &RunningDeliveries {
        &self.ids
    }

    /// Returns whether no running delivery has locked the paths of a delivery.
    pub(super) fn leaves_free(&self, delivery: &Delivery) -> bool {
        let directory = &delivery.version.directory;
        let is_free =
            |path: &RelPath| self.paths.is_free(directory, path) && self.late.leave_free(delivery.id, directory, path);
        !self.contains(delivery.id) && is_free(&delivery.version.path) && renamed_from(delivery).is_none_or(is_free)
    }

    /// Starts a delivery.
    pub(super) fn start(
        &mut self,
        (vessel, transfers): (&Vessel, &Arc<Transfers>),
        delivery: Delivery,
        large: bool,
        priority: Priority,
    ) {
        let (version, paths) = (&delivery.version, paths_of(&delivery));
        paths.iter().for_each(|path| self.paths.take(&version.directory, path));
        let unwanted = CancellationToken::new();
        self.ids.add(delivery.id);
        let busy = Busy {
            large,
            bytes: version.stamp.size,
            version: version.id,
            priority,
            moved: delivery.origin.is_some(),
            directory: vessel.directories.get(&version.directory).map(|(directory, _)| directory),
            unwanted: unwanted.clone(),
            below: version.directory.clone(),
            paths,
            moves_tree: delivery.origin.is_some() && version.kind == VersionKind::Directory,
        };
        self.busy.insert(delivery.id, busy);
        self.small += usize::from(!large);
        transfers.session.small_files.set_running(self.small);
        vessel.monitor.notice(&Event::Started { vessel: &vessel.settings.name, version });
        let transfers = transfers.clone();
        self.tasks.spawn(async move {
            // A newer version must not be delivered before the vessel has answered a request that publishes this one.
            let may_be_cancelled = async {
                unwanted.cancelled().await;
                // If a script on the vessel is still hashing a large file after this time, it does not rename the file
                // any more.
                timeout(ON_THE_WAY, transfers.session.changes.all_answered(delivery.id)).await.ok();
            };
            let outcome = tokio::select! {
                biased;
                // Boxed, because a large future is copied whenever it is passed on.
                outcome = Box::pin(deliver(&transfers, &delivery)) => outcome,
                () = may_be_cancelled => Ok(Outcome::Superseded),
            };
            (delivery, outcome)
        });
    }

    /// Waits until a delivery has ended; `None` if none is running.
    pub(super) async fn ended(&mut self) -> Option<Result<EndedDelivery, JoinError>> {
        self.tasks.join_next().await
    }

    /// Returns a delivery that has ended already.
    pub(super) fn ended_already(&mut self) -> Option<Result<EndedDelivery, JoinError>> {
        self.tasks.try_join_next()
    }

    /// Removes a delivery that has ended, and unlocks its paths. Returns whether it was a large one. If the vessel has
    /// not answered all of its requests, its paths stay locked for other deliveries.
    pub(super) fn remove(&mut self, delivery: &Delivery, transfers: &Transfers) -> bool {
        let Some(busy) = self.busy.remove(&delivery.id) else { return true };
        self.ids.remove(delivery.id);
        transfers.session.large_uploads.forget(delivery.id);
        self.small -= usize::from(!busy.large);
        transfers.session.small_files.set_running(self.small);
        busy.paths.iter().for_each(|path| self.paths.leave(&busy.below, path));
        let large = busy.large;
        self.lock_unanswered(delivery.id, busy, transfers);
        large
    }

    /// Locks the paths of a delivery that has ended, if the vessel has not answered all of its requests.
    fn lock_unanswered(&mut self, delivery: DeliveryId, busy: Busy, transfers: &Transfers) {
        if transfers.session.changes.forget(delivery) {
            self.late.add(delivery, busy.below, busy.paths, busy.moves_tree);
            self.is_unanswered = true;
        }
    }

    /// Aborts all deliveries. Returns whether the vessel has answered all requests of the session that change final
    /// names.
    pub(super) async fn shut_down(&mut self, transfers: &Transfers) -> bool {
        self.tasks.shutdown().await;
        for (delivery, busy) in std::mem::take(&mut self.busy) {
            self.lock_unanswered(delivery, busy, transfers);
        }
        !self.is_unanswered
    }
}
