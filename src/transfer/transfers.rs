//! What the deliveries of one session share: the connection, the ledger, the directories and the sources; and what follows
//! from them for each version.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use super::known_places::KnownPlaces;
use crate::bell::Bell;
use crate::digest::Digest;
use crate::fault::{Cause, Fault};
use crate::ledger::Ledger;
use crate::link::Session;
use crate::local::{DiskError, Source, SourceCache};
use crate::names::{DirectoryName, RemotePath, VesselName, assembly_name};
use crate::records::{Delivery, Version};
use crate::settings::{self, Links};

/// A directory's settings, and what to ring when a file of it was acknowledged.
type Served = (Arc<settings::Directory>, Bell);

/// All directories, as the settings have them now. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Directories {
    all: Arc<RwLock<HashMap<DirectoryName, Served>>>,
    /// Who goes to which of them meanwhile.
    pub(super) sessions: Registry,
}

impl Directories {
    /// A directory, where it is configured.
    pub(crate) fn get(&self, name: &DirectoryName) -> Option<Served> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The names of all.
    pub(crate) fn names(&self) -> Vec<DirectoryName> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// From now on, these are the directories.
    pub fn replace(&self, directories: HashMap<DirectoryName, Served>) {
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = directories;
    }
}

/// The sessions that are under way, by vessel.
#[derive(Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<HashMap<VesselName, Weak<Transfers>>>>);

impl Registry {
    /// Adds one, and gives the others.
    pub(crate) fn join(&self, transfers: &Arc<Transfers>) -> Vec<Arc<Transfers>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = &transfers.session.settings.name;
        all.insert(name.clone(), Arc::downgrade(transfers));
        all.iter().filter(|(other, _)| *other != name).filter_map(|(_, other)| other.upgrade()).collect()
    }
}

/// The deliveries of one session.
pub(crate) struct Transfers {
    pub(crate) session: Arc<Session>,
    pub(crate) ledger: Ledger,
    pub(crate) directories: Directories,
    /// Where sources are read, shared with the other vessels.
    pub(crate) source_cache: SourceCache,
    /// Which directories' places are known not to be their sources.
    pub(super) own_places: KnownPlaces,
}

impl Transfers {
    pub(crate) fn new(
        session: Arc<Session>,
        ledger: Ledger,
        directories: Directories,
        source_cache: SourceCache,
    ) -> Self {
        Self { session, ledger, directories, source_cache, own_places: KnownPlaces::default() }
    }

    /// Where a version goes. The directory is configured: deliveries of others are not asked for.
    pub(super) fn destination(&self, version: &Version) -> Result<RemotePath, Fault> {
        match self.directories.get(&version.directory) {
            Some((directory, _)) => Ok(self.session.settings.destination(&directory, &version.path)),
            None => Err(Fault::file(format_args!("[Directory {}] is not configured any more", version.directory))
                .mend(format_args!(
                    "add it to the settings again, or give up its undelivered files: contentmonster forget --all '{}'",
                    version.directory
                ))
                .of(Cause::Settings)),
        }
    }

    /// Where a file is put together: beside its destination, whatever file system that is on, for the rename that ends the
    /// delivery must be one step.
    pub(crate) fn assembly(&self, delivery: &Delivery) -> Result<RemotePath, Fault> {
        let name = assembly_name(self.session.instance, delivery.id.0, delivery.token);
        let destination = self.destination(&delivery.version)?;
        Ok(destination.parent().map_or_else(|| RemotePath::new(name.as_str()), |dir| dir.join(&name)))
    }

    /// Opens the source, which must still be this version. All vessels that send it read it together.
    pub(super) async fn open_source(&self, version: &Version) -> Result<Source, Fault> {
        let Some((directory, _)) = self.directories.get(&version.directory) else {
            return Err(Fault::file("the directory is not configured any more").of(Cause::Settings));
        };
        let follow = directory.links == Links::Follow;
        let source = self.source_cache.open(&directory.location, &version.path, version.stamp, follow).await;
        let source = source.map_err(|error| source_fault(version, &error))?;
        if version.digest.is_none() {
            source.hash_on_the_way();
        }
        Ok(source)
    }

    /// The digest of a version, found out now where nobody knows it yet.
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

/// The source is another than the one that was admitted. The watch will see it and supersede this delivery.
pub(super) fn source_changed(version: &Version) -> Fault {
    let reason = format_args!("the source of {} was changed or removed after it was taken in", version.path);
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
