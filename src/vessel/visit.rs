//! A visit: what lasts as long as one connection to the vessel.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell};

use super::Vessel;
use super::batch::Batches;
use super::temp_dir;
use crate::fault::Fault;
use crate::local::{DiskError, SourceFile};
use crate::monitor::Event;
use crate::names::{InstanceId, RemotePath, assembly_name, part_name};
use crate::records::Version;
use crate::transport::{Remote, RemoteError};

/// One connection, and what was found out or made on it.
pub(super) struct Visit {
    pub(super) vessel: Vessel,
    pub(super) remote: Remote,
    pub(super) batches: Batches,
    pub(super) instance: InstanceId,
    /// Held by the large file that is being uploaded: the next one starts when this one needs the link no more.
    pub(super) large_upload: Mutex<()>,
    temp_dir: OnceCell<()>,
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
            temp_dir: OnceCell::new(),
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

    /// Where a version is put together: beside its destination, whatever file system that is on, for the rename that ends
    /// the delivery must be one step.
    pub(super) fn assembly(&self, version: &Version) -> Result<RemotePath, Fault> {
        let name = assembly_name(self.instance, version.id.0);
        Ok(self.destination(version)?.parent().map_or_else(|| RemotePath::new(name.as_str()), |dir| dir.join(&name)))
    }

    pub(super) fn part(&self, version: &Version, chunk: u64) -> RemotePath {
        self.vessel.settings.temp_dir.join(part_name(self.instance, version.id.0, chunk))
    }

    /// Makes sure, once per connection, that TempDir is there and ours.
    pub(super) async fn prepare_temp_dir(&self) -> Result<(), Fault> {
        let prepare = || temp_dir::prepare(&self.remote, &self.vessel.settings, self.instance);
        self.temp_dir.get_or_try_init(prepare).await.map(|()| ())
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

/// How long an attempt that failed waits, at first and at most.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);
