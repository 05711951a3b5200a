//! Pauses of directories: a paused directory's files are admitted, but sent to no vessel.

use async_trait::async_trait;

use super::{LedgerError, Pause};
use crate::names::DirectoryName;

type Result<T> = std::result::Result<T, LedgerError>;

/// A paused directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PausedDirectory {
    /// The directory.
    pub directory: DirectoryName,
    /// When it was paused, in milliseconds since 1970.
    pub since: i64,
    /// When the pause ends, and the note of the person who paused it.
    pub pause: Pause,
    /// Whether the pause has ended.
    pub has_ended: bool,
}

/// The ledger's interface for pauses of directories.
#[async_trait]
pub trait DirectoryPauses: Send + Sync {
    /// Records that a directory is paused, or with `None` that it is no longer paused.
    async fn pause_directory(&self, directory: &DirectoryName, pause: Option<&Pause>) -> Result<()>;

    /// Returns the paused directories, ordered by name. A pause that has ended is included until
    /// [`Self::pause_directory`] removes it.
    async fn paused_directories(&self) -> Result<Vec<PausedDirectory>>;
}
