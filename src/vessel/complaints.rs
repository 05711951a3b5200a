//! Warnings of one kind, which hundreds of files may give rise to: the first ones are said, the others counted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::fault::Cause;
use crate::names::VesselName;

/// Lines of one kind that are said within a time.
const SAID: u64 = 10;
const WITHIN: Duration = Duration::from_secs(60);

struct Kind {
    since: Instant,
    count: u64,
}

/// The warnings of one vessel's deliveries.
#[derive(Default)]
pub(super) struct Complaints(HashMap<Cause, Kind>);

impl Complaints {
    /// Whether a warning is to be said; says how many were not since the last time.
    pub(super) fn is_worth_a_line(&mut self, cause: Cause, vessel: &VesselName) -> bool {
        self.tell(vessel);
        let kind = self.0.entry(cause).or_insert_with(|| Kind { since: Instant::now(), count: 0 });
        kind.count += 1;
        kind.count <= SAID
    }

    /// Says how many were not said, of each kind whose time is over.
    pub(super) fn tell(&mut self, vessel: &VesselName) {
        self.0.retain(|cause, kind| {
            let is_over = kind.since.elapsed() >= WITHIN;
            if is_over && kind.count > SAID {
                let (more, cause) = (kind.count - SAID, cause.as_str());
                tracing::warn!(%vessel, more, cause, "Further files were put off for the same sort of reason");
            }
            !is_over
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_thousand_warnings_of_one_kind_ten_are_said_and_another_kind_is_not_kept_back() {
        let (mut complaints, vessel) = (Complaints::default(), VesselName::new("tern"));
        let said = (0..1000).filter(|_| complaints.is_worth_a_line(Cause::Other, &vessel)).count();
        assert_eq!(said as u64, SAID);
        assert!(complaints.is_worth_a_line(Cause::Denied, &vessel));
    }
}
