//! A visit: what lasts as long as one connection to the vessel.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;

use super::Vessel;
use super::batch::Batches;
use super::temp_dir;
use crate::fault::Fault;
use crate::local::{DiskError, SourceFile};
use crate::monitor::Event;
use crate::names::{InstanceId, RemotePath, assembly_name, part_name};
use crate::records::{Delivery, Version};
use crate::transport::{Attrs, ErrorKind, OpenFlags, Remote, RemoteError, RemoteFile};

/// One connection, and what was found out or made on it.
pub(super) struct Visit {
    pub(super) vessel: Vessel,
    pub(super) remote: Remote,
    pub(super) batches: Batches,
    pub(super) instance: InstanceId,
    /// Held by the large file that is being uploaded: the next one starts when this one needs the link no more.
    pub(super) large_upload: Mutex<()>,
    /// Whether bytes of a file were sent in this visit: it was not in vain, however it ends.
    pub(super) progress: AtomicBool,
    /// What was made or found on this connection and is not asked for again, until something shows that it is gone.
    temp_dir: Mutex<bool>,
    made_dirs: Mutex<HashSet<RemotePath>>,
}

impl Visit {
    pub(super) fn new(vessel: Vessel, remote: Remote) -> Self {
        Self {
            instance: vessel.ledger.instance(),
            batches: Batches::new(&remote),
            vessel,
            remote,
            large_upload: Mutex::new(()),
            progress: AtomicBool::new(false),
            temp_dir: Mutex::new(false),
            made_dirs: Mutex::new(HashSet::new()),
        }
    }

    /// Where a version goes. The directory is configured: deliveries of others are not asked for.
    pub(super) fn destination(&self, version: &Version) -> Result<RemotePath, Fault> {
        match self.vessel.directories.get(&version.directory) {
            Some((directory, _)) => Ok(self.vessel.settings.remote_location(directory).join_rel(&version.path)),
            None => Err(Fault::file(format_args!("[Directory {}] is not configured any more", version.directory))
                .mend("configure it again, or let the delivery rest")),
        }
    }

    /// Where a file is put together: beside its destination, whatever file system that is on, for the rename that ends the
    /// delivery must be one step.
    pub(super) fn assembly(&self, delivery: &Delivery) -> Result<RemotePath, Fault> {
        let name = assembly_name(self.instance, delivery.id.0);
        let destination = self.destination(&delivery.version)?;
        Ok(destination.parent().map_or_else(|| RemotePath::new(name.as_str()), |dir| dir.join(&name)))
    }

    pub(super) fn part(&self, delivery: &Delivery, chunk: u64) -> RemotePath {
        self.vessel.settings.temp_dir.join(part_name(self.instance, delivery.id.0, chunk))
    }

    /// Makes sure that TempDir is there and ours.
    pub(super) async fn prepare_temp_dir(&self) -> Result<(), Fault> {
        let mut prepared = self.temp_dir.lock().await;
        if !*prepared {
            temp_dir::prepare(&self.remote, &self.vessel.settings, self.instance).await?;
            *prepared = true;
        }
        Ok(())
    }

    /// Makes a directory on the vessel, unless that was done on this connection.
    pub(super) async fn make_dirs(&self, directory: &RemotePath) -> Result<(), Fault> {
        if self.made_dirs.lock().await.contains(directory) {
            return Ok(());
        }
        let made = self.remote.make_dirs(directory).await;
        self.explained(made, directory, 0).await?;
        self.made_dirs.lock().await.insert(directory.clone());
        Ok(())
    }

    /// Opens a file of ours for writing.
    ///
    /// An earlier attempt may have given it the source's mode already, which need not let its owner write. And a directory
    /// that is gone (cleaned up by the vessel's system) is made anew by the next attempt.
    pub(super) async fn open_ours(
        &self,
        path: &RemotePath,
        flags: OpenFlags,
        needed: u64,
    ) -> Result<RemoteFile, Fault> {
        const OURS: u32 = 0o600;
        let opened = match self.remote.open(path, flags, OURS).await {
            Err(e) if e.kind == ErrorKind::Denied => {
                // When this fails too, what counts is that the file can't be opened.
                let _ = self.remote.set(path, Attrs { mode: Some(OURS), ..Attrs::default() }).await;
                self.remote.open(path, flags, OURS).await
            }
            opened => opened,
        };
        if opened.as_ref().is_err_and(RemoteError::is_not_found) {
            *self.temp_dir.lock().await = false;
            self.made_dirs.lock().await.clear();
        }
        self.explained(opened, path, needed).await
    }

    /// Finds out why a write failed, where the vessel said no more than that.
    pub(super) async fn explained<T>(
        &self,
        result: Result<T, RemoteError>,
        at: &RemotePath,
        needed: u64,
    ) -> Result<T, Fault> {
        match result {
            Ok(value) => Ok(value),
            Err(e) => Err(self.remote.explain(e, at, needed).await.fault()),
        }
    }

    /// Opens the source, which must still be this version.
    pub(super) async fn open_source(&self, version: &Version) -> Result<Arc<SourceFile>, Fault> {
        let Some((directory, _)) = self.vessel.directories.get(&version.directory) else {
            return Err(Fault::file("the directory is not configured any more"));
        };
        let (location, path, stamp) = (directory.location.clone(), version.path.clone(), version.stamp);
        let opening = tokio::task::spawn_blocking(move || -> Result<Option<SourceFile>, DiskError> {
            let source = SourceFile::open(&location, &path)?;
            Ok((source.stamp()? == stamp).then_some(source))
        });
        match opening.await.map_err(|e| Fault::daemon(format_args!("opening a source: {e}")))? {
            Ok(Some(source)) => Ok(Arc::new(source)),
            Ok(None) => Err(source_changed(version)),
            Err(e) if e.is_gone() => Err(source_changed(version)),
            Err(e) => Err(e.fault()),
        }
    }

    /// Reports bytes that were sent.
    pub(super) fn sent(&self, bytes: u64) {
        self.progress.store(true, Ordering::Relaxed);
        self.taken(bytes);
    }

    /// Reports bytes that the vessel holds.
    pub(super) fn taken(&self, bytes: u64) {
        if bytes > 0 {
            self.vessel.monitor.notice(&Event::Taken { vessel: &self.vessel.settings.name, bytes });
        }
    }
}

/// The source is another than the one that was admitted. The watch will see it and supersede this delivery.
pub(super) fn source_changed(version: &Version) -> Fault {
    Fault::attempt(format_args!("the source of {} changed or went away after it was taken in", version.path))
}
