//! The deliveries of one session: which ones start, how many run concurrently, and what happens when one ends.
//! `levels` decides the order within a priority, and `link::large_uploads` when the next large file may be sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinError;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use super::Vessel;
use super::blocked_places::BlockedPlaces;
use super::failed_delivery::FailedDelivery;
use super::levels::{Level, Levels};
use super::limited_way::{LimitedWay, allowed};
use super::retry_waits::ONCE_WAIT;
use super::running::{EndedDelivery, Running};
use crate::clock::wait_between;
use crate::fault::{Cause, Fault, Pace, Scope};
use crate::monitor::Event;
use crate::records::{Delivery, VersionId};
use crate::settings::{self, Priority};
use crate::transfer::Outcome;
use crate::transfer::Transfers;
use crate::transfer::take_over_assemblies;
use crate::transfer::tend_loop;
use crate::transfer::{Sweeping, sweep_late};

/// Maximum number of concurrent deliveries of files of one chunk (small deliveries). They are many, because each spends
/// most of its time waiting for round trips.
const SMALL_AT_ONCE: usize = 512;
/// The same maximum on a long network path, where the waits are longer.
const SMALL_AT_ONCE_FAR: usize = 2048;
/// Maximum number of concurrent deliveries of larger files that have bytes left to send: one is uploaded, while the
/// next one is prepared.
const LARGE_AT_ONCE: usize = 2;
/// Maximum number of concurrent deliveries of larger files, including those whose bytes are all sent, but that are
/// still being joined or verified.
const LARGE_ALIVE: usize = 4;
/// Maximum number of concurrent deliveries of large files that were moved, which cost no bandwidth. Several must run at
/// a time, because files that take each other's names must all be copied before one of them is replaced.
const MOVED_AT_ONCE: usize = 16;
/// Maximum total size of the small deliveries that run concurrently.
const SMALL_BYTES: u64 = 64 << 20;
/// Number of small deliveries of a priority that may run regardless of other priorities, so that a higher priority does
/// not keep them from starting.
const SMALL_SHARE: usize = SMALL_AT_ONCE / 20;
/// Number of small deliveries fetched from the ledger at once.
const FETCH: usize = 1024;
/// The same if a queue has an order: fewer, because they are fetched again when a new file may come before them.
const FETCH_IN_ORDER: usize = 256;
/// One large delivery in this many is the last one by the order of its queue.
const BACK: u32 = 20;

/// How long an ending session waits for data in flight to the vessel.
pub(super) const REST: Duration = Duration::from_secs(2);

/// Interval at which the costs of running deliveries are recorded, and the minimum number of written bytes for a
/// record. A crash loses the costs since the last record.
const RECORDING: Duration = Duration::from_secs(5);
const WORTH_RECORDING: u64 = 1 << 20;

/// Longest and shortest wait for an event.
const IDLE: Duration = Duration::from_secs(60);
const LEAST_WAIT: Duration = Duration::from_millis(50);
/// Longest wait if a window opens or closes later, or if the way may carry only some priorities.
const WINDOW_LOOK: Duration = Duration::from_secs(1);

/// The number of priorities.
const PRIORITIES: usize = Priority::ALL.len();

const LOOK: Look = Look { small: [true; PRIORITIES], large: [true; PRIORITIES] };

/// The deliveries of one session.
pub(super) struct Scheduler {
    vessel: Vessel,
    transfers: Arc<Transfers>,
    running: Running,
    /// Places on the vessel that can't be written to for now.
    blocked: BlockedPlaces,
    sweeping: Sweeping,
    /// The queues that are open now, by priority.
    levels: Levels,
    /// Fetched small deliveries, by priority.
    waiting: [VecDeque<Delivery>; PRIORITIES],
    /// Whether the ledger may have due deliveries that were not fetched yet, small or large.
    look: Look,
    /// Number of large deliveries that were started.
    large_started: u32,
    /// Whether a due delivery could not start, because its path is locked or its place is blocked.
    held_up: bool,
    /// When the next delivery is due, as queried from the ledger: `None` if not queried, `Some(None)` if no delivery is
    /// open.
    next_due: Option<Option<i64>>,
    limited_way: LimitedWay,
}

#[derive(Clone, Copy)]
struct Look {
    small: [bool; PRIORITIES],
    large: [bool; PRIORITIES],
}

/// Why the deliveries of a session ended without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing is left to do in a single run.
    Done,
    /// The vessel's window closed, or the way may carry none of the files that are due.
    Closed,
}

impl Scheduler {
    pub(super) fn new(vessel: Vessel, transfers: Arc<Transfers>) -> Self {
        let running = Running::new(vessel.late.clone());
        let mut scheduler = Self {
            sweeping: Sweeping::new(running.ids().clone()),
            running,
            vessel,
            transfers,
            blocked: BlockedPlaces::default(),
            levels: Levels::default(),
            waiting: Default::default(),
            look: LOOK,
            large_started: 0,
            held_up: false,
            next_due: None,
            limited_way: LimitedWay::default(),
        };
        scheduler.set_levels();
        scheduler.limited_way.say_reserve(&scheduler.transfers.session);
        scheduler
    }

    /// Returns whether no delivery is running, waiting or due.
    fn is_idle(&self) -> bool {
        let is_due = self.next_due.flatten().is_some_and(|due| due <= self.vessel.clock.now_ms());
        self.running.is_empty() && !is_due && self.waiting.iter().all(VecDeque::is_empty)
    }

    fn is_of_no_use(&mut self) -> bool {
        let is_idle = self.is_idle();
        self.limited_way.is_of_no_use(&self.transfers.session, is_idle)
    }

    /// Determines which queues are open now, and passes the rules for sending to the session's channels and gate.
    fn set_levels(&mut self) {
        let Vessel { settings, directories, clock, .. } = &self.vessel;
        let allowed = allowed(&self.transfers.session);
        self.levels = Levels::at(clock.now_ms(), settings, directories, allowed);
        let session = &self.transfers.session;
        session.channels.keep_short_queues(self.levels.levels.len() > 1);
        session.gate.set(self.levels.rules.clone());
        self.waiting = Default::default();
        self.look_again();
    }

    /// Forgets cached ledger answers, because more deliveries may be due now.
    fn look_again(&mut self) {
        (self.look, self.held_up, self.next_due) = (LOOK, false, None);
        for level in self.levels.levels.iter().filter(|level| level.has_order()) {
            self.waiting[level.priority as usize].clear();
        }
    }

    /// Runs deliveries until no delivery is left (in a single run only), the vessel's window closes, or the session
    /// must end with a fault.
    pub(super) async fn run(&mut self) -> Result<Ended, Fault> {
        take_over_assemblies(&self.transfers).await?;
        let session = self.transfers.session.clone();
        let tending = async move { session.channels.tend(&session.link).await };
        let _tending = AbortOnDropHandle::new(tokio::spawn(tending));
        // A single run does not start the loop for small files in advance: it may end before the start is complete,
        // which would leave a probe file on the vessel.
        let (transfers, ahead) = (self.transfers.clone(), self.vessel.until_done.is_none());
        let _preparing = AbortOnDropHandle::new(tokio::spawn(async move { tend_loop(&transfers, ahead).await }));
        let late = sweep_late(self.transfers.session.clone(), self.running.ids().clone());
        let _late = AbortOnDropHandle::new(tokio::spawn(late));
        // Parts are removed in the background, because no delivery depends on the removal of files from earlier
        // sessions.
        self.sweeping.begin_strays(&self.transfers);
        self.sweep();
        let mut recording = tokio::time::interval_at(tokio::time::Instant::now() + RECORDING, RECORDING);
        recording.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !self.levels.are_current(
                self.vessel.clock.now_ms(),
                &self.vessel.directories,
                allowed(&self.transfers.session).priorities,
            ) {
                self.set_levels();
                self.limited_way.say_reserve(&self.transfers.session);
            }
            if self.blocked.next_look().is_some_and(|wait| wait.is_zero()) && self.blocked.look(&self.transfers).await?
            {
                self.look_again();
            }
            if self.vessel.late.expire() {
                if self.vessel.late.count() == 0 {
                    // Late requests may have created temporary files of superseded deliveries again.
                    self.sweeping.begin_strays(&self.transfers);
                }
                self.look_again();
            }
            self.start_due().await?;
            let wait = self.wait().await?;
            if self.running.is_empty() {
                self.transfers.session.has_arrived();
            }
            if self.running.is_empty() && self.sweeping.is_idle() && wait.is_none() {
                return Ok(Ended::Done);
            }
            if self.running.is_empty() && self.sweeping.is_idle() && (self.is_closed() || self.is_of_no_use()) {
                return Ok(Ended::Closed);
            }
            let (transfers, bell) = (self.transfers.clone(), self.vessel.bell.clone());
            tokio::select! {
                Some(ended) = self.running.ended() => {
                    self.end(ended).await?;
                    while let Some(ended) = self.running.ended_already() {
                        self.end(ended).await?;
                    }
                    self.sweeping.begin_markers(&transfers);
                }
                Some(swept) = self.sweeping.ended(&transfers) => swept?,
                stopped = transfers.session.gate.stopped() => self.stop(&stopped),
                () = transfers.session.large_uploads.passed_on() => {
                    self.look.large = LOOK.large;
                }
                _ = recording.tick(), if !self.running.is_empty() => self.record_costs(WORTH_RECORDING).await?,
                () = bell.rung() => {
                    self.look_again();
                    self.end_unwanted().await?;
                    self.sweep();
                }
                () = transfers.session.remote.lost() => {
                    return Err(Fault::vessel(transfers.session.remote.lost_error()).at(Pace::Soon).of(Cause::Link));
                }
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)) => self.look_again(),
            }
        }
    }

    /// Waits until the vessel has acknowledged the data in flight, so that the data need not be sent again, and has
    /// answered all requests that change final names. Waits at most for the time `most`, and at most a quarter of it
    /// for small deliveries to end. Starts no new deliveries.
    pub(super) async fn come_to_rest(&mut self, most: Duration) -> Result<(), Fault> {
        let (session, since) = (self.transfers.session.clone(), Instant::now());
        session.resting.cancel();
        while !self.running.is_empty() && since.elapsed() < most && !session.remote.is_lost() {
            let small = self.running.all().any(|(_, busy)| !busy.large) && since.elapsed() < most / 4;
            let is_unanswered = self.running.all().any(|(delivery, _)| session.changes.has(delivery));
            if session.channels.unanswered() == 0 && !small && !is_unanswered {
                break;
            }
            tokio::select! {
                Some(ended) = self.running.ended() => match self.end(ended).await {
                    Err(fault) if fault.scope == Scope::Daemon => return Err(fault),
                    _ => {}
                },
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
        Ok(())
    }

    /// Aborts the running deliveries. The next session resumes each delivery from its current state. Returns whether
    /// the vessel has answered all requests of this session that change final names.
    pub(super) async fn drop_all(&mut self) -> bool {
        self.running.shut_down(&self.transfers).await
    }

    /// Records the costs of the deliveries in the ledger, except of those that have written less than `least` bytes
    /// since the last record.
    pub(super) async fn record_costs(&self, least: u64) -> Result<(), Fault> {
        let costs = self.transfers.session.costs.take(least);
        match costs.is_empty() {
            true => Ok(()),
            false => self.vessel.ledger.add_costs(&costs).await.map_err(|e| e.fault()),
        }
    }

    fn sweep(&mut self) {
        self.sweeping.begin_remains(&self.transfers);
    }

    /// Cancels superseded large deliveries, because a large delivery may not query the ledger for hours. Also cancels
    /// deliveries whose source or destination has changed with the settings of their directory; they start again.
    async fn end_unwanted(&self) -> Result<(), Fault> {
        let directories = &self.vessel.directories;
        let has_moved = |then: &Arc<settings::Directory>| {
            directories.get(&then.name).is_none_or(|(now, _)| !now.is_delivered_like(then))
        };
        let moved = self.running.all().filter(|(_, busy)| busy.directory.as_ref().is_some_and(has_moved));
        moved.for_each(|(_, busy)| busy.unwanted.cancel());
        for (delivery, busy) in self.running.all().filter(|(_, busy)| busy.large) {
            if !self.vessel.ledger.is_open(delivery).await.map_err(|e| e.fault())? {
                busy.unwanted.cancel();
            }
        }
        Ok(())
    }

    /// Ends the deliveries of these versions. They were stopped before their next write, because the window of their
    /// directory is closed. In the next window, they continue with that write.
    fn stop(&self, versions: &[VersionId]) {
        let stopped = self.running.all().filter(|(_, busy)| versions.contains(&busy.version));
        stopped.for_each(|(_, busy)| busy.unwanted.cancel());
    }

    /// Returns whether the vessel's window is closed, and no delivery is due that may be sent outside of the window.
    fn is_closed(&self) -> bool {
        let Vessel { settings, clock, .. } = &self.vessel;
        let now = clock.now_ms();
        let is_due = self.next_due.flatten().is_some_and(|due| due <= now);
        !settings.schedule.is_open(now) && !is_due && self.waiting.iter().all(VecDeque::is_empty)
    }

    /// Returns how long to wait for an event before the next pass. `None` if a single run (`--once`) has nothing to
    /// wait for.
    async fn wait(&mut self) -> Result<Option<Duration>, Fault> {
        let vessel = &self.vessel;
        let late = vessel.late.next_end();
        // The wait is limited to `WINDOW_LOOK`, because the clock may be set meanwhile.
        let until = self.levels.until().map(|until| wait_between(vessel.clock.now_ms(), until));
        let is_limited = !self.levels.are_all_allowed();
        let until = until.or(is_limited.then_some(WINDOW_LOOK)).map(|until| until.clamp(LEAST_WAIT, WINDOW_LOOK));
        if self.waiting.iter().any(|waiting| !waiting.is_empty()) {
            // The fetched deliveries wait for a free path or slot. A delivery that ends frees one.
            return Ok(Some(until.unwrap_or(IDLE).min(late.unwrap_or(IDLE).max(LEAST_WAIT))));
        }
        if self.running.is_empty() {
            self.next_due = None;
        }
        // `taken_in` is read before the ledger is queried, because the answer does not include files taken in during
        // the query.
        let taken_in = vessel.until_done.as_ref().map(|all| all.iter().all(|taken_in| *taken_in.borrow()));
        let due = match self.next_due {
            Some(due) => due,
            None => {
                let held_back = self.blocked.directories();
                self.levels.next_due_at(&vessel.ledger, &vessel.settings, &held_back).await?
            }
        };
        self.next_due = Some(due);
        let wait = due.map(|due| wait_between(vessel.clock.now_ms(), due));
        // Due deliveries that could not start wait for a free path or slot. A delivery that ends frees one.
        let wait = match wait {
            Some(wait) if wait.is_zero() && (!self.running.is_empty() || late.is_some()) => IDLE,
            Some(wait) => wait.clamp(LEAST_WAIT, IDLE),
            None => IDLE,
        };
        let wait = until.map_or(wait, |until| until.min(wait));
        let wait = late.map_or(wait, |end| end.min(wait).max(LEAST_WAIT));
        let Some(all_taken_in) = taken_in else {
            // Deliveries that are held back wait until their place is probed again.
            return Ok(Some(self.blocked.next_look().map_or(wait, |look| look.min(wait))));
        };
        let nothing_soon = due.is_none_or(|due| wait_between(vessel.clock.now_ms(), due) > ONCE_WAIT);
        Ok((!all_taken_in || !nothing_soon).then_some(wait))
    }

    async fn start_due(&mut self) -> Result<(), Fault> {
        for at in 0..self.levels.levels.len() {
            let level = self.levels.levels[at].clone();
            self.start_large(&level).await?;
            self.start_small(&level).await?;
        }
        Ok(())
    }

    async fn start_large(&mut self, level: &Level) -> Result<(), Fault> {
        let priority = level.priority;
        let alike = || self.running.all().filter(|(_, busy)| busy.large && busy.priority == priority);
        let of_kind = |moved| alike().filter(move |(_, busy)| busy.moved == moved);
        let uploads = &self.transfers.session.large_uploads;
        let (mut moved, alive) = (of_kind(true).count(), of_kind(false).count());
        let mut large = of_kind(false).filter(|(delivery, _)| !uploads.has_sent(*delivery)).count();
        let most_large = LARGE_AT_ONCE.min(large + LARGE_ALIVE.saturating_sub(alive));
        if !self.look.large[priority as usize] || large >= most_large {
            return Ok(());
        }
        self.look.large[priority as usize] = false;
        for delivery in self.due(level, true, LARGE_AT_ONCE + MOVED_AT_ONCE).await? {
            let (count, most) = match delivery.origin.is_some() {
                true => (&mut moved, MOVED_AT_ONCE),
                false => (&mut large, most_large),
            };
            if *count == most {
                self.look.large[priority as usize] = true;
            } else if self.is_free(&delivery) {
                *count += 1;
                self.large_started = self.large_started.wrapping_add(u32::from(delivery.origin.is_none()));
                self.running.start((&self.vessel, &self.transfers), delivery, true, priority);
            } else {
                self.held_up = true;
            }
        }
        Ok(())
    }

    async fn start_small(&mut self, level: &Level) -> Result<(), Fault> {
        let priority = level.priority;
        // `alike` counts the small deliveries of this priority; `small` and `bytes` count those of this or a higher
        // priority. Deliveries of lower priorities don't count, because they don't take slots from this priority.
        let (mut alike, mut small, mut bytes) = (0, 0, 0);
        for (_, busy) in self.running.all().filter(|(_, busy)| !busy.large && busy.priority <= priority) {
            (small, bytes) = (small + 1, bytes + busy.bytes);
            alike += usize::from(busy.priority == priority);
        }
        let is_empty = self.waiting[priority as usize].is_empty();
        let at_once = if self.transfers.session.is_far() { SMALL_AT_ONCE_FAR } else { SMALL_AT_ONCE };
        if self.look.small[priority as usize] && is_empty && (small < at_once / 2 || alike < SMALL_SHARE) {
            let fetch = if level.has_order() { FETCH_IN_ORDER } else { FETCH };
            let due = self.due(level, false, fetch).await?;
            self.look.small[priority as usize] = !due.is_empty();
            self.waiting[priority as usize] = due.into();
        }
        while (small < at_once && bytes < SMALL_BYTES || alike < SMALL_SHARE)
            && let Some(delivery) = self.waiting[priority as usize].pop_front()
        {
            if self.is_free(&delivery) {
                (small, alike) = (small + 1, alike + 1);
                bytes += delivery.version.stamp.size;
                self.running.start((&self.vessel, &self.transfers), delivery, false, priority);
            } else {
                self.held_up = true;
            }
        }
        Ok(())
    }

    /// Returns deliveries of a level that are due and free to start.
    async fn due(&mut self, level: &Level, large: bool, most: usize) -> Result<Vec<Delivery>, Fault> {
        let vessel = &self.vessel;
        let held_back = self.levels.held_back(self.blocked.directories());
        let back = large && self.large_started % BACK == BACK - 1;
        let limit = most + self.running.count() + vessel.late.count();
        let mut due = level.due(&vessel.ledger, &vessel.settings, (large, limit), &held_back, back).await?;
        due.retain(|delivery| !self.running.contains(delivery.id));
        let all = due.len();
        due.retain(|delivery| self.is_free(delivery));
        self.held_up |= due.len() < all;
        Ok(due)
    }

    fn is_free(&self, delivery: &Delivery) -> bool {
        let directory = &delivery.version.directory;
        self.running.leaves_free(delivery)
            && !self.blocked.holds_back(directory)
            && !self.levels.rules.closed.contains(directory)
    }

    async fn end(&mut self, ended: Result<EndedDelivery, JoinError>) -> Result<(), Fault> {
        let (delivery, outcome) = ended.map_err(|e| Fault::daemon(format_args!("a delivery task crashed: {e}")))?;
        let vessel = &self.vessel;
        vessel.monitor.notice(&Event::Ended { vessel: &vessel.settings.name, version: delivery.version.id });
        self.transfers.session.costs.end(delivery.version.id);
        let large = self.running.remove(&delivery, &self.transfers);
        // Other deliveries may have waited for a move.
        if large || delivery.origin.is_some() || self.held_up || !matches!(outcome, Ok(Outcome::Acknowledged)) {
            self.look_again();
        }
        match outcome {
            Ok(Outcome::Acknowledged) => Ok(()),
            Ok(Outcome::Superseded) => {
                self.sweep();
                Ok(())
            }
            // The connection failed, not the delivery. The delivery resumes on the next connection.
            Err(_) if self.transfers.session.remote.is_lost() => Ok(()),
            Err(fault) => {
                let failed = FailedDelivery { vessel: &self.vessel, transfers: &self.transfers, delivery: &delivery };
                match failed.put_off(fault, &mut self.blocked).await {
                    // The connection was lost before the place could be examined.
                    Err(fault) if fault.scope < Scope::Vessel && self.transfers.session.remote.is_lost() => {
                        return Ok(());
                    }
                    put_off => put_off?,
                }
                // The sweep skips running deliveries. If this delivery was superseded while it ran, its remains must be
                // removed now.
                self.sweep();
                Ok(())
            }
        }
    }
}
