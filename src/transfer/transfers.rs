//! State shared by the deliveries of one session: the connection, the ledger, the directories and the sources. Its
//! methods return the paths, the source and the digest of a version.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use tokio::sync::OnceCell;

use super::known_places::KnownPlaces;
use super::no_clones::NoClones;
use super::secured::SecuredFiles;
use crate::bell::Bell;
use crate::digest::Digest;
use crate::fault::{Cause, Fault};
use crate::ledger::Ledger;
use crate::link::Session;
use crate::local::{DiskError, Source, SourceCache};
use crate::names::{DirectoryName, RemotePath, VesselName, assembly_name};
use crate::records::{Delivery, Version};
use crate::settings::{self, Links};

/// A directory's settings, and the bell to ring when one of its files was acknowledged.
type Served = (Arc<settings::Directory>, Bell);

/// All directories with their current settings. Cheap to clone; all clones share their state.
#[derive(Clone, Default)]
pub struct Directories {
    all: Arc<RwLock<HashMap<DirectoryName, Served>>>,
    /// The directories that an operator paused.
    paused: Arc<RwLock<Arc<BTreeSet<DirectoryName>>>>,
    /// The number of calls of [`Directories::replace`] and [`Directories::pause`].
    replaced: Arc<AtomicU64>,
    /// The running sessions.
    pub(super) sessions: Registry,
}

impl Directories {
    /// Returns a directory if it is configured.
    pub(crate) fn get(&self, name: &DirectoryName) -> Option<Served> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Returns the names of all directories.
    pub(crate) fn names(&self) -> Vec<DirectoryName> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Replaces all directories.
    pub fn replace(&self, directories: HashMap<DirectoryName, Served>) {
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = directories;
        self.replaced.fetch_add(1, Ordering::Release);
    }

    /// Replaces the set of paused directories.
    pub fn pause(&self, paused: BTreeSet<DirectoryName>) {
        *self.paused.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(paused);
        self.replaced.fetch_add(1, Ordering::Release);
    }

    /// Returns the paused directories, whose files are not sent.
    pub(crate) fn paused(&self) -> Arc<BTreeSet<DirectoryName>> {
        self.paused.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns a number that changes whenever the directories are replaced or paused.
    pub(crate) fn generation(&self) -> u64 {
        self.replaced.load(Ordering::Acquire)
    }

    /// Returns the settings of all directories.
    pub(crate) fn settings(&self) -> Vec<Arc<settings::Directory>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.values().map(|(directory, _)| directory.clone()).collect()
    }
}

/// The running sessions, by vessel.
#[derive(Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<HashMap<VesselName, Weak<Transfers>>>>);

impl Registry {
    /// Adds a session and returns the running sessions of the other vessels.
    pub(crate) fn join(&self, transfers: &Arc<Transfers>) -> Vec<Arc<Transfers>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = &transfers.session.link.settings.name;
        all.insert(name.clone(), Arc::downgrade(transfers));
        all.iter().filter(|(other, _)| *other != name).filter_map(|(_, other)| other.upgrade()).collect()
    }
}

/// The shared state of one session's deliveries.
pub(crate) struct Transfers {
    pub(crate) session: Arc<Session>,
    pub(crate) ledger: Ledger,
    pub(crate) directories: Directories,
    /// Cache of source files, shared with the other vessels.
    pub(crate) source_cache: SourceCache,
    /// Markers that the loop for small files has left on the vessel. They can be removed, because their deliveries were
    /// acknowledged.
    pub(super) markers: Mutex<Vec<RemotePath>>,
    /// For each directory's place on the vessel, whether it was checked and may receive deliveries.
    pub(super) own_places: KnownPlaces,
    /// The running deliveries of moved files.
    pub(super) moved_files: SecuredFiles,
    /// Directories between which the vessel can't clone files.
    pub(super) no_clones: NoClones,
    /// The login directory on the vessel, after it was queried.
    pub(super) home: OnceCell<RemotePath>,
}

impl Transfers {
    pub(crate) fn new(
        session: Arc<Session>,
        ledger: Ledger,
        directories: Directories,
        source_cache: SourceCache,
    ) -> Self {
        Self {
            session,
            ledger,
            directories,
            source_cache,
            markers: Mutex::default(),
            own_places: KnownPlaces::default(),
            moved_files: SecuredFiles::default(),
            no_clones: NoClones::default(),
            home: OnceCell::new(),
        }
    }

    /// Waits until it is certain that no other process can do this vessel's work. Must be called right before a step
    /// that can't be undone.
    pub(super) async fn surely_ours(&self) -> Result<(), Fault> {
        self.ledger.surely_ours().await.map_err(|e| e.fault())
    }

    /// Returns the path of a version on the vessel. Fails if the version's directory is no longer configured, so that
    /// the delivery is parked.
    pub(super) fn destination(&self, version: &Version) -> Result<RemotePath, Fault> {
        match self.directories.get(&version.directory) {
            Some((directory, _)) => Ok(self.session.link.settings.destination(&directory, &version.path)),
            None => Err(Fault::file(format_args!("[Directory {}] is no longer in the settings", version.directory))
                .mend(format_args!(
                    "add [Directory {0}] to the settings again, or drop its undelivered files: \
                     contentmonster forget --all '{0}'",
                    version.directory
                ))
                .of(Cause::Settings)),
        }
    }

    /// Returns the path where a file is assembled. The path is beside the file's destination, because the final rename
    /// must be atomic, and therefore must stay on one file system.
    pub(crate) fn assembly(&self, delivery: &Delivery) -> Result<RemotePath, Fault> {
        let name = assembly_name(self.session.link.instance, delivery.id.0, delivery.token);
        let destination = self.destination(&delivery.version)?;
        Ok(destination.parent().map_or_else(|| RemotePath::new(name.as_str()), |dir| dir.join(&name)))
    }

    /// Opens the source file; fails if it is no longer this version. Deliveries of one version to several vessels share
    /// the reads from the disk.
    pub(super) async fn open_source(&self, version: &Version) -> Result<Source, Fault> {
        let source = self.open_unhashed(version).await?;
        if version.digest.is_none() {
            source.hash_on_the_way();
        }
        Ok(source)
    }

    /// Opens the source file like [`Self::open_source`], without starting to hash it.
    pub(super) async fn open_unhashed(&self, version: &Version) -> Result<Source, Fault> {
        let Some((directory, _)) = self.directories.get(&version.directory) else {
            return Err(Fault::file(format_args!("[Directory {}] is no longer in the settings", version.directory))
                .of(Cause::Settings));
        };
        let follow = directory.links == Links::Follow;
        let source = self.source_cache.open(&directory.location, &version.path, version.stamp, follow).await;
        source.map_err(|error| source_fault(version, &error))
    }

    /// Returns the digest of a version; computes and records it if it is unknown.
    pub(crate) async fn digest(&self, version: &Version) -> Result<Digest, Fault> {
        if let Some(digest) = version.digest {
            return Ok(digest);
        }
        let digest = self.open_source(version).await?.digest().await;
        let digest = digest.map_err(|error| source_fault(version, &error))?;
        self.ledger.hashed(version.id, &digest).await.map_err(|e| e.fault())?;
        Ok(digest)
    }
}

/// Returns the fault for a source that changed after it was taken in. Ingest records the new version, which supersedes
/// the delivery.
pub(super) fn source_changed(version: &Version) -> Fault {
    let reason = format_args!("the source of {} was changed or removed after it was taken in", version.path);
    Fault::attempt(reason).of(Cause::Source)
}

/// Returns the fault for a source that can't be read.
pub(super) fn source_fault(version: &Version, error: &DiskError) -> Fault {
    match error {
        DiskError::Changed { .. } => source_changed(version),
        error if error.is_gone() => source_changed(version),
        error => error.fault(),
    }
}
