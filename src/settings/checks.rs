//! Checks between sections that are each valid on their own.

use super::directory::Directory;
use super::problems::{Diagnostic, Place, Problems};
use super::vessel::Vessel;

/// Warns of directories without a vessel, which are allowed but probably a mistake.
pub(super) fn destinations(directories: &[(Directory, Place)], vessels: &[(Vessel, Place)], problems: &Problems) {
    for (directory, place) in directories {
        if !vessels.iter().any(|(vessel, _)| vessel.takes(&directory.name)) {
            let diagnostic = Diagnostic::new(
                "no vessel takes this directory: its files stay where they are",
                "add the directory to a vessel's Dirs, remove it from a vessel's IgnoreDirs, or remove this section",
            );
            problems.warn(place.clone(), diagnostic);
        }
    }
}
