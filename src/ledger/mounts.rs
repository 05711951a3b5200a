//! The ledger's record of the file systems that are mounted at and below a directory's location.

use async_trait::async_trait;

use super::LedgerError;
use crate::names::DirectoryName;
use crate::records::Mount;

/// The ledger's interface for mounts.
#[async_trait]
pub trait MountMemory: Send + Sync {
    /// Returns the mounts that were recorded last for a directory, ordered by path; empty when none were recorded.
    async fn mounts(&self, directory: &DirectoryName) -> Result<Vec<Mount>, LedgerError>;

    /// Replaces the recorded mounts of a directory by `mounts`, in which each path must occur once.
    async fn remember_mounts(&self, directory: &DirectoryName, mounts: &[Mount]) -> Result<(), LedgerError>;
}
