//! What is due for a vessel, and whether that is worth a connection.

use std::sync::Arc;
use std::time::Duration;

use super::Vessel;
use super::levels::{Allowed, Levels};
use super::ways::Ways;
use crate::clock::wait_between;
use crate::fault::Fault;
use crate::link::WORTH_BYTES;
use crate::settings::Priorities;

/// How often it is checked during a session which priorities are due, where a way may carry only some.
const LOOK_FOR_WANTED: Duration = Duration::from_secs(1);

/// Number of large deliveries examined to find out whether there is much to send.
const GLANCE: usize = 8;

/// Shortest and longest wait before a vessel whose window is closed is checked again.
const LEAST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// The due deliveries of a vessel, and the ways that may carry them.
#[derive(Clone, Copy)]
pub(super) struct DueWork<'a> {
    pub(super) vessel: &'a Vessel,
    pub(super) ways: &'a Arc<Ways>,
}

impl DueWork<'_> {
    /// Returns of which priorities files are due.
    pub(super) async fn due_priorities(self) -> Result<Priorities, Fault> {
        let Vessel { settings, ledger, clock, .. } = self.vessel;
        self.levels().due_priorities(ledger, settings, clock.now_ms()).await
    }

    /// Returns why no connection is made although a way is open: each may carry only some priorities, and no file of
    /// these is due.
    pub(super) async fn no_way_is_wanted(self) -> Result<Option<String>, Fault> {
        if !self.ways.may_be_limited() {
            return Ok(None);
        }
        self.ways.want(self.due_priorities().await?);
        Ok(self.ways.all_unwanted())
    }

    /// Waits until a file is due that a way may carry which was of no use before.
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

    /// Has the ways know of which priorities files are due, as long as a session lasts; never returns.
    pub(super) async fn keep_wanted(self) {
        while self.ways.may_be_limited() {
            if let Ok(due) = self.due_priorities().await {
                self.ways.want(due);
            }
            tokio::time::sleep(LOOK_FOR_WANTED).await;
        }
        std::future::pending().await
    }

    /// Returns how long to wait before the vessel is checked again, because its window is closed and no delivery is due
    /// that may be sent nevertheless; `None` if the vessel may be connected.
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
        // The clock may be set meanwhile.
        let next = due.into_iter().chain(levels.until()).map(|at| wait_between(now, at)).min();
        Ok(Some(next.unwrap_or(LONGEST_LOOK).clamp(LEAST_LOOK, LONGEST_LOOK)))
    }

    fn levels(self) -> Levels {
        let Vessel { settings, directories, clock, .. } = self.vessel;
        Levels::at(clock.now_ms(), settings, directories, Allowed::default())
    }

    /// Returns whether a delivery is due. Vessels with due deliveries log in first.
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
            // More files may be taken in meanwhile. It doesn't matter that this consumes the ring: a session queries
            // the ledger itself when it starts.
            bell.rung().await;
        }
    }
}
