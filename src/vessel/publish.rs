//! Publish: mode, time, flush, and the one rename that makes the file appear.

use super::visit::Visit;
use crate::fault::Fault;
use crate::names::RemotePath;
use crate::records::Version;
use crate::transport::{Attrs, OpenFlags, RemoteError};

impl Visit {
    /// Gives the verified assembly its mode and time, flushes it, and renames it to its destination.
    pub(super) async fn publish(
        &self,
        version: &Version,
        assembly: &RemotePath,
        destination: &RemotePath,
    ) -> Result<(), Fault> {
        let prepared = self.prepare(version, assembly).await;
        self.explained(prepared, assembly, 0).await?;
        let renamed = self.remote.rename_over(assembly, destination).await;
        self.explained(renamed, destination, 0).await?;
        self.flush_name(destination).await
    }

    async fn prepare(&self, version: &Version, assembly: &RemotePath) -> Result<(), RemoteError> {
        let file = self.remote.open(assembly, OpenFlags::WRITE_EXISTING, 0o600).await?;
        let attrs = Attrs { mode: Some(version.mode), times: times(version), ..Attrs::default() };
        match file.set(attrs).await {
            Err(e) if e.is_connection() => return Err(e),
            // A file system without modes (FAT) is no reason to keep the file back.
            Err(e) => tracing::warn!(vessel = %self.vessel.settings.name, file = %version.path, "{e}"),
            Ok(()) => {}
        }
        if self.remote.capabilities().fsync() {
            file.flush().await?;
        } else if self.remote.capabilities().sync {
            self.batches.sync(assembly).await?;
        }
        file.close().await
    }

    /// Flushes the directory, without which the new name may not outlive a power cut.
    async fn flush_name(&self, destination: &RemotePath) -> Result<(), Fault> {
        if !self.remote.capabilities().sync {
            return Ok(());
        }
        let directory = destination.parent().unwrap_or_else(|| RemotePath::new("."));
        self.batches.sync(&directory).await.map_err(|e| e.fault())
    }
}

/// Both times as SFTP has them, whole seconds from 1970 to 2106; `None` for a file from another age.
fn times(version: &Version) -> Option<(u32, u32)> {
    u32::try_from(version.stamp.mtime).ok().map(|seconds| (seconds, seconds))
}

/// Whether a file on the vessel looks like this version, as far as that shows without reading it.
pub(super) fn looks_like(version: &Version, attrs: &Attrs) -> bool {
    attrs.is_file()
        && attrs.size == Some(version.stamp.size)
        && attrs.times.map(|(_, modified)| modified) == times(version).map(|(_, modified)| modified)
}
