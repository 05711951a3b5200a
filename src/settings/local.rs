//! `Transport = local`: a target on this host, and what must hold for it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::problems::{Diagnostic, Place, Problems};
use super::reach::Reach;
use super::view::View;
use super::{Directory, Settings, Vessel};
use crate::names::{DirectoryName, RemotePath};

/// A target on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalTarget {
    /// `MountPoint`: where something must be mounted before anything is written; `None`: nowhere.
    pub mount_point: Option<PathBuf>,
    /// Where its directories go.
    pub places: Vec<LocalPlace>,
    /// What is copied from this host, to this or any vessel: directories, or single files.
    pub sources: Vec<PathBuf>,
}

/// Where one directory goes on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPlace {
    /// The directory.
    pub directory: DirectoryName,
    /// Its `RemoteLocation`, absolute.
    pub path: PathBuf,
    /// Whether that is the path of its only file.
    pub is_file: bool,
}

impl LocalPlace {
    /// The directory that must be there, for it is never made.
    pub fn base(&self) -> &Path {
        if self.is_file { self.path.parent().unwrap_or(&self.path) } else { &self.path }
    }
}

impl Settings {
    /// Takes note of which `Location` is one file, which shows on the disk alone.
    pub fn find_single_files(&mut self, is_file: impl Fn(&Path) -> bool) {
        let directories = std::mem::take(&mut self.directories).into_iter();
        let found = directories.map(|one| if is_file(&one.location) { one.of_one_file() } else { one });
        self.directories = found.collect();
        self.find_places();
    }

    /// Has the local targets know where their directories go.
    pub(super) fn find_places(&mut self) {
        let vessels = std::mem::take(&mut self.vessels).into_iter();
        self.vessels = vessels.map(|vessel| vessel.find_places(&self.directories)).collect();
    }
}

impl Vessel {
    /// Has a local target know where these directories go, which are all there are.
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

/// `ssh` or `local`.
pub(super) fn is_local(text: &str) -> Result<bool, Diagnostic> {
    match text {
        "ssh" => Ok(false),
        "local" => Ok(true),
        _ => Err(Diagnostic::new(format!("`{text}` is no transport"), "give ssh or local")),
    }
}

/// Keys that say something of SSH alone.
const OF_SSH: [&str; 17] = [
    "SSHConfig",
    "ProxyJump",
    "Port",
    "Username",
    "Password",
    "PasswordFile",
    "IdentityFile",
    "CertificateFile",
    "Passphrase",
    "PassphraseFile",
    "HostKey",
    "HostKeyPolicy",
    "Connections",
    "CongestionControl",
    "Compression",
    "Assembly",
    "Shell",
];

/// Reports keys of a local target's own section that mean nothing for it. Those of `[DEFAULT]` are meant for others.
pub(super) fn check_keys(view: &View<'_>, address: &str) {
    let entries = view.own.into_iter().flat_map(|own| own.entries.iter().map(move |entry| (own, entry)));
    for (section, entry) in entries {
        let place = section.place_of(entry);
        if OF_SSH.contains(&entry.key.as_str()) {
            let diagnostic =
                Diagnostic::new("means nothing with Transport = local, which uses no SSH", "remove the line");
            view.problems.report(place, diagnostic);
        } else if entry.key == "TempDir" {
            let message = "is not used with Transport = local: files are put together beside their destinations";
            view.problems.warn(place, Diagnostic::new(message, "remove the line"));
        }
    }
    if address != "localhost" {
        let diagnostic = Diagnostic::new("Transport = local copies on this host", "write `Address = localhost`");
        view.problems.report(view.place_of("Address"), diagnostic);
    }
}

/// A target must not hold what is copied, or lie in it: what is delivered would be taken for a new source, or a source
/// replaced by a copy of another.
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
            let refuse = |message: String| {
                let remedy =
                    format!("write `{of_vessel} = …` in [Vessel {}], a path of its own on this host", vessel.name);
                problems.report(place.clone().at_key(key), Diagnostic::new(message, remedy));
            };
            let path = path_of(vessel.remote_location(directory));
            let shown = path.display();
            if !path.is_absolute() {
                refuse(format!("`{shown}` is relative, and there is no login directory with Transport = local"));
                continue;
            }
            let reach = Reach::of(std::slice::from_ref(&path)).remove(0);
            let meets = |location: &Reach| location.holds(&reach).is_some() || reach.holds(location).is_some();
            let overlapping = directories.iter().zip(locations).find(|(_, location)| meets(location));
            if let Some(((other, _), _)) = overlapping {
                let source = other.location.display();
                refuse(format!(
                    "{shown} on this host overlaps with the Location of [Directory {}], {source}",
                    other.name
                ));
            } else if let Some(mount_point) = target.mount_point.as_ref().filter(|at| !path.starts_with(at)) {
                refuse(format!(
                    "{shown} does not lie below the MountPoint of [Vessel {}], {}",
                    vessel.name,
                    mount_point.display()
                ));
            }
        }
    }
}
