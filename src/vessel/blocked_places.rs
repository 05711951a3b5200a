//! Places on the vessel that accept no data for now: a full or read-only file system, or an exhausted quota. Only files
//! for such a place are held back, and the place is probed until it accepts data again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::retry_waits::UNHURRIED;
use crate::fault::Fault;
use crate::names::{DirectoryName, RemotePath};
use crate::records::Delivery;
use crate::transfer::Transfers;
use crate::transfer::{place_of, place_of_version, space_at};
use crate::transport::Space;

/// Identity of a place: its file system if the vessel reports one, otherwise the configured directory.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Place {
    FileSystem(u64),
    Directory(DirectoryName),
}

struct Trouble {
    /// Path at which the place is probed.
    at: RemotePath,
    /// Whether a query of the free space shows that the place is blocked. Otherwise the block ends after a wait, and
    /// the write is retried.
    is_told: bool,
    failures: u32,
    next_look: Instant,
    /// Directories whose files go to the place.
    directories: Vec<DirectoryName>,
}

/// Consequence for a delivery that its place rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// The place is blocked: all its files are held back from now on.
    Blocked,
    /// The place was already known to be blocked.
    Known,
    /// Only this file is held back: it is too large for the place's current free space, or its path is on another file
    /// system than its directory.
    TooLarge,
}

/// The blocked places of one vessel.
#[derive(Default)]
pub(super) struct BlockedPlaces(HashMap<Place, Trouble>);

impl BlockedPlaces {
    /// Returns the directories whose files are held back.
    pub(super) fn directories(&self) -> Vec<DirectoryName> {
        self.0.values().flat_map(|trouble| trouble.directories.iter().cloned()).collect()
    }

    /// Returns whether the files of a directory are held back.
    pub(super) fn holds_back(&self, directory: &DirectoryName) -> bool {
        self.0.values().any(|trouble| trouble.directories.contains(directory))
    }

    /// Returns the time until the next place must be probed; `None` if no place is blocked.
    pub(super) fn next_look(&self) -> Option<Duration> {
        let next = self.0.values().map(|trouble| trouble.next_look).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Records that a delivery was rejected by its place, and returns the consequence for the delivery.
    pub(super) async fn note(&mut self, transfers: &Transfers, delivery: &Delivery) -> Result<Consequence, Fault> {
        let (directory, size) = (&delivery.version.directory, delivery.version.stamp.size);
        if self.holds_back(directory) {
            return Ok(Consequence::Known);
        }
        let at = place_of_version(transfers, &delivery.version)?;
        let space = space_at(&transfers.session, &at).await?;
        let is_told = space.is_some_and(|space| space.takes_nothing());
        if !is_told && space.is_some_and(|space| !space.has_room_for(size)) {
            return Ok(Consequence::TooLarge);
        }
        // If the vessel does not report the condition, for example an exhausted quota, the error alone shows that the
        // place is blocked.
        let (place, directories) = match space.filter(|space| space.fs_id != 0) {
            None => (Place::Directory(directory.clone()), vec![directory.clone()]),
            Some(space) => (Place::FileSystem(space.fs_id), self.beside(transfers, directory, space, is_told).await?),
        };
        if !directories.contains(directory) {
            // The file's path is on another file system that is mounted below the directory, so the directory is not
            // blocked.
            return Ok(Consequence::TooLarge);
        }
        let next_look = Instant::now() + UNHURRIED.wait(1, 1.0);
        self.0.insert(place, Trouble { at, is_told, failures: 1, next_look, directories });
        Ok(Consequence::Blocked)
    }

    /// Returns the directories whose files go to the file system of `space`. If the vessel reports that the file system
    /// takes nothing (`is_told`), returns only directories whose places take nothing either; otherwise returns only
    /// `directory` itself.
    async fn beside(
        &self,
        transfers: &Transfers,
        directory: &DirectoryName,
        space: Space,
        is_told: bool,
    ) -> Result<Vec<DirectoryName>, Fault> {
        let mut directories = Vec::new();
        for name in transfers.directories.names() {
            let Some(place) = place_of(transfers, &name) else { continue };
            let there = space_at(&transfers.session, &place).await?;
            // One project or dataset of a file system may be full while others still have space.
            let is_alike = there.is_some_and(|it| it.fs_id == space.fs_id && (!is_told || it.takes_nothing()));
            if is_alike {
                directories.push(name);
            }
        }
        if !is_told {
            directories.retain(|name| name == directory);
        }
        Ok(directories)
    }

    /// Probes the places that are due. Returns whether writing to one of them must be tried again.
    ///
    /// # Errors
    /// Fails if the connection is lost.
    pub(super) async fn look(&mut self, transfers: &Transfers) -> Result<bool, Fault> {
        let now = Instant::now();
        let mut free = Vec::new();
        for (place, trouble) in self.0.iter_mut().filter(|(_, trouble)| trouble.next_look <= now) {
            let is_blocked = trouble.is_told
                && space_at(&transfers.session, &trouble.at).await?.is_some_and(|it| it.takes_nothing());
            if is_blocked {
                trouble.failures += 1;
                trouble.next_look = now + UNHURRIED.wait(trouble.failures, 1.0);
            } else {
                free.push(place.clone());
            }
        }
        for place in &free {
            if let Some(trouble) = self.0.remove(place) {
                let (vessel, directories) = (&transfers.session.link.settings.name, said(&trouble.directories));
                tracing::info!(
                    %vessel, %directories, place = %trouble.at,
                    "Retrying deliveries to a path that could not be written to"
                );
            }
        }
        Ok(!free.is_empty())
    }
}

/// Joins names with commas.
pub(super) fn said(directories: &[DirectoryName]) -> String {
    directories.iter().map(DirectoryName::as_str).collect::<Vec<_>>().join(", ")
}
