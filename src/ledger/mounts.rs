//! What the ledger remembers of the file systems that are mounted in and below a directory's location.

use async_trait::async_trait;

use super::LedgerError;
use crate::names::DirectoryName;
use crate::records::Mount;

/// The ledger's memory of mounts.
#[async_trait]
pub trait MountMemory: Send + Sync {
    /// What was remembered last, in the order of the paths; nothing, where nothing was remembered yet.
    async fn mounts(&self, directory: &DirectoryName) -> Result<Vec<Mount>, LedgerError>;

    /// Remembers these, each path once, in place of what was remembered before.
    async fn remember_mounts(&self, directory: &DirectoryName, mounts: &[Mount]) -> Result<(), LedgerError>;
}
