//! Finds the file that a person names: by its path on the disk, as `DIRECTORY/PATH`, or by its path in any directory.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::ledger::{LedgerError, LedgerView, VersionHistory};
use crate::local::{self, EXPIRED, PROCESSED};
use crate::names::{DirectoryName, RelPath};
use crate::settings::{Directory, Settings};

/// Timeout for a query to a disk.
const MOMENT: Duration = Duration::from_secs(1);

/// The file that a person named.
#[derive(Debug)]
pub struct Meant<'a> {
    /// The file's directory.
    pub name: DirectoryName,
    /// The settings of the directory; `None` when it is no longer in the settings.
    pub directory: Option<&'a Directory>,
    /// The file's path below the directory's location.
    pub path: RelPath,
    /// The file's versions in the ledger, oldest first; may be empty.
    pub versions: Vec<VersionHistory>,
}

/// Finds the file that a person names: by its path on the disk, as `DIRECTORY/PATH`, or by its path in any directory.
/// Returns the first match in the ledger, which includes directories that are no longer configured; otherwise the first
/// match on the disk; otherwise `None`. If the disk of the first candidate doesn't respond, that candidate counts as a
/// match on the disk.
///
/// # Errors
/// When the ledger can't be read.
pub async fn find<'a>(
    settings: &'a Settings,
    ledger: &LedgerView,
    file: &Path,
) -> Result<Option<Meant<'a>>, LedgerError> {
    let mut unknown = None;
    let candidates = candidates(settings, file);
    let mut silent = HashSet::new();
    for (number, (directory, path)) in candidates.iter().cloned().enumerate() {
        let versions = ledger.history(&directory.name, &path).await?;
        let place = directory.location.join(path.as_path());
        // Each query to a disk that doesn't respond takes the whole timeout, so each directory on such a disk is
        // queried only once.
        let lies_there = match silent.contains(&directory.name) {
            true => None,
            false => local::within(MOMENT, move || place.symlink_metadata().is_ok()),
        };
        if lies_there.is_none() {
            silent.insert(directory.name.clone());
        }
        let lies_there = lies_there.unwrap_or(number == 0);
        let meant = Meant { name: directory.name.clone(), directory: Some(directory), path, versions };
        if !meant.versions.is_empty() {
            return Ok(Some(meant));
        }
        if lies_there && unknown.is_none() {
            unknown = Some(meant);
        }
    }
    let remembered = ledger.summary(0).await?.directories.into_iter().map(|tally| tally.directory);
    let configured = |name: &DirectoryName| settings.directories.iter().any(|directory| directory.name == *name);
    for name in remembered.filter(|name| !configured(name)) {
        let named = file.strip_prefix(name.as_str()).ok().and_then(rel_path);
        for path in named.into_iter().chain(rel_path(file)).chain(candidates.iter().map(|(_, path)| path.clone())) {
            let versions = ledger.history(&name, &path).await?;
            if !versions.is_empty() {
                return Ok(Some(Meant { name, directory: None, path, versions }));
            }
        }
    }
    Ok(unknown)
}

fn rel_path(path: &Path) -> Option<RelPath> {
    RelPath::new(path.as_os_str().as_bytes()).ok()
}

fn candidates<'a>(settings: &'a Settings, file: &Path) -> Vec<(&'a Directory, RelPath)> {
    let mut found = Vec::new();
    let mut add = |directory, path: &Path| found.extend(rel_path(path).map(|path| (directory, path)));
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    for directory in &settings.directories {
        if let Ok(below) = absolute.strip_prefix(&directory.location) {
            add(directory, below);
            for aside in [PROCESSED, EXPIRED] {
                if let Ok(retired) = below.strip_prefix(aside) {
                    add(directory, retired);
                }
            }
        }
    }
    for directory in &settings.directories {
        if let Ok(below) = file.strip_prefix(directory.name.as_str()) {
            add(directory, below);
        }
    }
    settings.directories.iter().for_each(|directory| add(directory, file));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Environment;

    fn named(name: &str) -> DirectoryName {
        DirectoryName::new(name)
    }

    fn settings() -> Settings {
        let text = "[Directory maps]\nLocation = /srv/maps\n[Directory charts]\nLocation = /srv/charts\n\
                    [Vessel tern]\nAddress = 192.0.2.7\nUsername = mate\n";
        Settings::parse(text, Path::new("/etc/settings.ini"), &Environment::default()).unwrap()
    }

    #[test]
    fn a_file_is_found_by_its_place_by_its_directorys_name_and_by_its_own() {
        let settings = settings();
        let found = |file: &str| {
            let found = candidates(&settings, Path::new(file)).into_iter();
            found.map(|(directory, path)| (directory.name.clone(), path.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(found("/srv/charts/a")[0], (named("charts"), "a".into()));
        assert_eq!(found("/srv/charts/processed/a")[1], (named("charts"), "a".into()));
        assert_eq!(found("charts/a b")[0], (named("charts"), "a b".into()));
        assert_eq!(found("a"), [(named("maps"), "a".into()), (named("charts"), "a".into())]);
        assert!(found("/srv/elsewhere").is_empty());
    }
}
