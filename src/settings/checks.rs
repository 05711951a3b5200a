//! What sections must not do to each other.
//!
//! Looks at settings that are typed already, each sound by itself.

use super::directory::Directory;
use super::problems::{Diagnostic, Place, Problems};
use super::vessel::Vessel;

/// A directory that goes nowhere is allowed, but hardly meant.
pub(super) fn destinations(directories: &[(Directory, Place)], vessels: &[(Vessel, Place)], problems: &Problems) {
    for (directory, place) in directories {
        if !vessels.iter().any(|(vessel, _)| vessel.takes(&directory.name)) {
            let diagnostic = Diagnostic::new(
                "no vessel takes this directory: its files stay where they are",
                "take it out of a vessel's IgnoreDirs, name it in its Dirs, or remove the section",
            );
            problems.warn(place.clone(), diagnostic);
        }
    }
}
