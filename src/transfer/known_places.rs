//! Remembers which places (the directories on a vessel to which a configured directory is delivered) were checked and
//! may receive deliveries.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::fault::Fault;
use crate::names::{DirectoryName, RemotePath};

/// Results of the checks on one connection, by directory and place: the fault if the place must not receive deliveries,
/// otherwise `None`.
#[derive(Default)]
pub(super) struct KnownPlaces(Mutex<HashMap<(DirectoryName, RemotePath), Option<Fault>>>);

impl KnownPlaces {
    pub(crate) fn get(&self, name: &DirectoryName, place: &RemotePath) -> Option<Option<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(name.clone(), place.clone())).cloned()
    }

    pub(crate) fn set(&self, name: &DirectoryName, place: &RemotePath, refused: Option<Fault>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((name.clone(), place.clone()), refused);
    }
}
