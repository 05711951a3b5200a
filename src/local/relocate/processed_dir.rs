//! The source and target directories of a retirement, and the names of files in them.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::moves::sync;
use super::processed::{is_taken, make_and_open, open_ours};
use crate::local::DiskError;
use crate::local::file_state::open_location;
use crate::local::own_names::{LEAVING, PROCESSED};
use crate::names::RelPath;
use crate::root::is_absent;

/// The longest file name, in bytes, on all common file systems.
const NAME_MAX: usize = 255;

/// The directories that a source is moved from and to.
pub(super) struct ProcessedDir<'a> {
    pub(super) location: &'a Path,
    /// The path of `processed/`.
    pub(super) processed: PathBuf,
    /// The directory of the source.
    pub(super) from: OwnedFd,
    /// The target directory, in or below `processed/`.
    pub(super) to: OwnedFd,
}

impl<'a> ProcessedDir<'a> {
    /// Opens both directories, creating missing ones in `processed/`; `None` when the source's directory no longer
    /// exists.
    pub(super) fn open(location: &'a Path, path: &RelPath) -> Result<Option<Self>, DiskError> {
        Self::open_as(location, path, PROCESSED)
    }

    /// Opens both directories like [`ProcessedDir::open`], where `name` is the name of the target directory.
    pub(super) fn open_as(location: &'a Path, path: &RelPath, name: &str) -> Result<Option<Self>, DiskError> {
        let top = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut from = open_readable(location)?;
        let processed = location.join(name);
        let opened = open_ours(&from, location, name, true)?;
        let mut to = opened.ok_or_else(|| DiskError::io("make", &processed, Errno::NOENT))?;
        let mut above = processed.clone();
        let parents = path.as_path().parent().into_iter().flat_map(Path::iter);
        for name in parents {
            from = match openat(&from, name, top | OFlags::NOFOLLOW, Mode::empty()) {
                Err(errno) if is_absent(errno) => return Ok(None),
                opened => opened.map_err(|errno| DiskError::io("open", &location.join(path.as_path()), errno))?,
            };
            to = make_and_open(&to, name, &from, &above).map_err(|errno| match errno {
                Errno::NOTDIR | Errno::EXIST | Errno::LOOP => {
                    DiskError::Processed { path: above.join(name), why: "it is not a directory" }
                }
                errno => DiskError::io("make", &above.join(name), errno),
            })?;
            above.push(name);
        }
        Ok(Some(Self { location, processed, from, to }))
    }

    /// Flushes both directories, first the one that gains names.
    pub(super) fn flush(&self) -> Result<(), DiskError> {
        sync(&self.to, &self.processed)?;
        sync(&self.from, self.location)
    }

    /// Returns the full path of a file, given its path below `processed/`.
    pub(super) fn target(&self, path: &RelPath) -> PathBuf {
        self.processed.join(path.as_path())
    }
}

/// Opens a location for listing and flushing.
pub(super) fn open_readable(location: &Path) -> Result<OwnedFd, DiskError> {
    let top = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    openat(open_location(location)?, ".", top, Mode::empty()).map_err(|errno| DiskError::Location {
        act: "open",
        path: location.into(),
        source: errno.into(),
    })
}

/// Returns a number with which a path's name is free in a directory. Needs few checks even if many numbers are taken:
/// doubles the number until one is free, then bisects. If lower numbers are free too, it may return any free one.
pub(super) fn free_number(directory: &OwnedFd, path: &RelPath) -> rustix::io::Result<u64> {
    let taken = |number| is_taken(directory, numbered(path, number).file_name());
    let (mut low, mut high) = (0, 0);
    while taken(high)? {
        (low, high) = (high + 1, high.saturating_mul(2).max(1));
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if taken(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(high)
}

/// Appends `.<number>` to a path; returns it unchanged for 0. Truncates the name if it would get too long.
pub(super) fn numbered(path: &RelPath, number: u64) -> RelPath {
    if number == 0 {
        return path.clone();
    }
    let name = path.file_name().as_bytes();
    let suffix = format!(".{number}");
    let mut keep = name.len().min(NAME_MAX - suffix.len());
    // Does not split a character, because some file systems accept only UTF-8.
    while keep < name.len() && keep > 1 && name[keep] & 0xc0 == 0x80 {
        keep -= 1;
    }
    let mut bytes = path.as_bytes()[..path.as_bytes().len() - name.len() + keep].to_vec();
    bytes.extend_from_slice(suffix.as_bytes());
    RelPath::new(bytes).expect("a valid path stays valid with a number at its end")
}

/// Returns the name of a source that is about to be removed. It contains the original name, truncated to fit.
pub(super) fn leaving_name(path: &RelPath) -> OsString {
    let name = path.file_name().as_bytes();
    let keep = name.len().min(NAME_MAX - LEAVING.len());
    OsString::from_vec([LEAVING.as_bytes(), &name[..keep]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_number_is_found_in_few_looks_and_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let directory = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let path = RelPath::new("a/f").unwrap();
        for number in 0..300 {
            assert_eq!(free_number(&directory, &path), Ok(number));
            std::fs::write(dir.path().join(numbered(&path, number).file_name()), "").unwrap();
        }
        // After some of these files are removed, any free number is a correct result.
        for number in (0..300).filter(|number| number % 7 == 0) {
            std::fs::remove_file(dir.path().join(numbered(&path, number).file_name())).unwrap();
        }
        let free = free_number(&directory, &path).unwrap();
        assert!(!dir.path().join(numbered(&path, free).file_name()).exists());
    }

    #[test]
    fn a_number_goes_to_the_end_and_a_long_name_is_shortened() {
        let numbered = |name: &[u8], n| numbered(&RelPath::new(name).unwrap(), n).as_bytes().to_vec();
        assert_eq!(numbered(b"plain.bin", 0), b"plain.bin");
        assert_eq!(numbered(b"a/plain.bin", 12), b"a/plain.bin.12");
        let long = numbered(&[b'x'; 255], 3);
        assert_eq!((long.len(), long.ends_with(b"x.3")), (255, true));
        let accents = numbered("é".repeat(127).as_bytes(), 10);
        assert!(String::from_utf8(accents).unwrap().ends_with("é.10"));
    }
}
