//! Checks between sections that are each valid on their own.

use super::directory::Directory;
use super::problems::{Diagnostic, Place, Problems};
use super::schedule::Schedule;
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

/// Reports directories whose schedule and that of a vessel are never open at the same time.
pub(super) fn windows(directories: &[(Directory, Place)], vessels: &[(Vessel, Place)], problems: &Problems) {
    for (vessel, place) in vessels {
        for (directory, _) in directories.iter().filter(|(directory, _)| vessel.takes(&directory.name)) {
            let schedules = vessel.schedules(directory);
            if !schedules.is_empty() && Schedule::never_open(&schedules) {
                let name = &directory.name;
                let message = match schedules.len() {
                    1 => format!("the Schedule for [Directory {name}] is never open"),
                    _ => format!("this Schedule and that of [Directory {name}] are never open at the same time"),
                };
                let remedy = format!("let their windows overlap, or add {name} to IgnoreDirs of this vessel");
                problems.report(place.clone().at_key("Schedule"), Diagnostic::new(message, remedy));
            }
        }
    }
}
