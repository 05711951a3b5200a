//! Simulates the ledger entries that a scan of a directory would create. No file is read, and the ledger is a copy from
//! which nothing is delivered.

use std::sync::Arc;

use super::Directory;
use super::ingest::DirectoryIngest;
use super::moves;
use crate::fault::Fault;
use crate::local::{self, PathState};
use crate::records::NewVersion;

/// Records the files in a directory and the deletions from it, like ingest. Deletions that are held back are not
/// recorded, but reported in the directory's `trouble`.
///
/// # Errors
/// Returns a daemon-wide [`Fault`] if the ledger can't be used.
pub async fn dry_run(directory: Directory) -> Result<(), Fault> {
    let ledger = directory.ledger.clone();
    let vessels = directory.vessel_names();
    ledger.locate(&directory.settings.name, &directory.places).await.map_err(|e| e.fault())?;
    ledger.reconcile(&directory.settings.name, &vessels).await.map_err(|e| e.fault())?;
    DirectoryIngest::new(Arc::new(directory)).dry_run().await
}

impl DirectoryIngest {
    async fn dry_run(&mut self) -> Result<(), Fault> {
        self.rescan().await?;
        let mut versions = self.pending.release();
        versions.extend(self.unread().await?);
        moves::name_origins(&self.directory, &mut versions).await?;
        self.enter(&versions).await?;
        self.delete().await
    }

    /// Returns versions of the files that ingest would read, without reading them.
    async fn unread(&mut self) -> Result<Vec<NewVersion>, Fault> {
        let mut paths = self.pending.take_files();
        paths.extend(self.settling.paths());
        let (rules, chunk_size) = (self.rules.clone(), self.directory.chunk_size);
        let see = move |path| match local::classify(&rules, &path) {
            Ok(PathState::Taken(found)) => {
                let mut version = NewVersion::without_content(found.path, found.traits, found.target);
                version.entry.chunk_size = chunk_size;
                Some(version)
            }
            _ => None,
        };
        self.directory.on_disk(move || paths.into_iter().filter_map(see).collect()).await
    }
}
