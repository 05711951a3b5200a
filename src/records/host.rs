//! Hosts, remote locations and mounts.

/// The ledger's number of a directory's remote location on a vessel: a path on a host, accessed with a certain account.
/// Later locations have higher numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlaceNumber(pub i64);

/// The identity of a vessel's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Address and port, or the name of this host.
    pub address: String,
    /// The login account.
    pub account: String,
    /// Algorithm and fingerprint of the host key; `None` where the transport has no host key.
    pub key: Option<(String, String)>,
}

/// The file system at a path of a directory. Names and paths are bytes, as the kernel reports them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Path below the location; empty for the location itself.
    pub path: Vec<u8>,
    /// The file system's type, such as `ext4`.
    pub file_system: Vec<u8>,
    /// The mounted device or source, such as `/dev/sda1`.
    pub source: Vec<u8>,
    /// The path inside the file system. Empty for a link that is followed; then this path is not compared.
    pub within: Vec<u8>,
    /// The file system's ID; 0 if the file system has none.
    pub fsid: u64,
}

impl Mount {
    /// Returns whether both mounts show the same part of the same file system, even if at different mount points.
    pub fn is_same(&self, other: &Self) -> bool {
        // Compares the IDs of the file systems if both are known, because a device's name may change at a restart, and
        // all tmpfs have the same name.
        let same =
            if self.fsid != 0 && other.fsid != 0 { self.fsid == other.fsid } else { self.source == other.source };
        let within = self.within.is_empty() || other.within.is_empty() || self.within == other.within;
        let both_links = self.within.is_empty() && other.within.is_empty();
        let part = !both_links || self.mounted_part() == other.mounted_part();
        same && within && part && self.file_system == other.file_system
    }

    /// Returns the end of the source in brackets, which names the mounted directory: `[/srv]` in `/dev/sda1[/srv]`.
    /// Empty if the source has no brackets.
    fn mounted_part(&self) -> &[u8] {
        match self.source.iter().rposition(|byte| *byte == b'[') {
            Some(at) if self.source.ends_with(b"]") => &self.source[at..],
            _ => b"",
        }
    }
}
