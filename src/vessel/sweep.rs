//! Sweeping: what is left on the vessel of versions that nobody wants any more. Only names that we can parse as ours.

use std::collections::HashSet;

use super::visit::Visit;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::fault::Fault;
use crate::names::{OurFile, assembly_name};
use crate::records::{DeliveryId, Remains};
use crate::transport::RemoteError;

/// Remains swept at once.
const BATCH: u32 = 256;
/// Parts removed at once.
const AT_ONCE: usize = 64;

impl Visit {
    /// Removes what superseded deliveries left, but for those in `busy`.
    ///
    /// What can't be removed stays on the list for another visit: no leftover is worth holding up a delivery.
    pub(super) async fn sweep_remains(&self, busy: &HashSet<DeliveryId>) -> Result<(), Fault> {
        let name = &self.vessel.settings.name;
        let mut remains = self.vessel.ledger.remains(name, BATCH).await.map_err(|e| e.fault())?;
        remains.retain(|r| !busy.contains(&r.delivery));
        if remains.is_empty() {
            return Ok(());
        }
        let deliveries: HashSet<i64> = remains.iter().map(|r| r.delivery.0).collect();
        if !self.tolerate(self.remove_parts(|delivery| deliveries.contains(&delivery)).await)? {
            return Ok(());
        }
        for one in &remains {
            if self.tolerate(self.remove_assembly(one).await)? {
                self.vessel.ledger.swept(one.delivery).await.map_err(|e| e.fault())?;
                tracing::debug!(vessel = %name, file = %one.path, "swept");
            }
        }
        Ok(())
    }

    /// Removes parts of ours whose delivery is not open any more, whatever way they were left there.
    pub(super) async fn sweep_strays(&self) -> Result<(), Fault> {
        let listed = self.part_deliveries().await;
        let mut strays = HashSet::new();
        for delivery in listed.as_ref().into_iter().flatten() {
            if !self.vessel.ledger.is_open(DeliveryId(*delivery)).await.map_err(|e| e.fault())? {
                strays.insert(*delivery);
            }
        }
        if self.tolerate(listed)? && !strays.is_empty() {
            self.tolerate(self.remove_parts(|delivery| strays.contains(&delivery)).await)?;
        }
        Ok(())
    }

    /// Whether a step of sweeping went well. Only the end of the connection is a reason to stop.
    fn tolerate<T>(&self, result: Result<T, RemoteError>) -> Result<bool, Fault> {
        match result {
            Ok(_) => Ok(true),
            Err(e) if e.is_connection() => Err(e.fault()),
            Err(e) => {
                tracing::debug!(vessel = %self.vessel.settings.name, "not swept: {e}");
                Ok(false)
            }
        }
    }

    async fn part_deliveries(&self) -> Result<HashSet<i64>, RemoteError> {
        let listed = self.remote.list(&self.vessel.settings.temp_dir).await?;
        let delivery = |name: &[u8]| match OurFile::parse(self.instance, name) {
            Some(OurFile::Part { delivery, .. }) => Some(delivery),
            _ => None,
        };
        Ok(listed.iter().filter_map(|(name, _)| delivery(name)).collect())
    }

    pub(super) async fn remove_parts(&self, unwanted: impl Fn(i64) -> bool) -> Result<(), RemoteError> {
        let temp_dir = &self.vessel.settings.temp_dir;
        let listed = self.remote.list(temp_dir).await?;
        let is_unwanted = |name: &[u8]| match OurFile::parse(self.instance, name) {
            Some(OurFile::Part { delivery, .. }) => unwanted(delivery),
            _ => false,
        };
        let unwanted = listed.iter().filter(|(name, _)| is_unwanted(name)).map(|(name, _)| temp_dir.join(name));
        stream::iter(unwanted)
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, async |path| self.remote.remove(&path).await)
            .await
    }

    async fn remove_assembly(&self, remains: &Remains) -> Result<(), RemoteError> {
        // A directory that is not configured any more has no place on the vessel that we could know.
        let Some((directory, _)) = self.vessel.directories.get(&remains.directory) else { return Ok(()) };
        let destination = self.vessel.settings.destination(&directory, &remains.path);
        let Some(parent) = destination.parent() else { return Ok(()) };
        self.remote.remove(&parent.join(assembly_name(self.instance, remains.delivery.0, remains.token))).await
    }
}
