//! Replies of OpenSSH's extensions for free space (`statvfs@openssh.com`) and limits (`limits@openssh.com`).

use super::wire::{self, Reader};

/// The free space of a file system on the vessel (`statvfs@openssh.com`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that the vessel's user may still write.
    pub free: u64,
    /// Total size in bytes.
    pub total: u64,
    /// Files that the vessel's user may still create.
    pub free_files: u64,
    /// Whether the file system is mounted read-only.
    pub read_only: bool,
    /// The maximum length of a file name in bytes.
    pub longest_name: u64,
    /// The file system's id, equal for two paths on one file system.
    pub fs_id: u64,
}

/// The maximum number of bytes that are left free for other users.
const MARGIN: u64 = 64 << 20;

impl Space {
    /// Returns how many bytes are left free for other users: 1% of the file system, but at most 64 MiB.
    pub fn margin(&self) -> u64 {
        (self.total / 100).min(MARGIN)
    }

    /// Returns whether a file of `bytes` bytes fits and leaves the margin free.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        bytes.saturating_add(self.margin()) <= self.free
    }

    /// Returns whether even a small file can't be written.
    pub fn takes_nothing(&self) -> bool {
        self.read_only || self.free_files == 0 || self.free <= self.margin()
    }

    /// Returns how many files may be created, computed from the inode counts of `statvfs`. A total of 0 counts as
    /// unlimited, because Btrfs allocates inodes on demand and reports a total of 0.
    pub(crate) fn free_files(all: u64, available: u64) -> u64 {
        if all == 0 { u64::MAX } else { available }
    }

    /// Parses a reply of `statvfs@openssh.com`.
    pub(super) fn read(mut body: Reader) -> Result<Self, wire::Garbled> {
        let mut next = || body.u64();
        let (_block, fragment) = (next()?, next()?);
        let (blocks, _blocks_free, blocks_available) = (next()?, next()?, next()?);
        let (files, _files_free, files_available) = (next()?, next()?, next()?);
        let (fs_id, flags, longest_name) = (next()?, next()?, next()?);
        Ok(Self {
            free: blocks_available.saturating_mul(fragment),
            total: blocks.saturating_mul(fragment),
            free_files: Self::free_files(files, files_available),
            read_only: flags & 1 != 0,
            longest_name,
            fs_id,
        })
    }
}

/// The limits of `limits@openssh.com`; 0 means that the vessel names no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Maximum bytes of one read.
    pub read: u64,
    /// Maximum bytes of one write.
    pub write: u64,
    /// Maximum number of open files and directories.
    pub handles: u64,
}
