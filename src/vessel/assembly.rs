//! The assembly written directly: files of one chunk, which have nothing to join, and others where nothing joins.

use super::lanes::Job;
use super::parts::grown;
use super::visit::{Visit, source_fault};
use super::write::Taken;
use crate::fault::Fault;
use crate::local::Source;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState, Version};
use crate::transport::{Attrs, GrowingHash, OpenFlags, RemoteFile};

/// Files up to this size, in bytes, go out in one burst with all that follows their bytes.
const BURST: u64 = 255 << 10;

impl Visit {
    /// Opens the assembly on the lane with the least to do.
    pub(super) async fn open_assembly(&self, delivery: &Delivery, assembly: &RemotePath) -> Result<RemoteFile, Fault> {
        // What lies there before the first attempt is not of this delivery, whatever its name says.
        let flags = if delivery.state == DeliveryState::Pending { OpenFlags::FRESH } else { OpenFlags::WRITE };
        self.open_ours(&self.lanes.idlest(), assembly, flags, delivery.version.stamp.size).await
    }

    /// How many bytes of the version an open assembly holds already.
    async fn held(&self, delivery: &Delivery, file: &RemoteFile) -> Result<u64, Fault> {
        if delivery.state == DeliveryState::Pending {
            return Ok(0);
        }
        let held = file.attrs().await.map_err(|e| e.fault())?.size.unwrap_or(0);
        if held > delivery.version.stamp.size {
            let cut = file.set(Attrs { size: Some(0), ..Attrs::default() }).await;
            self.explained(cut, file.path(), 0).await?;
            return Ok(0);
        }
        self.found(&delivery.version, held);
        Ok(held)
    }

    /// Writes what is missing of a file of one chunk, and finishes it.
    pub(super) async fn write_small(
        &self,
        delivery: &Delivery,
        source: &Source,
        file: RemoteFile,
    ) -> Result<(), Fault> {
        let version = &delivery.version;
        let size = version.stamp.size;
        let held = self.held(delivery, &file).await?;
        let (path, alone) = (file.path().clone(), !self.flushes_together());
        let finished = if held == 0 && (1..=BURST.min(self.remote.capabilities().bytes_per_write())).contains(&size) {
            let read = source.read(0, size).await;
            let bytes = read.map_err(|error| source_fault(version, &error))?;
            self.vessel.limit.take(size).await;
            let sent = file.send(0, bytes).await;
            let sent = self.explained(sent, &path, size).await?;
            // The vessel takes them in this order, so nobody waits for the answer to the write first.
            let (taken, finished) = tokio::join!(sent.taken(), self.finish_open(version, file, alone));
            self.sent(version, self.explained(taken, &path, size).await?);
            finished
        } else {
            let job = self.lanes.job(size - held);
            self.write_range(version, source, &file, held..size, 0, &Taken::of(&job)).await?;
            self.finish_open(version, file, alone).await
        };
        self.explained(finished, &path, 1).await
    }

    /// Writes what is missing of a large file in order, going on from what an earlier attempt left; gives the vessel's
    /// hash of it, which may still be going on.
    pub(super) async fn write_assembly(
        &self,
        delivery: &Delivery,
        source: &Source,
        assembly: &RemotePath,
    ) -> Result<Option<GrowingHash<'_>>, Fault> {
        let version = &delivery.version;
        let _turn = self.large_upload.lock().await;
        let file = self.open_assembly(delivery, assembly).await?;
        let held = self.held(delivery, &file).await?;
        let job = self.lanes.job(version.stamp.size - held);
        let mut hash = self.hash_as_it_grows(assembly).await;
        for chunk in 0..version.plan().count() {
            let range = version.plan().range(chunk);
            self.write_rest(version, source, &file, range.start.max(held)..range.end, &job).await?;
            hash = grown(hash).await;
        }
        let closed = file.close().await;
        self.explained(closed, assembly, 1).await?;
        Ok(hash)
    }

    async fn write_rest(
        &self,
        version: &Version,
        source: &Source,
        file: &RemoteFile,
        range: std::ops::Range<u64>,
        job: &Job,
    ) -> Result<(), Fault> {
        if range.is_empty() {
            return Ok(());
        }
        self.write_range(version, source, file, range, 0, &Taken::of(job)).await
    }

    /// Has the vessel hash an assembly while it grows, where it can.
    pub(super) async fn hash_as_it_grows(&self, assembly: &RemotePath) -> Option<GrowingHash<'_>> {
        let tool = self.remote.capabilities().hash_tool?;
        self.remote.hash_as_it_grows(tool, assembly).await.ok()
    }

    /// Sends some chunks of the assembly again, where its hash showed them to be bad.
    pub(super) async fn repair(
        &self,
        version: &Version,
        source: &Source,
        assembly: &RemotePath,
        bad: &[u64],
    ) -> Result<(), Fault> {
        let file = self.open_ours(self.remote.lane(), assembly, OpenFlags::WRITE, version.stamp.size).await?;
        let cut = file.set(Attrs { size: Some(version.stamp.size), ..Attrs::default() }).await;
        self.explained(cut, assembly, version.stamp.size).await?;
        let job = self.lanes.job(0);
        for chunk in bad {
            let range = version.plan().range(*chunk);
            self.write_range(version, source, &file, range, 0, &Taken::of(&job).over()).await?;
        }
        let closed = file.close().await;
        self.explained(closed, assembly, 1).await
    }
}
