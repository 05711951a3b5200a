//! Records the start times of the incidents of directories and disks.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::notifications::{Incident, IncidentKind};

/// Time in milliseconds after which an incident counts as long. A file that is just being written or removed may cause
/// a short incident.
const SETTLED: i64 = 10_000;

/// The start of each current incident of a directory or a disk, in milliseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct TroubleTimes(Mutex<HashMap<(IncidentKind, String), i64>>);

impl TroubleTimes {
    /// Returns the incidents with their start times. Incidents younger than [`SETTLED`] are not marked as long.
    pub(super) fn since(&self, lasting: Vec<(IncidentKind, String, String)>, now: i64) -> Vec<Incident> {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|(kind, subject), _| lasting.iter().any(|(k, s, _)| (k, s) == (kind, subject)));
        let of = |(kind, subject, reason): (IncidentKind, String, String)| {
            let since = *since.entry((kind, subject.clone())).or_insert(now);
            Incident { kind, subject, since, reason, is_long: now.saturating_sub(since) >= SETTLED }
        };
        lasting.into_iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_of_a_moment_is_not_told() {
        let times = TroubleTimes::default();
        let trouble = || vec![(IncidentKind::DirectoryTrouble, "docs".to_owned(), "cannot read a".to_owned())];
        assert!(!times.since(trouble(), 1000)[0].is_long);
        assert!(times.since(Vec::new(), 2000).is_empty());
        assert!(!times.since(trouble(), 12_000)[0].is_long, "it began anew");
        let told = times.since(trouble(), 22_000);
        assert_eq!((told.len(), told[0].since, told[0].is_long), (1, 12_000, true));
    }
}
