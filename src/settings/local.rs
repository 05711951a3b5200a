//! `Transport = local`: locations of directories on this host, and their checks.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::directory::Directory;
use super::problems::{Diagnostic, Place, Problems};
use super::reach::Reach;
use super::vessel::{LocalPlace, Vessel};
use crate::names::RemotePath;

impl Vessel {
    /// If the vessel is this host, updates the `places` and `sources` in [`Self::local`]. `directories` must be all
    /// directories.
    #[must_use]
    pub fn find_places<'a>(mut self, directories: impl IntoIterator<Item = &'a Directory> + Clone) -> Self {
        let Some(mut target) = self.local.take() else { return self };
        let taken = directories.clone().into_iter().filter(|directory| self.takes(&directory.name));
        let place = |directory: &Directory| LocalPlace {
            directory: directory.name.clone(),
            path: path_of(self.remote_location(directory)),
            is_file: directory.only.is_some(),
        };
        target.places = taken.map(place).collect();
        let source = |directory: &Directory| match &directory.only {
            Some(only) => directory.location.join(Path::new(std::ffi::OsStr::from_bytes(only.as_bytes()))),
            None => directory.location.clone(),
        };
        target.sources = directories.into_iter().map(source).collect();
        self.local = Some(target);
        self
    }
}

fn path_of(remote: &RemotePath) -> PathBuf {
    Path::new(std::ffi::OsStr::from_bytes(remote.as_bytes())).components().collect()
}

/// Reports a location on a local vessel that contains the `Location` of a directory or is inside one: a delivered file
/// would become a new source, or a copy of another file would replace a source. Also reports relative locations, and
/// locations that are not below the `MountPoint`.
pub(super) fn check_places(
    directories: &[(Directory, Place)],
    locations: &[Reach],
    vessels: &[(Vessel, Place)],
    problems: &Problems,
) {
    for (vessel, vessel_place) in vessels {
        let Some(target) = &vessel.local else { continue };
        for (directory, directory_place) in directories.iter().filter(|(d, _)| vessel.takes(&d.name)) {
            let of_vessel = format!("RemoteLocation.{}", directory.name);
            let (place, key) = match vessel.remote_locations.contains_key(&directory.name) {
                true => (vessel_place, of_vessel.as_str()),
                false => (directory_place, "RemoteLocation"),
            };
            let refuse = |message: String, path: &str| {
                let remedy = format!("set `{of_vessel}` in [Vessel {}] to {path}", vessel.name);
                problems.report(place.clone().at_key(key), Diagnostic::new(message, remedy));
            };
            let path = path_of(vessel.remote_location(directory));
            let shown = path.display();
            if !path.is_absolute() {
                refuse(
                    format!("`{shown}` is relative, and Transport = local has no login directory"),
                    "an absolute path",
                );
                continue;
            }
            let reach = Reach::of(std::slice::from_ref(&path)).remove(0);
            let meets = |location: &Reach| location.holds(&reach).is_some() || reach.holds(location).is_some();
            let overlapping = directories.iter().zip(locations).find(|(_, location)| meets(location));
            if let Some(((other, _), _)) = overlapping {
                let source = other.location.display();
                refuse(
                    format!("{shown} on this host overlaps with the Location of [Directory {}], {source}", other.name),
                    "a path outside of all Locations",
                );
            } else if let Some(mount_point) = target.mount_point.as_ref().filter(|at| !path.starts_with(at)) {
                let mount_point = mount_point.display();
                refuse(
                    format!("{shown} is not below the MountPoint of [Vessel {}], {mount_point}", vessel.name),
                    &format!("a path below {mount_point}"),
                );
            }
        }
    }
}
