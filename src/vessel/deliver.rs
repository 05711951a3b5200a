//! One delivery, from wherever it stands to its acknowledgement.

use std::time::Instant;

use super::parts::PartwiseUpload;
use super::publish::looks_like;
use super::verify::Verdict;
use super::visit::{Visit, source_changed};
use crate::fault::Fault;
use crate::monitor::Event;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState, Verified};

/// How often bad chunks are sent again before the file is parked.
const REPAIRS: usize = 3;

/// How a delivery ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Acknowledged,
    Superseded,
}

impl Visit {
    /// Takes a delivery to its end. Each step may be repeated, so a delivery can be dropped at any point.
    pub(super) async fn deliver(&self, delivery: &Delivery) -> Result<Outcome, Fault> {
        let started = Instant::now();
        let destination = self.destination(&delivery.version)?;
        let assembly = self.assembly(&delivery.version)?;
        if let Some(verified) = self.already_there(delivery, &destination).await? {
            self.taken(delivery.version.stamp.size);
            return self.acknowledge(delivery, verified, started).await;
        }
        if !self.enter(delivery, DeliveryState::Uploading).await? || !self.transfer(delivery, &assembly).await? {
            return Ok(Outcome::Superseded);
        }
        if !self.enter(delivery, DeliveryState::Verifying).await? {
            return Ok(Outcome::Superseded);
        }
        let verified = self.verify_and_repair(delivery, &assembly).await?;
        // The last moment at which a newer version keeps this one from appearing.
        if !self.enter(delivery, DeliveryState::Publishing).await? {
            return Ok(Outcome::Superseded);
        }
        self.publish(&delivery.version, &assembly, &destination).await?;
        self.acknowledge(delivery, verified, started).await
    }

    async fn enter(&self, delivery: &Delivery, state: DeliveryState) -> Result<bool, Fault> {
        self.vessel.ledger.enter(delivery.id, state).await.map_err(|e| e.fault())
    }

    /// Whether the vessel has this version under its final name: the reply to a rename was lost, or a ledger was.
    async fn already_there(&self, delivery: &Delivery, destination: &RemotePath) -> Result<Option<Verified>, Fault> {
        let version = &delivery.version;
        let Some(attrs) = self.remote.look(destination).await.map_err(|e| e.fault())? else { return Ok(None) };
        if attrs.is_dir() {
            return Err(Fault::file(format_args!("{destination} on the vessel is a directory"))
                .mend("move it away there, or give the directory another RemoteLocation"));
        }
        let published = delivery.state == DeliveryState::Publishing && attrs.size == Some(version.stamp.size);
        if !published && !looks_like(version, &attrs) {
            return Ok(None);
        }
        match self.verify(version, destination).await? {
            Verdict::Good(verified) => Ok(Some(verified)),
            Verdict::Bad(_) => Ok(None),
        }
    }

    /// Brings the bytes over. `false`: superseded.
    async fn transfer(&self, delivery: &Delivery, assembly: &RemotePath) -> Result<bool, Fault> {
        let source = self.open_source(&delivery.version).await?;
        if let Some(directory) = assembly.parent() {
            self.make_dirs(&directory).await?;
        }
        if delivery.version.plan().count() > 1 && self.remote.capabilities().shell {
            return PartwiseUpload::new(self, delivery, source, assembly.clone()).run().await;
        }
        self.write_assembly(delivery, &source, assembly).await?;
        Ok(true)
    }

    async fn verify_and_repair(&self, delivery: &Delivery, assembly: &RemotePath) -> Result<Verified, Fault> {
        let version = &delivery.version;
        for _ in 0..REPAIRS {
            let bad = match self.verify(version, assembly).await? {
                Verdict::Good(verified) => return Ok(verified),
                Verdict::Bad(bad) => bad,
            };
            tracing::warn!(
                vessel = %self.vessel.settings.name, file = %version.path, chunks = ?bad,
                "arrived damaged; the bad chunks are sent again"
            );
            // A source that changed under us explains it, and makes a repair pointless.
            let source = self.open_source(version).await?;
            self.repair(version, &source, assembly, &bad).await?;
        }
        match self.verify(version, assembly).await? {
            Verdict::Good(verified) => Ok(verified),
            Verdict::Bad(_) => {
                self.open_source(version).await.map_err(|_| source_changed(version))?;
                Err(Fault::file(format_args!("arrived damaged {} times in a row", REPAIRS + 1))
                    .mend("check the vessel's disk and memory"))
            }
        }
    }

    async fn acknowledge(&self, delivery: &Delivery, verified: Verified, started: Instant) -> Result<Outcome, Fault> {
        if !self.vessel.ledger.acknowledge(delivery.id, verified).await.map_err(|e| e.fault())? {
            return Ok(Outcome::Superseded);
        }
        let version = &delivery.version;
        let (vessel, directory, took) = (&self.vessel.settings.name, &version.directory, started.elapsed());
        tracing::info!(
            %vessel, %directory, file = %version.path, bytes = version.stamp.size, ?took, verified = verified.as_str(),
            "delivered"
        );
        let (path, bytes) = (&version.path, version.stamp.size);
        self.vessel.monitor.notice(&Event::Delivered { vessel, directory, path, bytes, took });
        if let Some((_, retire_bell)) = self.vessel.directories.get(directory) {
            retire_bell.ring();
        }
        Ok(Outcome::Acknowledged)
    }
}
