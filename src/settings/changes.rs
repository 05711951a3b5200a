//! What a change of the settings comes to while the program runs: which parts can follow it, and how. The rows of the tables of
//! keys say it of each key.

use super::directory::{self, Directory};
use super::key::Reload;
use super::monster::{self, Monster};
use super::table::Key;
use super::vessel::{self, Vessel};

impl Monster {
    /// Takes over what can change while the program runs; gives the keys of the others that differ.
    pub fn follow(&mut self, new: &Self) -> Vec<&'static str> {
        let mut waiting = Vec::new();
        let mut later = self.clone();
        for key in monster::KEYS {
            if key.known.reload == Reload::Restart {
                let before = later.clone();
                (key.field.copy)(&mut later, new);
                waiting.extend((later != before).then_some(key.known.name));
            } else {
                (key.field.copy)(self, new);
            }
        }
        waiting
    }

    /// Whether what runs beside the work does the same under another section.
    pub fn is_kept_and_told_like(&self, other: &Self) -> bool {
        let background = |key: &Key<Self>| key.known.reload == Reload::Background;
        with_those_of(self, other, monster::KEYS, background) == *self
    }
}

impl Directory {
    /// Whether what is under way to the vessels is the same under another section: where files are read and where they go.
    /// What only says which files are taken, and when, is the shore's affair.
    pub fn is_delivered_like(&self, other: &Self) -> bool {
        let shores = with_those_of(self, other, directory::KEYS, |key| key.known.reload != Reload::Transfers);
        Self { own_files: other.own_files.clone(), ..shores } == *other
    }
}

impl Vessel {
    /// Whether a vessel that is connected to can be left so under another section.
    pub fn is_served_like(&self, other: &Self) -> bool {
        with_those_of(self, other, vessel::KEYS, |key| key.known.reload != Reload::Transfers) == *other
    }
}

/// A section with those fields of another whose keys are wanted.
fn with_those_of<S: Clone>(section: &S, other: &S, keys: &[Key<S>], wanted: impl Fn(&Key<S>) -> bool) -> S {
    let mut mixed = section.clone();
    keys.iter().filter(|key| wanted(key)).for_each(|key| (key.field.copy)(&mut mixed, other));
    mixed
}
