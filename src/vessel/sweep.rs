//! Sweeping: what is left on the vessel of versions that nobody wants any more. Only names that we can parse as ours.

use std::collections::HashSet;

use super::visit::Visit;
use crate::fault::Fault;
use crate::names::{OurFile, assembly_name};
use crate::records::{Remains, VersionId};

/// Remains swept at once.
const BATCH: u32 = 256;

impl Visit {
    /// Removes the parts and assemblies of deliveries that were superseded, but for versions in `busy`.
    pub(super) async fn sweep_remains(&self, busy: &HashSet<VersionId>) -> Result<(), Fault> {
        let name = &self.vessel.settings.name;
        let mut remains = self.vessel.ledger.remains(name, BATCH).await.map_err(|e| e.fault())?;
        remains.retain(|r| !busy.contains(&r.version));
        if remains.is_empty() {
            return Ok(());
        }
        let versions: HashSet<i64> = remains.iter().map(|r| r.version.0).collect();
        self.remove_parts(|version| versions.contains(&version)).await?;
        for one in &remains {
            self.remove_assembly(one).await?;
            self.vessel.ledger.swept(one.delivery).await.map_err(|e| e.fault())?;
            tracing::debug!(vessel = %name, file = %one.path, "swept");
        }
        Ok(())
    }

    /// Removes parts of ours whose version is not open for this vessel, whatever way they were left there.
    pub(super) async fn sweep_strays(&self) -> Result<(), Fault> {
        let mut strays = HashSet::new();
        for version in self.part_versions().await? {
            let open = self.vessel.ledger.is_open(VersionId(version), &self.vessel.settings.name).await;
            if !open.map_err(|e| e.fault())? {
                strays.insert(version);
            }
        }
        if strays.is_empty() {
            return Ok(());
        }
        self.remove_parts(|version| strays.contains(&version)).await
    }

    async fn part_versions(&self) -> Result<HashSet<i64>, Fault> {
        let listed = self.remote.list(&self.vessel.settings.temp_dir).await.map_err(|e| e.fault())?;
        let version = |name: &[u8]| match OurFile::parse(self.instance, name) {
            Some(OurFile::Part { version, .. }) => Some(version),
            _ => None,
        };
        Ok(listed.iter().filter_map(|(name, _)| version(name)).collect())
    }

    async fn remove_parts(&self, unwanted: impl Fn(i64) -> bool) -> Result<(), Fault> {
        let temp_dir = &self.vessel.settings.temp_dir;
        for (name, _) in self.remote.list(temp_dir).await.map_err(|e| e.fault())? {
            match OurFile::parse(self.instance, &name) {
                Some(OurFile::Part { version, .. }) if unwanted(version) => {
                    self.remote.remove(&temp_dir.join(&name)).await.map_err(|e| e.fault())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn remove_assembly(&self, remains: &Remains) -> Result<(), Fault> {
        // A directory that is not configured any more has no place on the vessel that we could know.
        let Some((directory, _)) = self.vessel.directories.get(&remains.directory) else { return Ok(()) };
        let destination = self.vessel.settings.remote_location(directory).join_rel(&remains.path);
        let Some(parent) = destination.parent() else { return Ok(()) };
        let assembly = parent.join(assembly_name(self.instance, remains.version.0));
        self.remote.remove(&assembly).await.map_err(|e| e.fault())
    }
}
