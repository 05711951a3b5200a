//! The troubles that commands and webhooks are told of, as the status document shows them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use super::document::{Document, LinkState};
use super::gather::Gatherer;
use crate::ledger::LedgerError;
use crate::names::{DirectoryName, VesselName};
use crate::notifications::{Incident, IncidentKind};
use crate::shore::Concern;

/// How long a directory must be in trouble before it counts, in milliseconds: a file that is written or removed at the
/// moment may be in trouble for a moment.
const SETTLED: i64 = 10_000;

/// Since when each directory has been in trouble, in milliseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct TroubleTimes(Mutex<HashMap<(IncidentKind, String), i64>>);

impl Gatherer {
    /// Returns the troubles that last, each with the time when it began.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub async fn incidents(&self) -> Result<Vec<Incident>, LedgerError> {
        let (document, now) = (self.document().await?, self.now_ms());
        let mut incidents: Vec<Incident> = self.away(&document, now);
        let reload = document.daemon.as_ref().and_then(|daemon| daemon.reload.as_ref());
        if let Some(reload) = reload.filter(|reload| !reload.problems.is_empty()) {
            incidents.push(Incident {
                kind: IncidentKind::ReloadFailed,
                subject: String::new(),
                since: reload.at.as_millisecond(),
                reason: format!("the settings were not reloaded: {}", reload.problems.join("; ")),
            });
        }
        let mut lasting = Vec::new();
        for directory in &document.directories {
            let troubles = self.troubles_of(&DirectoryName::new(&directory.name));
            let (held, others): (Vec<_>, Vec<_>) = troubles
                .into_iter()
                .partition(|(concern, _)| matches!(concern, Concern::Deletions | Concern::HeldBack(_)));
            // Low space on the ledger's disk is a trouble of the disk.
            let others = others.into_iter().filter(|(concern, _)| *concern != Concern::Room);
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
        incidents.extend(self.trouble_times().settled(lasting, now));
        Ok(incidents)
    }

    /// Returns the vessels that are away for longer than `AwayAfter`.
    fn away(&self, document: &Document, now: i64) -> Vec<Incident> {
        let incident = |vessel: &super::VesselStatus| {
            let after = self.sending().vessel(&VesselName::new(&vessel.name))?.away_after;
            let since = vessel.link.since.filter(|_| vessel.link.state == LinkState::Away)?.as_millisecond();
            let is_long = now.saturating_sub(since) >= i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
            is_long.then(|| Incident {
                kind: IncidentKind::VesselAway,
                subject: vessel.name.clone(),
                since,
                reason: format!("the vessel is away: {}", vessel.link.reason.clone().unwrap_or_default()),
            })
        };
        document.vessels.iter().filter_map(incident).collect()
    }
}

impl TroubleTimes {
    /// Returns those of the troubles that have lasted, with the time when they began.
    fn settled(&self, lasting: Vec<(IncidentKind, String, String)>, now: i64) -> Vec<Incident> {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|(kind, subject), _| lasting.iter().any(|(k, s, _)| (k, s) == (kind, subject)));
        let of = |(kind, subject, reason): (IncidentKind, String, String)| {
            let since = *since.entry((kind, subject.clone())).or_insert(now);
            (now.saturating_sub(since) >= SETTLED).then_some(Incident { kind, subject, since, reason })
        };
        lasting.into_iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_of_a_moment_is_not_told() {
        let times = TroubleTimes::default();
        let trouble = || vec![(IncidentKind::DirectoryTrouble, "docs".to_owned(), "cannot read a".to_owned())];
        assert!(times.settled(trouble(), 1000).is_empty());
        assert!(times.settled(Vec::new(), 2000).is_empty());
        assert!(times.settled(trouble(), 12_000).is_empty(), "it began anew");
        let told = times.settled(trouble(), 22_000);
        assert_eq!((told.len(), told[0].since), (1, 12_000));
    }
}
