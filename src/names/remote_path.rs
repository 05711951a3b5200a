//! A path on a vessel.

use std::fmt;
use std::path::Path;

use std::os::unix::ffi::OsStrExt;

use super::RelPath;

/// A path on a vessel, as bytes with `/` between components; relative ones start at the login directory.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemotePath(Vec<u8>);

impl RemotePath {
    /// Takes a path's bytes; trailing slashes are dropped (but for the root itself).
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let mut bytes = bytes.into();
        while bytes.len() > 1 && bytes.ends_with(b"/") {
            bytes.pop();
        }
        Self(bytes)
    }

    /// The path's bytes, as they go over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// This path with one more component, or several, below it.
    pub fn join(&self, below: impl AsRef<[u8]>) -> Self {
        let mut bytes = self.0.clone();
        if !bytes.is_empty() && !bytes.ends_with(b"/") {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(below.as_ref());
        Self::new(bytes)
    }

    /// The path of a file of a directory that is replicated to here.
    pub fn join_rel(&self, path: &RelPath) -> Self {
        self.join(path.as_bytes())
    }

    /// The directory that holds this path; `None` for the root and for a single relative component.
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
