//! Differences from OpenSSH that affect more than the answer to one request.
//!
//! [`Faults`](super::Faults) change the answers to single requests.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

/// Differences of an embedded vessel from OpenSSH. The default has no differences.
#[derive(Clone, Debug, Default)]
pub struct Quirks {
    /// Bytes that are sent on every connection before the version string (RFC 4253, 4.2).
    pub greeting: Bytes,
    /// The directory that SFTP clients see as `/` and start in. Commands see the whole host, and start in `home`.
    pub sftp_root: Option<PathBuf>,
    /// Maximum number of files and directories that one SFTP session may have open; `None` means 1000.
    pub max_handles: Option<usize>,
    /// Maximum number of channels that one connection may have open; `None` means any number.
    pub max_sessions: Option<usize>,
    /// A directory that comes first in the `PATH` of commands; `None` to use the `PATH` of this process alone.
    pub programs: Option<PathBuf>,
    /// How the extension `check-file` of SFTP is answered; `None` if the server does not know this extension.
    pub check_file: Option<CheckFile>,
}

/// How the extension `check-file` is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckFile {
    /// As the drafts say.
    Right,
    /// As ProFTPD 1.3.8 does: the extension is not announced, and the length of a range is ignored.
    ToTheEnd,
    /// With the hash of other bytes.
    WrongHash,
    /// With MD5, which was not requested.
    WrongAlgorithm,
    /// With half of the hash.
    ShortHash,
    /// With a failure.
    Fails,
}

impl Quirks {
    /// Resolves a path of an SFTP client. Without a root, relative paths start at `home`.
    pub(super) fn place(&self, home: &Path, path: &Path) -> PathBuf {
        let Some(root) = &self.sftp_root else { return home.join(path) };
        // `..` must not lead out of the root.
        let mut below: Vec<&std::ffi::OsStr> = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => below.push(name),
                Component::ParentDir => drop(below.pop()),
                _ => {}
            }
        }
        below.iter().fold(root.clone(), |path, name| path.join(name))
    }

    /// Converts a path of this host to the SFTP client's view.
    pub(super) fn shown(&self, place: PathBuf) -> PathBuf {
        let below = self.sftp_root.as_ref().and_then(|root| place.strip_prefix(root).ok());
        below.map_or(place.clone(), |below| Path::new("/").join(below))
    }
}
