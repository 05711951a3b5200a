//! The path of a file inside its directory.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path below a directory's location: relative, without `.`, `..`, empty components or NUL.
///
/// These checks keep a path inside the directory, on the shore and on the vessel.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(Box<[u8]>);

/// Bytes that are not a valid [`RelPath`].
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is not a valid relative path: it must not start with `/`, nor contain NUL or an empty, `.` or `..` component"
)]
pub struct RelPathError(String);

impl RelPath {
    /// Creates a path from its bytes.
    ///
    /// # Errors
    /// When the path is absolute or empty, has a component that is empty, `.` or `..`, or contains a NUL byte.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, RelPathError> {
        let bytes = bytes.into();
        let sound = bytes.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b"..")) && !bytes.contains(&0);
        if sound { Ok(Self(bytes.into())) } else { Err(RelPathError(super::display_bytes(&bytes))) }
    }

    /// Returns the path's bytes, without a leading or trailing slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path for the shore's file system, relative to the directory's location.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Returns the last component.
    pub fn file_name(&self) -> &OsStr {
        let start = self.0.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        OsStr::from_bytes(&self.0[start..])
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::display_bytes(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::RelPath;

    #[test]
    fn only_paths_that_stay_inside_are_taken() {
        for good in [&b"a"[..], b"a/b", b"-rf", b"...", b"a\nb", b"\xff"] {
            assert!(RelPath::new(good).is_ok(), "{good:?}");
        }
        for bad in [&b""[..], b"/a", b"a/", b"a//b", b".", b"..", b"a/../b", b"a\0b"] {
            assert!(RelPath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn file_name_is_the_last_component() {
        assert_eq!(RelPath::new("a/b c").unwrap().file_name(), "b c");
        assert_eq!(RelPath::new("plain").unwrap().file_name(), "plain");
    }
}
