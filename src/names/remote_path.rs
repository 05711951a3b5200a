//! A path on a vessel.

use std::fmt;
use std::path::Path;

use std::os::unix::ffi::OsStrExt;

use super::RelPath;

/// A path on a vessel, as bytes with `/` between components. Relative paths start at the login directory.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemotePath(Vec<u8>);

impl RemotePath {
    /// Creates a path from its bytes, without trailing slashes (except for the root itself).
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let mut bytes = bytes.into();
        while bytes.len() > 1 && bytes.ends_with(b"/") {
            bytes.pop();
        }
        Self(bytes)
    }

    /// Returns the path's bytes as sent to the vessel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends one or more components to the path.
    pub fn join(&self, below: impl AsRef<[u8]>) -> Self {
        let mut bytes = self.0.clone();
        if !bytes.is_empty() && !bytes.ends_with(b"/") {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(below.as_ref());
        Self::new(bytes)
    }

    /// Appends the path of a file, relative to its directory.
    pub fn join_rel(&self, path: &RelPath) -> Self {
        self.join(path.as_bytes())
    }

    /// Returns the parent directory; `None` for the root and for a single relative component.
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|b| *b == b'/')?;
        match (slash, self.0.len()) {
            (0, 1) => None,
            (0, _) => Some(Self::new("/")),
            _ => Some(Self::new(&self.0[..slash])),
        }
    }
}

impl From<&Path> for RemotePath {
    fn from(path: &Path) -> Self {
        Self::new(path.as_os_str().as_bytes())
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::display_bytes(&self.0))
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemotePath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::RemotePath;

    #[test]
    fn joins_and_parents() {
        let root = RemotePath::new("/");
        assert_eq!(root.join("a").as_bytes(), b"/a");
        assert_eq!(root.join("a").parent(), Some(root.clone()));
        assert_eq!(root.parent(), None);
        assert_eq!(RemotePath::new("/srv/in//").join("x/y").as_bytes(), b"/srv/in/x/y");
        assert_eq!(RemotePath::new("inbox/f").parent(), Some(RemotePath::new("inbox")));
        assert_eq!(RemotePath::new("f").parent(), None);
    }
}
