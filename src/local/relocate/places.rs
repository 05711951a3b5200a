//! The two directories of a retirement, and the names that are given in them.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fchmod, fstat, mkdirat, openat};
use rustix::io::Errno;

use super::PROCESSED;
use super::moves::sync;
use crate::local::DiskError;
use crate::names::RelPath;

/// A copy in the making, in `processed/`.
pub(super) const COPYING: &str = ".contentmonster-retiring.";
/// A source about to be removed, in its own directory.
pub(super) const LEAVING: &str = ".contentmonster-leaving.";

/// The longest file name, in bytes, on every usual file system.
const NAME_MAX: usize = 255;

/// Whether a name on the shore is a temporary one of ours.
pub(in crate::local) fn is_ours(name: &[u8]) -> bool {
    name.starts_with(COPYING.as_bytes()) || name.starts_with(LEAVING.as_bytes())
}

/// Where a source comes from and where it goes.
pub(super) struct Places<'a> {
    pub(super) location: &'a Path,
    /// The path of `processed/`.
    pub(super) processed: PathBuf,
    /// The directory that holds the source.
    pub(super) from: OwnedFd,
    /// The directory in or below `processed/` that takes it.
    pub(super) to: OwnedFd,
}

impl<'a> Places<'a> {
    /// Opens both, making what is missing in `processed/`; `None` when the source's directory is gone.
    pub(super) fn open(location: &'a Path, path: &RelPath) -> Result<Option<Self>, DiskError> {
        let top = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut from = openat(CWD, location, top, Mode::empty()).map_err(|errno| DiskError::Location {
            act: "open",
            path: location.into(),
            source: errno.into(),
        })?;
        let processed = location.join(PROCESSED);
        let mut to = open_processed(&from, location, &processed)?;
        let mut above = processed.clone();
        let parents = path.as_path().parent().into_iter().flat_map(Path::iter);
        for name in parents {
            from = match openat(&from, name, top | OFlags::NOFOLLOW, Mode::empty()) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                opened => opened.map_err(|errno| DiskError::io("open", &location.join(path.as_path()), errno))?,
            };
            to = make_and_open(&to, name, &from, &above, OFlags::NOFOLLOW).map_err(|errno| match errno {
                Errno::NOTDIR | Errno::EXIST | Errno::LOOP => {
                    DiskError::Processed { path: above.join(name), why: "what has the name there is no directory" }
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

    /// Where a path below `processed/` lies.
    pub(super) fn target(&self, path: &RelPath) -> PathBuf {
        self.processed.join(path.as_path())
    }
}

fn open_processed(location: &OwnedFd, path: &Path, processed: &Path) -> Result<OwnedFd, DiskError> {
    let unfit = |why| DiskError::Processed { path: processed.into(), why };
    let to = match make_and_open(location, OsStr::new(PROCESSED), location, path, OFlags::empty()) {
        Err(Errno::NOTDIR) => return Err(unfit("it is a file, not a directory")),
        Err(Errno::NOENT | Errno::LOOP) => return Err(unfit("it is a link that leads nowhere")),
        opened => opened.map_err(|errno| DiskError::io("make", processed, errno))?,
    };
    // Else the source would be found to be "already there" in itself, and removed.
    match (fstat(location), fstat(&to)) {
        (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) => {
            Err(unfit("it is a link to the very directory that it lies in"))
        }
        (Err(errno), _) | (_, Err(errno)) => Err(DiskError::io("look at", processed, errno)),
        _ => Ok(to),
    }
}

/// Opens the directory `name` in `parent`, making it with the mode of `model` if nothing is there.
fn make_and_open(
    parent: &OwnedFd,
    name: &OsStr,
    model: &OwnedFd,
    parent_path: &Path,
    more: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let open = || openat(parent, name, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | more, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {}
        opened => return opened,
    }
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => {
            let made = open()?;
            // A file system without modes refuses; the directory serves all the same.
            fchmod(&made, Mode::from_raw_mode(fstat(model)?.st_mode)).ok();
            sync(parent, parent_path).map_err(|_| Errno::IO)?;
            Ok(made)
        }
        Err(Errno::EXIST) => open(),
        Err(errno) => Err(errno),
    }
}

/// The path with `.<number>` at its end; as it is for 0. The name is shortened where it would get too long.
pub(super) fn numbered(path: &RelPath, number: u64) -> RelPath {
    if number == 0 {
        return path.clone();
    }
    let name = path.file_name().as_bytes();
    let suffix = format!(".{number}");
    let mut keep = name.len().min(NAME_MAX - suffix.len());
    // Some file systems take UTF-8 only: don't cut a character in two.
    while keep < name.len() && keep > 1 && name[keep] & 0xc0 == 0x80 {
        keep -= 1;
    }
    let mut bytes = path.as_bytes()[..path.as_bytes().len() - name.len() + keep].to_vec();
    bytes.extend_from_slice(suffix.as_bytes());
    RelPath::new(bytes).expect("a sound path stays sound with a number at its end")
}

/// The name that a source has for the moment before it is removed; tells which file it was, as far as there is room.
pub(super) fn leaving_name(path: &RelPath) -> OsString {
    let name = path.file_name().as_bytes();
    let keep = name.len().min(NAME_MAX - LEAVING.len());
    OsString::from_vec([LEAVING.as_bytes(), &name[..keep]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

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
