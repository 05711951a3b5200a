//! Which directories' places on a vessel are known to be elsewhere than their sources.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::fault::Fault;
use crate::names::{DirectoryName, RemotePath};

/// What is known on one connection of the places of the directories: the fault, where they must not be delivered to.
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
