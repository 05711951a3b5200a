//! The manners of servers that are not OpenSSH, as far as they are no answer to one request.
//!
//! What one request is answered with is decided by [`Faults`](super::Faults).

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

/// Where an embedded vessel differs from OpenSSH. The default differs nowhere.
#[derive(Clone, Debug, Default)]
pub struct Quirks {
    /// Sent on every connection before the version string (RFC 4253, 4.2), as it is.
    pub greeting: Bytes,
    /// The directory that SFTP sees as `/`, and starts in; commands see the whole host, and start in `home`.
    pub sftp_root: Option<PathBuf>,
    /// How many files and directories one SFTP session may have open at once; `None`: 1000.
    pub max_handles: Option<usize>,
    /// How many channels one connection may have open at once; `None`: any number.
    pub max_sessions: Option<usize>,
}

impl Quirks {
    /// Where a path of an SFTP client leads; relative ones start at `home`.
    pub(super) fn place(&self, home: &Path, path: &Path) -> PathBuf {
        let Some(root) = &self.sftp_root else { return home.join(path) };
        // No `..` leads out of the root.
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

    /// What an SFTP client knows a place of this host by.
    pub(super) fn shown(&self, place: PathBuf) -> PathBuf {
        let below = self.sftp_root.as_ref().and_then(|root| place.strip_prefix(root).ok());
        below.map_or(place.clone(), |below| Path::new("/").join(below))
    }
}
