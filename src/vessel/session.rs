//! A session: what lasts as long as one connection to the vessel.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{Mutex, OnceCell};
use tokio_util::sync::CancellationToken;

use super::Vessel;
use super::channel_pool::ChannelPool;
use super::command_batch::CommandBatcher;
use super::ours::{Owners, open_new};
use super::preconnect::Coming;
use super::same_host::KnownPlaces;
use super::temp_dir;
use crate::digest::Digest;
use crate::fault::{Cause, Fault};
use crate::local::{Arrival, DiskError, Source};
use crate::monitor::Event;
use crate::names::{InstanceId, RemotePath, assembly_name, part_name};
use crate::records::{Delivery, Version};
use crate::settings::Links;
use crate::transport::{Attrs, ErrorKind, Lane, OpenFlags, Remote, RemoteError, RemoteFile};

/// Who has sent so many bytes has begun in earnest: the servers and shells of many vessels on one host start in turn.
const UNDER_WAY: u64 = 8 << 20;

/// The mode of a file that is being put together.
pub(super) const OURS: u32 = 0o600;

/// One connection, and what was found out or made on it.
pub(super) struct Session {
    pub(super) vessel: Vessel,
    pub(super) remote: Remote,
    pub(super) lanes: ChannelPool,
    pub(super) commands: CommandBatcher,
    pub(super) instance: InstanceId,
    /// Held by the large file that is being uploaded: the next one starts when this one needs the link no more.
    pub(super) large_upload: Mutex<()>,
    /// Cancelled when the session is about to end: no more bytes of large files go out.
    pub(super) resting: CancellationToken,
    /// Whether the vessel was found to take a file only as one stream from its start to its end.
    pub(super) streams_only: AtomicBool,
    /// Bytes of files that were sent in this session: with any, it was not in vain, however it ends.
    sent: AtomicU64,
    /// Others that read the same wait for this vessel until it has begun to.
    arrival: std::sync::Mutex<Option<Arrival>>,
    /// What was made or found on this connection and is not asked for again, until something shows that it is gone.
    temp_dir: Mutex<bool>,
    made_dirs: Mutex<HashMap<RemotePath, Arc<OnceCell<()>>>>,
    /// Which directories' places are known not to be their sources.
    pub(super) places: KnownPlaces,
    /// Who owns what is made here.
    pub(super) owners: Owners,
}

impl Session {
    pub(super) fn new(vessel: Vessel, remote: Remote, coming: Vec<Coming>, arrival: Option<Arrival>) -> Self {
        Self {
            instance: vessel.ledger.instance(),
            lanes: ChannelPool::new(remote.lane().clone(), coming),
            commands: CommandBatcher::new(&remote),
            vessel,
            remote,
            large_upload: Mutex::new(()),
            resting: CancellationToken::new(),
            streams_only: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            arrival: std::sync::Mutex::new(arrival),
            temp_dir: Mutex::new(false),
            made_dirs: Mutex::default(),
            places: KnownPlaces::default(),
            owners: Owners::default(),
        }
    }

    /// Where a version goes. The directory is configured: deliveries of others are not asked for.
    pub(super) fn destination(&self, version: &Version) -> Result<RemotePath, Fault> {
        match self.vessel.directories.get(&version.directory) {
            Some((directory, _)) => Ok(self.vessel.settings.destination(&directory, &version.path)),
            None => Err(Fault::file(format_args!("[Directory {}] is not configured any more", version.directory))
                .mend(format_args!(
                    "write it again in the settings, or give up what waits in it: contentmonster forget --all '{}'",
                    version.directory
                ))
                .of(Cause::Settings)),
        }
    }

    /// Where a file is put together: beside its destination, whatever file system that is on, for the rename that ends the
    /// delivery must be one step.
    pub(super) fn assembly(&self, delivery: &Delivery) -> Result<RemotePath, Fault> {
        let name = assembly_name(self.instance, delivery.id.0, delivery.token);
        let destination = self.destination(&delivery.version)?;
        Ok(destination.parent().map_or_else(|| RemotePath::new(name.as_str()), |dir| dir.join(&name)))
    }

    pub(super) fn part(&self, delivery: &Delivery, start: u64) -> RemotePath {
        self.vessel.settings.temp_dir.join(part_name(self.instance, delivery.id.0, start))
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
        let made = self.made_dirs.lock().await.entry(directory.clone()).or_default().clone();
        let making = || async {
            let made = self.remote.make_dirs(directory).await;
            self.explained(made, directory, 0).await
        };
        made.get_or_try_init(making).await.copied()
    }

    /// Forgets that a directory, and those below it, were made on this connection: it is about to be removed.
    pub(super) async fn forget_dirs(&self, directory: &RemotePath) {
        let below = [directory.as_bytes(), b"/"].concat();
        self.made_dirs.lock().await.retain(|made, _| made != directory && !made.as_bytes().starts_with(&below));
    }

    /// Opens a file of ours for writing, on a lane; with [`OpenFlags::FRESH`], a new one.
    ///
    /// An earlier attempt may have given it the source's mode already, which need not let its owner write. And a directory
    /// that is gone (cleaned up by the vessel's system) is made anew by the next attempt.
    pub(super) async fn open_ours(
        &self,
        lane: &Lane,
        path: &RemotePath,
        flags: OpenFlags,
        needed: u64,
    ) -> Result<RemoteFile, Fault> {
        let opened = match flags {
            OpenFlags::FRESH => open_new(&self.remote, lane, path).await,
            flags => self.open_there(lane, path, flags).await,
        };
        // Some servers say no more of a missing directory than that it failed.
        if opened.as_ref().is_err_and(|e| matches!(e.kind, ErrorKind::NotFound | ErrorKind::Failed)) {
            *self.temp_dir.lock().await = false;
            self.made_dirs.lock().await.clear();
        }
        self.explained(opened, path, needed).await
    }

    pub(super) async fn open_there(
        &self,
        lane: &Lane,
        path: &RemotePath,
        flags: OpenFlags,
    ) -> Result<RemoteFile, RemoteError> {
        match lane.open(path, flags, OURS).await {
            Err(e) if e.kind == ErrorKind::Denied => {
                // When this fails too, what counts is that the file can't be opened.
                let _ = self.remote.set(path, Attrs { mode: Some(OURS), ..Attrs::default() }).await;
                lane.open(path, flags, OURS).await
            }
            opened => opened,
        }
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

    /// Opens the source, which must still be this version. All vessels that send it read it together.
    pub(super) async fn open_source(&self, version: &Version) -> Result<Source, Fault> {
        let Some((directory, _)) = self.vessel.directories.get(&version.directory) else {
            return Err(Fault::file("the directory is not configured any more").of(Cause::Settings));
        };
        let follow = directory.links == Links::Follow;
        let source = self.vessel.feed.open(&directory.location, &version.path, version.stamp, follow).await;
        let source = source.map_err(|error| source_fault(version, &error))?;
        if version.digest.is_none() {
            source.hash_on_the_way();
        }
        Ok(source)
    }

    /// The digest of a version, found out now where nobody knows it yet.
    pub(super) async fn digest(&self, version: &Version) -> Result<Digest, Fault> {
        if let Some(digest) = version.digest {
            return Ok(digest);
        }
        let digest = self.open_source(version).await?.digest().await;
        let digest = digest.map_err(|error| source_fault(version, &error))?;
        self.vessel.ledger.hashed(version.id, &digest).await.map_err(|e| e.fault())?;
        Ok(digest)
    }

    /// Waits until so many bytes of a file may go out; for ever, once the session is about to end.
    pub(super) async fn may_send(&self, bytes: u64) {
        match self.resting.run_until_cancelled(self.vessel.limit.take(bytes)).await {
            Some(()) => {}
            None => std::future::pending().await,
        }
    }

    /// Reports bytes that were sent.
    pub(super) fn sent(&self, version: &Version, bytes: u64) {
        let before = self.sent.fetch_add(bytes, Ordering::Relaxed);
        if before < UNDER_WAY && before + bytes >= UNDER_WAY {
            self.has_arrived();
        }
        self.taken(version, bytes, false);
    }

    /// Whether anything was sent.
    pub(super) fn has_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed) > 0
    }

    /// It reads by now, or has nothing to read.
    pub(super) fn has_arrived(&self) {
        let arrival = self.arrival.lock().expect("no code panics while it holds this lock").take();
        drop(arrival);
    }

    /// Reports bytes that the vessel was found to hold.
    pub(super) fn found(&self, version: &Version, bytes: u64) {
        self.taken(version, bytes, true);
    }

    fn taken(&self, version: &Version, bytes: u64, found: bool) {
        if bytes > 0 {
            let vessel = &self.vessel.settings.name;
            self.vessel.monitor.notice(&Event::Taken { vessel, version: version.id, bytes, found });
        }
    }
}

/// The source is another than the one that was admitted. The watch will see it and supersede this delivery.
pub(super) fn source_changed(version: &Version) -> Fault {
    let reason = format_args!("the source of {} changed or went away after it was taken in", version.path);
    Fault::attempt(reason).of(Cause::Source)
}

/// What follows when a source can't be read.
pub(super) fn source_fault(version: &Version, error: &DiskError) -> Fault {
    match error {
        DiskError::Changed { .. } => source_changed(version),
        error if error.is_gone() => source_changed(version),
        error => error.fault(),
    }
}
