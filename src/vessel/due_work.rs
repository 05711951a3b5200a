//! The due deliveries of a vessel, and whether they justify a connection.

use std::sync::Arc;
use std::time::Duration;

use super::Vessel;
use super::levels::{Allowed, Levels};
use super::ways::Ways;
use crate::clock::wait_between;
use crate::fault::Fault;
use crate::link::WORTH_BYTES;
use crate::settings::Priorities;

/// Interval at which the priorities of the due files are updated during a session, if a way is limited to some
/// priorities.
const LOOK_FOR_WANTED: Duration = Duration::from_secs(1);

/// Maximum number of due large deliveries per queue whose sizes are added up, to decide whether further connections are
/// worth opening.
const GLANCE: usize = 8;

/// Shortest and longest wait before a vessel whose schedule is closed is checked again.
const LEAST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// The due deliveries of a vessel, and the ways that may carry them.
#[derive(Clone, Copy)]
pub(super) struct DueWork<'a> {
    pub(super) vessel: &'a Vessel,
    pub(super) ways: &'a Arc<Ways>,
}

impl DueWork<'_> {
    /// Returns the priorities of the files that are due.
    pub(super) async fn due_priorities(self) -> Result<Priorities, Fault> {
        let Vessel { settings, ledger, clock, .. } = self.vessel;
        self.levels().due_priorities(ledger, settings, clock.now_ms()).await
    }

    /// Returns why no connection is made, if every open way is limited to priorities that no due file has. Returns
    /// `None` if a way may carry a due file, or if no way is limited.
    pub(super) async fn no_way_is_wanted(self) -> Result<Option<String>, Fault> {
        if !self.ways.may_be_limited() {
            return Ok(None);
        }
        self.ways.want(self.due_priorities().await?);
        Ok(self.ways.all_unwanted())
    }

    /// Waits until a due file makes another way usable: a way that could not carry any of the files that were due
    /// before. Waits forever if no way is limited to some priorities.
    pub(super) async fn limited_way_is_wanted(self) {
        if !self.ways.may_be_limited() {
            return std::future::pending().await;
        }
        let before = self.ways.wanted();
        loop {
            self.vessel.bell.rung().await;
            // A ledger error is ignored here, because the next query reports it.
            if let Ok(due) = self.due_priorities().await
                && self.ways.becomes_wanted(before, due)
            {
                return;
            }
        }
    }

    /// During a session, repeatedly stores in `ways` which priorities the due files have. Never returns.
    pub(super) async fn keep_wanted(self) {
        while self.ways.may_be_limited() {
            if let Ok(due) = self.due_priorities().await {
                self.ways.want(due);
            }
            tokio::time::sleep(LOOK_FOR_WANTED).await;
        }
        std::future::pending().await
    }

    /// Returns `None` if the vessel may be connected: its schedule is open, or a delivery is due that may be sent
    /// outside of the schedule. Otherwise returns how long to wait before the next check.
    pub(super) async fn waits_for_window(self) -> Result<Option<Duration>, Fault> {
        let Vessel { settings, clock, .. } = self.vessel;
        let now = clock.now_ms();
        if settings.schedule.is_open(now) {
            return Ok(None);
        }
        let levels = self.levels();
        let due = levels.next_due_at(&self.vessel.ledger, settings, &[]).await?;
        if due.is_some_and(|due| due <= now) {
            return Ok(None);
        }
        // The wait is limited to `LONGEST_LOOK`, because the clock may be set in the meantime.
        let next = due.into_iter().chain(levels.until()).map(|at| wait_between(now, at)).min();
        Ok(Some(next.unwrap_or(LONGEST_LOOK).clamp(LEAST_LOOK, LONGEST_LOOK)))
    }

    fn levels(self) -> Levels {
        let Vessel { settings, directories, clock, .. } = self.vessel;
        Levels::at(clock.now_ms(), settings, directories, Allowed::default())
    }

    /// Returns whether a delivery is due. Vessels with due deliveries log in before others.
    pub(super) async fn has_work(self) -> bool {
        let Vessel { settings, ledger, clock, .. } = self.vessel;
        // A ledger error is ignored here, because the next query reports it.
        let due = self.levels().next_due_at(ledger, settings, &[]).await.ok().flatten();
        due.is_some_and(|due| due <= clock.now_ms())
    }

    /// Waits until enough bytes of large files are due to justify further connections.
    pub(super) async fn enough_to_send(self) {
        let Vessel { settings, ledger, bell, .. } = self.vessel;
        loop {
            // A ledger error is ignored here, because the next query reports it.
            let mut bytes = 0;
            for level in &self.levels().levels {
                let due = level.due(ledger, settings, (true, GLANCE), &[], false).await.unwrap_or_default();
                bytes += due.iter().map(|delivery| delivery.version.stamp.size).sum::<u64>();
            }
            if bytes >= WORTH_BYTES {
                return;
            }
            // Waits for more files. This consumes the signal of the bell, which does no harm: a session queries the
            // ledger itself when it starts.
            bell.rung().await;
        }
    }
}
