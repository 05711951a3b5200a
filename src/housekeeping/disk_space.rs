//! Monitors free space on the shore's disks. While the ledger's disk is low on space, the shore admits no new files.
//! For other disks, the module only logs a warning.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use crate::local::FreeSpaces;
use crate::settings::Settings;

/// Time between two checks of the disks.
const BEAT: Duration = Duration::from_secs(5);

pub(super) struct Guard {
    free_spaces: FreeSpaces,
    /// The directory that contains the ledger, if the ledger is a file; then the locations of all directories.
    places: Vec<PathBuf>,
    /// Whether the ledger is a file.
    has_file: bool,
    min_free: u64,
    low_space: watch::Sender<Option<String>>,
    /// Paths whose disks were logged as low and have not recovered.
    short: HashSet<PathBuf>,
}

impl Guard {
    pub(super) fn new(settings: &Settings, free_spaces: FreeSpaces, low_space: watch::Sender<Option<String>>) -> Self {
        let file = settings.monster.database.file();
        let database = file.map(|file| file.parent().unwrap_or(Path::new("/")).to_owned());
        let locations = settings.directories.iter().map(|directory| directory.location.clone());
        let places = database.into_iter().chain(locations).collect();
        Self {
            free_spaces,
            places,
            has_file: file.is_some(),
            min_free: settings.monster.min_free,
            low_space,
            short: HashSet::new(),
        }
    }

    /// Checks the disks regularly; never returns.
    pub(super) async fn watch(&mut self) {
        loop {
            tokio::time::sleep(BEAT).await;
            self.look().await;
        }
    }

    /// Checks all disks, and logs which disks became low or recovered.
    pub(super) async fn look(&mut self) {
        if self.min_free == 0 {
            // With `MinFree = 0`, no disk counts as low. The ledger's disk may have been low before a reload of the
            // settings, so the reason is cleared.
            self.low_space.send_if_modified(|low_space| low_space.take().is_some());
            return;
        }
        let seen = self.free_spaces.at(&self.places).await;
        let mut disks = HashSet::new();
        for (at, (space, place)) in seen.into_iter().zip(self.places.clone()).enumerate() {
            // Skips a path whose free space is unknown: the module that uses the disk reports the disk's errors.
            let Some(space) = space else { continue };
            if disks.insert(space.disk) {
                self.judge(&place, space.free, at == 0 && self.has_file);
            }
        }
    }

    fn judge(&mut self, place: &Path, free: u64, is_ledgers: bool) {
        let is_short = free < self.min_free;
        let text = format!(
            "the disk of {} has {} KiB free, less than MinFree ({} KiB)",
            place.display(),
            free >> 10,
            self.min_free >> 10
        );
        if is_short && self.short.insert(place.to_owned()) {
            match is_ledgers {
                true => tracing::error!("Low disk space: {text}; no new files are taken in until space is freed"),
                false => tracing::warn!("Low disk space: {text}; free some space"),
            }
        } else if !is_short && self.short.remove(place) {
            tracing::info!("Enough free space again on the disk of {}", place.display());
        }
        if is_ledgers {
            // The text keeps the free space at the time when the disk became low, so that it doesn't change with every
            // check.
            self.low_space.send_if_modified(|low_space| match (is_short, low_space.is_some()) {
                (true, false) => {
                    *low_space = Some(format!("{text}; no new files are taken in until space is freed"));
                    true
                }
                (false, true) => {
                    *low_space = None;
                    true
                }
                _ => false,
            });
        }
    }
}
