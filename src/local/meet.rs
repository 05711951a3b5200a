//! Detects that a vessel is this host: a file that was just created on the vessel shows up in the source directory. A
//! delivery would then replace its own source.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::PROCESSED;
use crate::names::{RelPath, RemotePath};
use crate::settings::Directory;

/// How a remote location overlaps with a `Location`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Both are the same directory.
    Same,
    /// The remote location is inside the `Location`, so delivered files would be taken in again.
    Inside,
    /// The `Location` is inside the remote location, so a delivered file could overwrite a source.
    Around,
}

impl fmt::Display for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "equals the Location",
            Self::Inside => "is inside the Location",
            Self::Around => "contains the Location",
        })
    }
}

/// Returns how a remote location overlaps with the `Location` of a directory; `None` if they don't overlap, as far as
/// this host can see. `made` is a file with a unique name that was created on a vessel, next to the destination of
/// `path` or directly in `root`, the directory's remote location. This function looks for that file on this host.
///
/// If a vessel shows its files under other paths (chroot, container), only identical directories are detected.
pub fn meeting(directory: &Directory, path: Option<&RelPath>, root: &RemotePath, made: &RemotePath) -> Option<Meeting> {
    let made = Path::new(std::ffi::OsStr::from_bytes(made.as_bytes()));
    let above = path.and_then(|path| path.as_path().parent()).unwrap_or(Path::new(""));
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    if is_there(&directory.location.join(above).join(made.file_name()?)) {
        return Some(Meeting::Same);
    }
    if !made.is_absolute() || !is_there(made) {
        return None;
    }
    let root = Path::new(std::ffi::OsStr::from_bytes(root.as_bytes()));
    // For a directory with a single file, the remote location is the file's parent directory.
    let root = if directory.only.is_some() { root.parent()? } else { root };
    let (root, location) = (real(root)?, real(&directory.location)?);
    let recursive = directory.recursive;
    match (root.strip_prefix(&location), location.starts_with(&root)) {
        (Ok(below), _) if below.as_os_str().is_empty() => Some(Meeting::Same),
        (Ok(below), _) if recursive || below.starts_with(PROCESSED) => Some(Meeting::Inside),
        (_, true) if recursive => Some(Meeting::Around),
        _ => None,
    }
}

fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::Rules;

    #[test]
    fn a_place_on_this_host_meets_the_location_that_it_is_holds_or_is_in() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("shore/sub")).unwrap();
        fs::create_dir_all(at("shore/processed")).unwrap();
        fs::create_dir_all(at("inbox")).unwrap();
        std::os::unix::fs::symlink("shore", at("link")).unwrap();
        let found = |lines: &str, place: &str| {
            let directory = Rules::of(&at("shore"), lines).settings();
            let made = at(place).join(".probe");
            fs::write(&made, "").unwrap();
            let meets = meeting(&directory, None, &at(place).as_path().into(), &made.as_path().into());
            fs::remove_file(made).unwrap();
            meets
        };
        assert_eq!(found("", "shore"), Some(Meeting::Same));
        assert_eq!(found("", "link"), Some(Meeting::Same));
        assert_eq!((found("", "shore/sub"), found("Recursive = yes", "shore/sub")), (None, Some(Meeting::Inside)));
        assert_eq!(found("", "shore/processed"), Some(Meeting::Inside));
        assert_eq!((found("", "."), found("Recursive = yes", ".")), (None, Some(Meeting::Around)));
        assert_eq!(found("Recursive = yes", "inbox"), None);
    }
}
