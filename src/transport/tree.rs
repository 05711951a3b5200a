//! Maps SFTP's paths to the paths of a vessel's shell. These paths differ on a NAS whose SFTP shows the shares as its
//! root, if only SFTP is chrooted, and if SFTP starts in another directory (`internal-sftp -d`).

use crate::names::RemotePath;

/// The mapping of SFTP's paths to the shell's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// The path of SFTP's root in the shell; empty if both have the same root.
    pub(super) root: Vec<u8>,
    /// The path of the login directory in SFTP.
    pub(super) home: RemotePath,
    /// The path of the login directory in the shell.
    pub(super) shell_home: RemotePath,
}

impl Tree {
    /// Describes where the shell finds SFTP's files, or returns `None` if both use the same paths.
    pub(super) fn elsewhere(&self) -> Option<String> {
        match (self.root.is_empty(), self.home == self.shell_home) {
            (true, true) => None,
            (true, false) => {
                Some(format!("relative paths start at {} in SFTP, at {} in the shell", self.home, self.shell_home))
            }
            (false, _) => Some(format!("below {}", RemotePath::new(&self.root[..]))),
        }
    }

    /// Returns the shell's path of the file that has the path `path` in SFTP.
    pub(super) fn in_shell(&self, path: &RemotePath) -> RemotePath {
        let absolute = match path.as_bytes() {
            [b'/', ..] => path.clone(),
            b"." => self.home.clone(),
            below => self.home.join(below),
        };
        RemotePath::new([&self.root[..], absolute.as_bytes()].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_put_below_the_root_of_sftp_and_relative_ones_below_its_login_directory() {
        let tree = |root: &str, home: &str| Tree {
            root: root.into(),
            home: RemotePath::new(home),
            shell_home: RemotePath::new("/home/u"),
        };
        for (root, home, path, wanted) in [
            ("", "/srv", "/srv/in/x", "/srv/in/x"),
            ("", "/srv", "in/x", "/srv/in/x"),
            ("/volume1", "/home", "/photos/x", "/volume1/photos/x"),
            ("/volume1", "/home", ".", "/volume1/home"),
            ("/home/u", "/", "in/x", "/home/u/in/x"),
        ] {
            assert_eq!(
                tree(root, home).in_shell(&RemotePath::new(path)),
                RemotePath::new(wanted),
                "{root} {home} {path}"
            );
        }
    }
}
