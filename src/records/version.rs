//! Versions: one content of one path, and the file metadata that distinguishes versions.

use std::ops::Deref;

use crate::chunk::ChunkPlan;
use crate::digest::Digest;
use crate::names::{DirectoryName, RelPath};

/// File metadata that distinguishes two contents of a path without reading the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// Size in bytes.
    pub size: u64,
    /// Modification time, whole seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds part of the modification time.
    pub mtime_nanos: u32,
    /// Inode number, so that a file that was replaced by another of the same size and time counts as a new version.
    pub inode: u64,
}

/// The kind of entry that a version describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionKind {
    /// A regular file.
    File,
    /// A directory, empty or not.
    Directory,
    /// A symbolic link.
    Link,
    /// The path was deleted, and the vessels must delete it too.
    Gone,
    /// An entry that is skipped, such as a symbolic link under `Links = skip`. It is not sent, and the vessels keep the
    /// earlier version of the path until the path no longer exists.
    Skipped,
}

impl VersionKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::File, Self::Directory, Self::Link, Self::Gone, Self::Skipped];

    /// Returns the word that the ledger stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::Gone => "gone",
            Self::Skipped => "skipped",
        }
    }
}

/// Metadata that distinguishes two versions of a path without reading the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// The kind of entry.
    pub kind: VersionKind,
    /// The file's size, modification time and inode. For a directory only the inode is set, because size and times
    /// change with the directory's contents.
    pub stamp: FileStamp,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Numeric owner and group; `None` unless the settings have `Owner = yes`.
    pub owner: Option<(u32, u32)>,
}

impl Traits {
    /// The traits of a path that no longer exists.
    pub const GONE: Self = Self {
        kind: VersionKind::Gone,
        stamp: FileStamp { size: 0, mtime: 0, mtime_nanos: 0, inode: 0 },
        mode: 0,
        owner: None,
    };

    /// The traits of an entry that is skipped.
    pub const SKIPPED: Self = Self { kind: VersionKind::Skipped, ..Self::GONE };
}

/// The ledger's number of a file version; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId(pub i64);

/// A path with its kind, metadata and digest: the fields that [`NewVersion`] and [`Version`] share. Only a [`Version`]
/// has a number in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path below the directory's location.
    pub path: RelPath,
    /// The kind of entry.
    pub kind: VersionKind,
    /// The source's metadata when the version was taken in. If the source's metadata differs later, the source is no
    /// longer this version.
    pub stamp: FileStamp,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Numeric owner and group to be set on the vessels; `None` if they are not to be set.
    pub owner: Option<(u32, u32)>,
    /// Target of a link; empty for other kinds.
    pub target: Vec<u8>,
    /// SHA-256 of the whole file; `None` until the file is read, because a large file is hashed while it is uploaded.
    pub digest: Option<Digest>,
    /// Chunk size in bytes.
    pub chunk_size: u64,
}

/// A new version, which the ledger has not yet stored and numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVersion {
    /// The path, with its kind, metadata and digest.
    pub entry: Entry,
    /// For a moved entry: its version at the former path, recognized by inode, size and time. For a `Gone` version: the
    /// version that the path must still hold; otherwise the ledger does not record the `Gone` version.
    pub origin: Option<VersionId>,
    /// The entry's parent directory, if the entry was moved together with it. The directory is delivered first.
    pub moved_with: Option<RelPath>,
}

impl From<Entry> for NewVersion {
    fn from(entry: Entry) -> Self {
        Self { entry, origin: None, moved_with: None }
    }
}

impl NewVersion {
    /// Creates a version of an entry without content: anything but a regular file.
    pub fn without_content(path: RelPath, traits: Traits, target: Vec<u8>) -> Self {
        let Traits { kind, stamp, mode, owner } = traits;
        Entry { path, kind, stamp, mode, owner, target, digest: None, chunk_size: 1 << 20 }.into()
    }

    /// Creates the `Gone` version of a path whose entry was moved away. It is recorded only if the path still holds
    /// `version`.
    pub fn moved_away(path: RelPath, version: VersionId) -> Self {
        Self { origin: Some(version), ..Self::without_content(path, Traits::GONE, Vec::new()) }
    }
}

/// One content of one path, as stored in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The ledger's number of this version.
    pub id: VersionId,
    /// The directory that the file belongs to.
    pub directory: DirectoryName,
    /// The path, with its kind, metadata and digest when the ledger recorded it.
    pub entry: Entry,
}

// The fields of the entry can be read directly from both kinds of version.
impl Deref for NewVersion {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Deref for Version {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Version {
    /// Returns how the file is cut into chunks.
    pub fn plan(&self) -> ChunkPlan {
        ChunkPlan::new(self.stamp.size, self.chunk_size)
    }
}
