//! The assembly written directly: for files of one chunk, which have nothing to join, and for vessels without a shell.

use std::sync::Arc;

use super::visit::Visit;
use crate::fault::Fault;
use crate::local::SourceFile;
use crate::names::RemotePath;
use crate::records::{Delivery, DeliveryState, Version};
use crate::transport::{Attrs, OpenFlags};

impl Visit {
    /// Writes what is missing of the assembly at its offsets, going on from what an earlier attempt left.
    pub(super) async fn write_assembly(
        &self,
        delivery: &Delivery,
        source: &Arc<SourceFile>,
        assembly: &RemotePath,
    ) -> Result<(), Fault> {
        let version = &delivery.version;
        let size = version.stamp.size;
        let large = version.plan().count() > 1;
        let _turn = if large { Some(self.large_upload.lock().await) } else { None };
        let opened = self.remote.open(assembly, OpenFlags::WRITE, 0o600).await;
        let file = self.explained(opened, assembly, size).await?;
        let mut held = 0;
        if delivery.state != DeliveryState::Pending {
            held = file.attrs().await.map_err(|e| e.fault())?.size.unwrap_or(0);
            if held > size {
                let cut = file.set(Attrs { size: Some(0), ..Attrs::default() }).await;
                self.explained(cut, assembly, 0).await?;
                held = 0;
            }
            self.taken(held);
        }
        self.write_range(version, source, &file, held..size, 0).await?;
        let closed = file.close().await;
        self.explained(closed, assembly, 1).await
    }

    /// Sends some chunks of the assembly again, where its hash showed them to be bad.
    pub(super) async fn repair(
        &self,
        version: &Version,
        source: &Arc<SourceFile>,
        assembly: &RemotePath,
        bad: &[u64],
    ) -> Result<(), Fault> {
        let opened = self.remote.open(assembly, OpenFlags::WRITE, 0o600).await;
        let file = self.explained(opened, assembly, version.stamp.size).await?;
        let cut = file.set(Attrs { size: Some(version.stamp.size), ..Attrs::default() }).await;
        self.explained(cut, assembly, version.stamp.size).await?;
        for chunk in bad {
            self.write_range(version, source, &file, version.plan().range(*chunk), 0).await?;
        }
        let closed = file.close().await;
        self.explained(closed, assembly, 1).await
    }
}
