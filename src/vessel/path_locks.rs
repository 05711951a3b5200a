//! The paths that running deliveries have locked. Of two deliveries with the same path, or with one path inside the
//! other, only one runs at a time. Otherwise one delivery could put a file into a directory that the other one is
//! removing.

use std::collections::HashMap;

use crate::names::{DirectoryName, RelPath};

/// Number of deliveries that have locked a path, and number of deliveries that have locked a path below it.
#[derive(Default)]
struct Claims {
    here: usize,
    below: usize,
}

/// The locked paths, by directory.
#[derive(Default)]
pub(super) struct PathLocks(HashMap<DirectoryName, HashMap<Vec<u8>, Claims>>);

/// Returns the parents of a path, nearest first.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

impl PathLocks {
    /// Returns whether no delivery has locked this path, a path below it or a path above it.
    pub(super) fn is_free(&self, directory: &DirectoryName, path: &RelPath) -> bool {
        let Some(taken) = self.0.get(directory) else { return true };
        let bytes = path.as_bytes();
        !taken.contains_key(bytes) && !above(bytes).any(|above| taken.get(above).is_some_and(|claims| claims.here > 0))
    }

    /// Locks a path.
    pub(super) fn take(&mut self, directory: &DirectoryName, path: &RelPath) {
        let taken = self.0.entry(directory.clone()).or_default();
        taken.entry(path.as_bytes().to_vec()).or_default().here += 1;
        for above in above(path.as_bytes()) {
            taken.entry(above.to_vec()).or_default().below += 1;
        }
    }

    /// Unlocks a path.
    pub(super) fn leave(&mut self, directory: &DirectoryName, path: &RelPath) {
        let Some(taken) = self.0.get_mut(directory) else { return };
        let mut give_back = |path: &[u8], claim: fn(&mut Claims) -> &mut usize| {
            if let Some(claims) = taken.get_mut(path) {
                *claim(claims) -= 1;
                if claims.here + claims.below == 0 {
                    taken.remove(path);
                }
            }
        };
        give_back(path.as_bytes(), |claims| &mut claims.here);
        above(path.as_bytes()).for_each(|above| give_back(above, |claims| &mut claims.below));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_others_from_itself_from_what_is_above_and_from_what_is_below() {
        let directory = DirectoryName::new("d");
        let path = |path: &str| RelPath::new(path).unwrap();
        let mut places = PathLocks::default();
        places.take(&directory, &path("a/b/c"));
        let free = |places: &PathLocks, at: &str| places.is_free(&directory, &path(at));
        for taken in ["a", "a/b", "a/b/c", "a/b/c/d"] {
            assert!(!free(&places, taken), "{taken}");
        }
        for other in ["a/b/d", "a/c", "b", "a/b/cc"] {
            assert!(free(&places, other), "{other}");
        }
        assert!(places.is_free(&DirectoryName::new("e"), &path("a")));
        places.take(&directory, &path("a/x"));
        places.leave(&directory, &path("a/b/c"));
        assert!(!free(&places, "a") && free(&places, "a/b"));
        places.leave(&directory, &path("a/x"));
        assert!(free(&places, "a"));
        assert!(places.0[&directory].is_empty());
    }
}
