//! Names for files that are moved: free names in `processed/`, and the hidden name of a source that is about to be
//! removed.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, statat};

use crate::local::own_names::LEAVING;
use crate::names::RelPath;
use crate::root::is_absent;

/// The longest file name, in bytes, on all common file systems.
const NAME_MAX: usize = 255;

/// Returns a number, not always the lowest, that makes the name of a path free in a directory (see [`numbered`]).
/// Doubles the number until the name is free, then bisects, to need few checks even if many numbers are taken.
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

/// Returns the hidden name for a source that is about to be removed: a prefix and the original name, truncated to fit.
pub(super) fn leaving_name(path: &RelPath) -> OsString {
    let name = path.file_name().as_bytes();
    let keep = name.len().min(NAME_MAX - LEAVING.len());
    OsString::from_vec([LEAVING.as_bytes(), &name[..keep]].concat())
}

/// Returns whether a name exists.
fn is_taken(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<bool> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(errno) if is_absent(errno) => Ok(false),
        Err(errno) => Err(errno),
    }
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
