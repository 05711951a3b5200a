//! What sections must not do to each other.
//!
//! Looks at settings that are typed already, each sound by itself.

use std::collections::HashMap;

use super::problems::{Complaint, Place, Problems};
use super::{Directory, Vessel};

/// Two directories over one location would retire each other's sources before they are delivered; mirrors take nothing away.
pub(super) fn locations(directories: &[(Directory, Place)], problems: &Problems) {
    let mut first = HashMap::new();
    for (directory, place) in directories {
        if let Some(other) = first.insert(&directory.location, directory)
            && !(directory.is_mirror() && other.is_mirror())
        {
            let message = format!("is the Location of [Directory {}] too", other.name);
            let remedy = "give each directory its own, or make one section of the two; only mirrors may share one";
            problems.report(place.clone().at_key("Location"), Complaint::new(message, remedy));
        }
    }
    for (directory, place) in directories {
        let chained = directories
            .iter()
            .find(|(other, _)| !other.is_mirror() && directory.location == other.location.join("processed"));
        if let Some((other, _)) = chained {
            let message = format!("is where [Directory {}] puts its delivered files", other.name);
            let remedy =
                "what is delivered there will be sent on from here; choose another Location if that isn't meant";
            problems.warn(place.clone().at_key("Location"), Complaint::new(message, remedy));
        }
    }
}

/// A directory that goes nowhere is allowed, but hardly meant.
pub(super) fn destinations(directories: &[(Directory, Place)], vessels: &[(Vessel, Place)], problems: &Problems) {
    for (directory, place) in directories {
        if !vessels.iter().any(|(vessel, _)| vessel.takes(&directory.name)) {
            let complaint = Complaint::new(
                "no vessel takes this directory: its files stay where they are",
                "take it out of a vessel's IgnoreDirs, name it in its Dirs, or remove the section",
            );
            problems.warn(place.clone(), complaint);
        }
    }
}
