//! Publish: mode, time, flush, and the one rename that makes the file appear.

use super::visit::Visit;
use crate::fault::Fault;
use crate::names::RemotePath;
use crate::records::{FileStamp, Version, VersionKind};
use crate::transport::{Attrs, OpenFlags, RemoteError, RemoteFile, Renamed};

impl Visit {
    /// Renames the finished and verified assembly to its destination.
    pub(super) async fn publish(
        &self,
        version: &Version,
        assembly: &RemotePath,
        destination: &RemotePath,
    ) -> Result<(), Fault> {
        let size = (version.kind == VersionKind::File).then_some(version.stamp.size);
        let renamed = self.remote.rename_over(assembly, destination, size).await;
        match self.explained(renamed, destination, 0).await? {
            Renamed::There | Renamed::Unseen => {}
            Renamed::Taken => {
                tracing::debug!(vessel = %self.vessel.settings.name, file = %version.path, "taken at once")
            }
        }
        self.flush_name(destination).await
    }

    /// Gives a whole assembly its mode and time, and flushes it. It is not opened for writing: some servers empty what is.
    pub(super) async fn finish(&self, version: &Version, assembly: &RemotePath) -> Result<(), Fault> {
        let attrs = Attrs { mode: Some(version.mode), times: times(&version.stamp), ..Attrs::default() };
        if !self.remote.fsync() {
            self.dress(version, assembly, attrs).await?;
            let flushed = self.flush_by_command(assembly).await;
            return self.explained(flushed, assembly, 0).await;
        }
        // Opened first: the mode need not let its owner read.
        let opening = self.remote.open(assembly, OpenFlags::READ, 0);
        let (file, dressed) = futures_util::future::join(opening, self.dress(version, assembly, attrs)).await;
        dressed?;
        let flushed = match file {
            Ok(file) => match file.flush().await {
                Ok(()) if self.remote.fsync() => file.close().await,
                Ok(()) => self.flush_by_command(assembly).await,
                Err(e) => Err(e),
            },
            Err(e) if e.is_refusal() => self.flush_by_command(assembly).await,
            Err(e) => Err(e),
        };
        self.explained(flushed, assembly, 0).await
    }

    /// As [`Self::finish`], for one that is open; closes it. One that isn't `alone` is flushed with others later.
    pub(super) async fn finish_open(
        &self,
        version: &Version,
        file: RemoteFile,
        alone: bool,
    ) -> Result<(), RemoteError> {
        let attrs = Attrs { mode: Some(version.mode), times: times(&version.stamp), ..Attrs::default() };
        let (path, by_sftp) = (file.path().clone(), self.remote.fsync());
        // Apart, and first: changing the owner takes bits of the mode away.
        if let Some(owner) = version.owner
            && let Err(e) = file.set(Attrs { owner: Some(owner), ..Attrs::default() }).await
        {
            tracing::warn!(vessel = %self.vessel.settings.name, file = %version.path, "{e}");
        }
        // A file system without modes (FAT) is no reason to keep the file back.
        if let Err(e) = file.finish(attrs, alone && by_sftp).await?
            && let Err(again) = self.remote.set(&path, attrs).await
        {
            tracing::debug!(vessel = %self.vessel.settings.name, file = %version.path, "{again}");
            tracing::warn!(vessel = %self.vessel.settings.name, file = %version.path, "{e}");
        }
        if alone && !(by_sftp && self.remote.fsync()) { self.flush_by_command(&path).await } else { Ok(()) }
    }

    /// Whether many files can be flushed at once, which is cheaper than one by one.
    pub(super) fn flushes_together(&self) -> bool {
        self.remote.capabilities().sync_file_system
    }

    /// Flushes a file along with others.
    pub(super) async fn flush_together(&self, path: &RemotePath) -> Result<(), Fault> {
        match self.batches.flush(path).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Fault::attempt(format_args!("{path} could not be flushed on the vessel"))),
            Err(e) => Err(e.fault()),
        }
    }

    /// Flushes a file with the vessel's `sync`, where it has one.
    async fn flush_by_command(&self, path: &RemotePath) -> Result<(), RemoteError> {
        if self.remote.capabilities().sync && !self.batches.flush(path).await? {
            tracing::warn!(vessel = %self.vessel.settings.name, file = %path, "the vessel could not flush it");
        }
        Ok(())
    }

    async fn flush(&self, file: &RemoteFile) -> Result<(), RemoteError> {
        if self.remote.fsync() { file.flush().await } else { self.flush_by_command(file.path()).await }
    }

    /// Gives a file that was found under its final name the mode and owner that it has here by now.
    pub(super) async fn dress_found(&self, version: &Version, destination: &RemotePath) -> Result<(), Fault> {
        let there = self.remote.look(destination).await.map_err(|e| e.fault())?;
        let same = there.is_some_and(|attrs| attrs.mode.is_some_and(|mode| mode & 0o7777 == version.mode));
        if same && version.owner.is_none() {
            return Ok(());
        }
        self.dress(version, destination, Attrs { mode: Some(version.mode), ..Attrs::default() }).await
    }

    /// Flushes a file that was found under its final name: nobody knows whether it ever was.
    pub(super) async fn flush_found(&self, destination: &RemotePath) -> Result<(), Fault> {
        let file = self.remote.open(destination, OpenFlags::READ, 0).await.map_err(|e| e.fault())?;
        self.flush(&file).await.map_err(|e| e.fault())?;
        file.close().await.map_err(|e| e.fault())?;
        self.flush_name(destination).await
    }

    /// Flushes the directory, without which the new name may not outlive a power cut.
    pub(super) async fn flush_name(&self, destination: &RemotePath) -> Result<(), Fault> {
        if !self.remote.capabilities().sync {
            return Ok(());
        }
        // Named by what lies in it: it may be where a file system is mounted, and that one is meant.
        let directory = destination.parent().unwrap_or_else(|| RemotePath::new(".")).join(".");
        self.batches.flush(&directory).await.map(|_| ()).map_err(|e| e.fault())
    }
}

/// Both times as SFTP has them, whole seconds from 1970 to 2106; `None` for a file from another age.
pub(super) fn times(stamp: &FileStamp) -> Option<(u32, u32)> {
    u32::try_from(stamp.mtime).ok().map(|seconds| (seconds, seconds))
}

/// Whether a file on the vessel looks like a version with this stamp, as far as that shows without reading it.
pub(super) fn looks_like(stamp: &FileStamp, attrs: &Attrs) -> bool {
    (attrs.is_file() || !attrs.has_kind())
        && attrs.size == Some(stamp.size)
        && attrs.times.map(|(_, modified)| modified) == times(stamp).map(|(_, modified)| modified)
}
