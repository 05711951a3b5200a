//! Finds the incidents in the status document that are reported to commands and webhooks.

use super::document::{Daemon, Document, LinkState, VesselStatus};
use super::gather::Gatherer;
use crate::ledger::LedgerError;
use crate::names::{DirectoryName, VesselName};
use crate::notifications::{Incident, IncidentKind};
use crate::shore::Concern;

/// Time after the start, in milliseconds, after which incidents are reported even if the first scans of the directories
/// still run.
const EARLY: i64 = 30_000;

impl Gatherer {
    /// Returns the current incidents, each with its start time. Returns `None` if the program does not run, and during
    /// the first scans of the directories, for up to 30 s after the start.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub async fn incidents(&self) -> Result<Option<Vec<Incident>>, LedgerError> {
        let (document, now) = (self.document().await?, self.now_ms());
        let is_early = |daemon: &Daemon| !daemon.ready && now - daemon.started.as_millisecond() < EARLY;
        if document.daemon.as_ref().is_none_or(is_early) {
            return Ok(None);
        }
        let mut incidents: Vec<Incident> = self.away(&document, now);
        let reload = document.daemon.as_ref().and_then(|daemon| daemon.reload.as_ref());
        if let Some(reload) = reload.filter(|reload| !reload.problems.is_empty()) {
            incidents.push(Incident {
                kind: IncidentKind::ReloadFailed,
                subject: String::new(),
                since: reload.at.as_millisecond(),
                reason: format!("the settings were not reloaded: {}", reload.problems.join("; ")),
                is_long: true,
            });
        }
        let mut lasting = Vec::new();
        for directory in &document.directories {
            let troubles = self.troubles_of(&DirectoryName::new(&directory.name));
            let (held, others): (Vec<_>, Vec<_>) = troubles
                .into_iter()
                .partition(|(concern, _)| matches!(concern, Concern::Deletions | Concern::HeldBack(_)));
            // Low space on the ledger's disk is reported as an incident of the disk.
            let others = others.into_iter().filter(|(concern, _)| *concern != Concern::DiskSpace);
            for (kind, texts) in [
                (IncidentKind::DeletionsHeld, held.into_iter().map(|(_, text)| text).collect::<Vec<_>>()),
                (IncidentKind::DirectoryTrouble, others.map(|(_, text)| text).take(3).collect()),
            ] {
                if !texts.is_empty() {
                    lasting.push((kind, directory.name.clone(), texts.join("; ")));
                }
            }
        }
        for disk in document.disks.iter().filter(|disk| disk.low) {
            let reason = format!("{}: {} bytes are free, less than MinFree", disk.path, disk.free_bytes);
            lasting.push((IncidentKind::DiskFull, disk.path.clone(), reason));
        }
        incidents.extend(self.trouble_times().since(lasting, now));
        Ok(Some(incidents))
    }

    /// Returns an incident for each vessel that is away or has not been reached yet since the start. A vessel that has
    /// not been reached yet is included, so that an incident that was reported before the start does not end too early.
    fn away(&self, document: &Document, now: i64) -> Vec<Incident> {
        let incident = |vessel: &VesselStatus| {
            let after = self.sending().vessel(&VesselName::new(&vessel.name))?.away_after;
            let since = match vessel.link.state {
                LinkState::Away => vessel.link.since.map_or(now, |since| since.as_millisecond()),
                LinkState::Connecting => now,
                _ => return None,
            };
            Some(Incident {
                kind: IncidentKind::VesselAway,
                subject: vessel.name.clone(),
                since,
                reason: format!("the vessel is away: {}", vessel.link.reason.clone().unwrap_or_default()),
                is_long: now.saturating_sub(since) >= i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            })
        };
        document.vessels.iter().filter_map(incident).collect()
    }
}
