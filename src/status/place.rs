//! The parts of the settings that a status document needs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::queues::Sending;
use super::routes::Routes;
use crate::names::{DirectoryName, VesselName};
use crate::settings::Settings;

/// The parts of the settings that a status document needs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The vessels, in the order of the settings.
    pub vessels: Vec<VesselName>,
    /// The groups of each vessel.
    pub groups: HashMap<VesselName, Vec<String>>,
    /// The directories, in the order of the settings.
    pub directories: Vec<DirectoryName>,
    /// `ShoreName`.
    pub shore: String,
    /// The path of the ledger's file, or the address of its database.
    pub database: String,
    /// Paths on the disks whose free space is shown: the directory of the ledger's file, if the ledger is a file, then
    /// the location of each directory.
    pub disks: Vec<PathBuf>,
    /// Whether the ledger is a file, so that the first of `disks` is the ledger's.
    pub has_ledger_file: bool,
    /// `MinFree`, in bytes.
    pub min_free: u64,
    /// Priorities, schedules and rate limits.
    pub(super) sending: Arc<Sending>,
    /// The ways to each vessel that has several ways or a link, and all budgets.
    pub routes: Routes,
}

impl Place {
    /// Takes these parts from the settings.
    pub fn of(settings: &Settings) -> Self {
        Self {
            vessels: settings.vessels.iter().map(|vessel| vessel.name.clone()).collect(),
            groups: settings.vessels.iter().map(|vessel| (vessel.name.clone(), vessel.groups.clone())).collect(),
            directories: settings.directories.iter().map(|directory| directory.name.clone()).collect(),
            shore: settings.monster.shore_name.clone(),
            database: settings.monster.database.to_string(),
            disks: disks(settings),
            has_ledger_file: settings.monster.database.file().is_some(),
            min_free: settings.monster.min_free,
            sending: Arc::new(Sending::of(settings)),
            routes: Routes::of(settings),
        }
    }
}

fn disks(settings: &Settings) -> Vec<PathBuf> {
    let ledger = settings.monster.database.file().and_then(Path::parent).map(Path::to_owned);
    ledger.into_iter().chain(settings.directories.iter().map(|directory| directory.location.clone())).collect()
}
