//! What OpenSSH's extensions tell of a vessel: free space (`statvfs@openssh.com`) and limits (`limits@openssh.com`).

use super::wire::{self, Reader};

/// Free space of a file system on the vessel (`statvfs@openssh.com`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that our user may still write.
    pub free: u64,
    /// Bytes that it has in all.
    pub total: u64,
    /// Files that our user may still make.
    pub free_files: u64,
    /// Whether the file system is mounted read-only.
    pub read_only: bool,
    /// The longest name it takes, in bytes.
    pub longest_name: u64,
    /// The file system's id, the same for two paths on one file system.
    pub fs_id: u64,
}

/// The most that is left free, in bytes.
const MARGIN: u64 = 64 << 20;

impl Space {
    /// How many bytes are left free for others: a hundredth, where that is not much.
    pub fn margin(&self) -> u64 {
        (self.total / 100).min(MARGIN)
    }

    /// Whether a file of so many bytes fits.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        bytes.saturating_add(self.margin()) <= self.free
    }

    /// Whether nothing can be written there, not even a small file.
    pub fn takes_nothing(&self) -> bool {
        self.read_only || self.free_files == 0 || self.free <= self.margin()
    }

    /// How many files may be made, by `statvfs`. A file system that makes room for them as they come (Btrfs) counts none.
    pub(crate) fn free_files(all: u64, available: u64) -> u64 {
        if all == 0 { u64::MAX } else { available }
    }

    /// Reads an answer.
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

/// What `limits@openssh.com` allows; 0 where the vessel names no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Most bytes in one read.
    pub read: u64,
    /// Most bytes in one write.
    pub write: u64,
    /// Most files and directories that are open at once.
    pub handles: u64,
}
