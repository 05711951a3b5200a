//! A vessel's task: connects, runs deliveries, and reconnects whenever a connection ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::Vessel;
use super::announcements::{self, Announcements};
use super::due_work::DueWork;
use super::retry_waits::{AWAY, DIALLED_IN, DIALLED_IN_SOON, SLOW, SOON, UNHURRIED};
use super::scheduler::{Ended, REST, Scheduler};
use super::session_memory::{SessionMemory, meet};
use super::way_failover::{self, Change};
use super::ways::Ways;
use crate::backoff::Backoff;
use crate::clock::wait_between;
use crate::fault::{Cause, Fault, Pace, Scope};
use crate::link::replacement;
use crate::link::{Closed, Session};
use crate::link::{Coming, preconnect};
use crate::local::Arrival;
use crate::transfer::Transfers;
use crate::transfer::compare_places;
use crate::transport::{ConnectError, Lead, Rank, Remote};

/// How long a session waits for data in flight before it switches to a better way.
const REST_BEFORE_A_BETTER_WAY: Duration = Duration::from_millis(700);
/// How long a session waits for data in flight, and then for the end of its connection, before another shore serves the
/// vessel. The other shore should begin within a second.
const REST_BEFORE_ANOTHER_SHORE: Duration = Duration::from_millis(300);

/// Interval at which the task checks whether a new period of a budget has begun, or a schedule is open.
const LOOK_WHILE_CLOSED: Duration = Duration::from_secs(1);

/// In a single run (`--once`): the number of connections that may fail in a row.
const ONCE_CONNECTIONS: u32 = 3;

/// Serves a vessel until the task is stopped or, in a single run, until nothing is left that can be done.
///
/// # Errors
/// Returns a daemon-wide [`Fault`] if the ledger can't be used. A vessel's own faults are logged and retried.
pub async fn supervise(vessel: Vessel) -> Result<(), Fault> {
    // After a start, all postponed deliveries are tried again.
    vessel.ledger.hurry(&vessel.settings.name).await.map_err(|e| e.fault())?;
    let memory = SessionMemory::load(&vessel).await?;
    Supervisor::new(vessel, memory).run().await
}

struct Supervisor {
    vessel: Vessel,
    /// Number of connections in a row that failed in the same way.
    failures: u32,
    /// Whether it was reported that the vessel's schedule is closed.
    is_window_closed: bool,
    announcements: Announcements,
    /// Set until the first session starts or the vessel is found to be away. Until then, other readers of the same
    /// files wait for this vessel.
    arrival: Option<Arrival>,
    memory: SessionMemory,
    /// Whether the last session sent bytes over one connection only. Then the next session opens no further connections
    /// early.
    narrow: bool,
    ways: Arc<Ways>,
    /// The session that the next one continues, because another connection has taken over.
    earlier: Option<Arc<Session>>,
}

/// Whether a connection is needed.
enum Need {
    Connect,
    /// Something has changed, so the need must be determined again.
    LookAgain,
    /// The vessel's task ends.
    End,
}

enum End {
    /// Nothing is left to do in a single run.
    Done,
    /// The vessel was paused, its schedule closed, or its task was stopped.
    LeftAlone,
    /// The session ended with a fault; `progress` tells whether it had sent anything.
    Away { fault: Fault, progress: bool },
    /// The session continues over another connection, because its connection stalled or another way took over. Fields:
    /// the number of the new way, and the new connection.
    Replaced(usize, Remote),
    /// The way may not be used any more.
    Closed,
}

impl Supervisor {
    fn new(vessel: Vessel, memory: SessionMemory) -> Self {
        Self {
            arrival: Some(vessel.source_cache.arrival()),
            ways: Arc::new(Ways::new(vessel.ways.clone(), vessel.clock.clone(), vessel.environment.clone())),
            vessel,
            earlier: None,
            failures: 0,
            is_window_closed: false,
            announcements: Announcements::default(),
            memory,
            narrow: false,
        }
    }

    fn due_work(&self) -> DueWork<'_> {
        DueWork { vessel: &self.vessel, ways: &self.ways }
    }

    async fn run(mut self) -> Result<(), Fault> {
        let (mut pace, mut other) = (None, None);
        let stop = self.vessel.stop.clone();
        while !stop.is_cancelled() {
            match self.wait_until_needed(other.is_some()).await? {
                Need::Connect => {}
                Need::LookAgain => continue,
                Need::End => return Ok(()),
            }
            let tunnel = self.ways.look_at_sockets().await;
            let (connected, coming) = match other.take() {
                Some(ready) => (Ok(ready), Vec::new()),
                None => {
                    let attempt = async {
                        tokio::select! {
                            connected = self.connect() => Some(connected),
                            () = tunnel.renewed() => None,
                            // The running attempt does not try a way that has just become usable, so the attempt ends.
                            () = self.due_work().limited_way_is_wanted() => None,
                        }
                    };
                    match stop.run_until_cancelled(attempt).await {
                        None => return Ok(()),
                        // The attempt is out of date: the vessel has replaced its tunnel, or another way has become
                        // usable.
                        Some(None) => {
                            self.ways.note_dialled_in();
                            continue;
                        }
                        Some(Some(connected)) => connected,
                    }
                }
            };
            let fault = match connected {
                Ok((way, remote)) => match self.session(way, remote, coming).await? {
                    End::Done => return Ok(()),
                    End::LeftAlone => continue,
                    End::Replaced(way, remote) => {
                        other = Some((way, remote));
                        continue;
                    }
                    End::Closed => {
                        self.forget_failures();
                        continue;
                    }
                    End::Away { fault, progress } => {
                        if progress {
                            self.forget_failures();
                        }
                        fault
                    }
                },
                Err(fault) => fault,
            };
            if fault.scope == Scope::Daemon {
                return Err(fault);
            }
            self.arrival = None;
            // The count restarts if the kind of failure changes. For example, a refused login after an hour without a
            // link counts as the first refusal.
            self.failures = if pace == Some(fault.pace) { self.failures + 1 } else { 1 };
            pace = Some(fault.pace);
            let hopeless = self.failures >= ONCE_CONNECTIONS || !matches!(fault.pace, Pace::AtOnce | Pace::Soon);
            let gives_up = self.vessel.until_done.is_some() && hopeless;
            let is_dialled_in = self.ways.are_dialled_in();
            let pause = pause(fault.pace, self.vessel.settings.reconnect_wait, is_dialled_in);
            let wait = (!gives_up).then(|| pause.wait(self.failures, fastrand::f64()));
            self.announcements.away(&self.vessel, &fault, wait).await?;
            let Some(wait) = wait else { return Ok(()) };
            // After a refused login, even a new tunnel does not end the wait, because more logins may lock the account.
            let renewed = async {
                match fault.pace {
                    Pace::Slow => std::future::pending().await,
                    Pace::AtOnce | Pace::Soon | Pace::Unhurried => tunnel.renewed().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = renewed => {
                    self.ways.note_dialled_in();
                    self.failures = 0;
                }
                () = self.vessel.hurry.rung() => {}
                () = self.due_work().limited_way_is_wanted() => {}
                () = self.vessel.becomes_paused(true) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Waits as long as the vessel is paused, its schedule is closed, or no way may carry a due file. `is_connected`
    /// tells whether there is a connection already.
    async fn wait_until_needed(&mut self, is_connected: bool) -> Result<Need, Fault> {
        let (stop, once) = (self.vessel.stop.clone(), self.vessel.until_done.is_some());
        if *self.vessel.paused.borrow() {
            if once {
                return Ok(Need::End);
            }
            // Other readers of the same files need not wait for a paused vessel.
            self.arrival = None;
            stop.run_until_cancelled(self.vessel.becomes_paused(false)).await;
            self.forget_failures();
            return Ok(Need::LookAgain);
        }
        let Some(wait) = self.due_work().waits_for_window().await? else {
            self.is_window_closed = false;
            self.memory.forget_old_refusal(&self.vessel).await?;
            return if is_connected { Ok(Need::Connect) } else { self.wait_until_a_way_is_open().await };
        };
        if once {
            return Ok(Need::End);
        }
        if !std::mem::replace(&mut self.is_window_closed, true) {
            announcements::closed(&self.vessel).await?;
        }
        self.arrival = None;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.vessel.bell.rung() => {}
            () = self.vessel.becomes_paused(true) => {}
            () = stop.cancelled() => {}
        }
        self.forget_failures();
        Ok(Need::LookAgain)
    }

    async fn wait_until_a_way_is_open(&mut self) -> Result<Need, Fault> {
        let goes_on = if let Some(closed) = self.ways.all_closed() {
            self.wait_until_open(closed).await?
        } else if let Some(unwanted) = self.due_work().no_way_is_wanted().await? {
            self.wait_until_wanted(unwanted).await?
        } else {
            return Ok(Need::Connect);
        };
        Ok(if goes_on { Need::LookAgain } else { Need::End })
    }

    fn forget_failures(&mut self) {
        self.failures = 0;
        self.announcements.forget_reason();
    }

    /// Reports why no connection is made, and waits until a way may carry a due file. Returns `false` if the task must
    /// end.
    async fn wait_until_wanted(&mut self, why: String) -> Result<bool, Fault> {
        let once = self.vessel.until_done.is_some();
        let fault = Fault::vessel(why).at(Pace::Unhurried).of(Cause::Closed);
        self.arrival = None;
        self.announcements.away(&self.vessel, &fault, None).await?;
        if once {
            return Ok(false);
        }
        while self.due_work().no_way_is_wanted().await?.is_some() {
            tokio::select! {
                () = self.vessel.bell.rung() => {}
                () = tokio::time::sleep(LOOK_WHILE_CLOSED) => {}
                () = self.vessel.becomes_paused(true) => return Ok(true),
                () = self.vessel.stop.cancelled() => return Ok(false),
            }
        }
        self.announcements.forget_reason();
        Ok(true)
    }

    /// Reports until when no way may be used, and waits until a way may be used. Returns `false` if the task must end.
    async fn wait_until_open(&mut self, closed: Closed) -> Result<bool, Fault> {
        let (clock, once) = (self.vessel.clock.clone(), self.vessel.until_done.is_some());
        let goes_on = Timestamp::from_millisecond(closed.until).unwrap_or(Timestamp::MAX);
        let reason = format!("{}; deliveries continue at {goes_on:.0}", closed.why);
        let fault = Fault::vessel(reason).at(Pace::Unhurried).mend(closed.remedy).of(Cause::Closed);
        let wait = wait_between(clock.now_ms(), closed.until);
        self.arrival = None;
        self.announcements.away(&self.vessel, &fault, (!once).then_some(wait)).await?;
        if once {
            return Ok(false);
        }
        // Checks at intervals, because the clock may be set meanwhile.
        while self.ways.all_closed().is_some() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_WHILE_CLOSED) => {}
                () = self.vessel.becomes_paused(true) => return Ok(true),
                () = self.vessel.stop.cancelled() => return Ok(false),
            }
        }
        self.announcements.forget_reason();
        Ok(true)
    }

    /// Connects to the vessel. Returns the number of the way and the connection, and the further connections that are
    /// being opened.
    async fn connect(&self) -> (Result<(usize, Remote), Fault>, Vec<Coming>) {
        let rank = Rank::first(self.due_work().has_work().await, self.failures);
        if self.ways.are_several() {
            return (self.ways.connect(&self.memory.known, rank, None).await, Vec::new());
        }
        let (connected, coming) = self.connect_over_the_only_way(rank).await;
        (connected.map(|remote| (0, remote)).map_err(|e| e.fault()), coming)
    }

    async fn connect_over_the_only_way(&self, rank: Rank) -> (Result<Remote, ConnectError>, Vec<Coming>) {
        let (way, environment) = (self.ways.way(0), &self.vessel.environment);
        let (lead, follow) = Lead::new(rank);
        // The future owns `lead`, so that `lead` is dropped with it. Otherwise the followers of `lead` would wait
        // forever.
        let connecting = async move {
            way.limits.allowance.expect_connection().await;
            Remote::connect(&way.settings, environment, &self.memory.known, &lead).await
        };
        if self.narrow {
            return (connecting.await, Vec::new());
        }
        let mut connecting = std::pin::pin!(connecting);
        let link = self.vessel.link(way);
        tokio::select! {
            biased;
            connected = &mut connecting => (connected, Vec::new()),
            coming = preconnect(&link, follow, self.memory.recent_path(&self.vessel), self.due_work().enough_to_send()) => (connecting.await, coming),
        }
    }

    async fn session(&mut self, number: usize, remote: Remote, coming: Vec<Coming>) -> Result<End, Fault> {
        let name = &self.vessel.settings.name;
        let ways = self.ways.clone();
        let way = ways.are_several().then(|| (ways.way(number).name(), ways.why(number)));
        self.announcements.connected(&self.vessel, &remote, way.as_ref()).await?;
        meet(&self.vessel, &remote).await?;
        let begun_early = !coming.is_empty();
        let session = Arc::new(Session::new(
            self.vessel.link(ways.way(number)),
            remote,
            (coming, self.memory.recent_path(&self.vessel)),
            self.arrival.take(),
        ));
        session.join_budgets();
        if let Some(earlier) = self.earlier.take() {
            session.continue_after(&earlier).await;
        }
        ways.begin(number);
        let transfers = self.transfers(&session);
        compare_places(&transfers).await;
        let mut scheduler = Scheduler::new(self.vessel.clone(), transfers);
        let connecting = AtomicBool::new(false);
        let mut replacement = std::pin::pin!(replacement(&session, &connecting));
        // If further connections were opened early, much is to be sent in parts over a long path. Preparing TempDir
        // takes several round trips there, so it begins now.
        let preparing = async {
            if begun_early {
                // The upload prepares TempDir again and reports the error.
                let _ = session.prepare_temp_dir().await;
            }
            std::future::pending().await
        };
        let (end, other, closed) = tokio::select! {
            end = scheduler.run() => (Some(end), None, false),
            other = &mut replacement => (Some(Ok(Ended::Done)), Some((number, other, true)), false),
            change = way_failover::change(&ways, &session, number) => match change {
                Change::To { way, remote, failed } => (None, Some((way, remote, failed)), false),
                Change::Closed => (None, None, true),
            },
            () = self.vessel.becomes_paused(true) => (None, None, false),
            () = self.vessel.stop.cancelled() => (None, None, false),
            () = preparing => (None, None, false),
            () = self.due_work().keep_wanted() => (None, None, false),
        };
        // If a replacement was being opened when the connection was lost, waits for the replacement instead of
        // connecting again.
        let other = match other {
            None if end.is_some() && session.remote.is_lost() && connecting.load(Ordering::Relaxed) => {
                let replaced = tokio::time::timeout(self.vessel.settings.timeout, replacement).await;
                replaced.ok().map(|remote| (number, remote, true))
            }
            // A standby connection on another way may be ready.
            None if end.is_some() && session.remote.is_lost() => {
                ways.use_standby(Some(number)).await.map(|(way, remote)| (way, remote, true))
            }
            other => other,
        };
        let failed = other.as_ref().is_some_and(|(_, _, failed)| *failed);
        let hands_over = self.vessel.stop.is_cancelled() && self.vessel.ledger.share_interval().is_some();
        if end.is_none() && !failed {
            let rest = match &other {
                _ if hands_over => REST_BEFORE_ANOTHER_SHORE,
                // A better way sends the data in flight again sooner than a slow way delivers it.
                Some(_) => REST_BEFORE_A_BETTER_WAY,
                None => REST,
            };
            scheduler.come_to_rest(rest).await?;
        }
        let all_answered = scheduler.drop_all().await;
        let is_left = other.is_some() && !failed;
        if failed || session.remote.is_lost() || !all_answered || is_left && session.channels.unanswered() > 0 {
            session.abandon();
        } else if is_left {
            // This connection becomes the standby: the better way may fail again, and a new login on this way may take
            // seconds.
            ways.keep_standby(Some((number, session.remote.clone())));
        } else if hands_over {
            tokio::time::timeout(REST_BEFORE_ANOTHER_SHORE, session.remote.hang_up()).await.ok();
        } else {
            session.remote.hang_up().await;
        }
        scheduler.record_costs(0).await?;
        let progress = session.has_sent();
        let silent = || "it stopped answering".to_owned();
        let lost = session.remote.is_lost().then(|| session.remote.why_lost());
        ways.end(number, lost.or_else(|| failed.then(silent)));
        self.narrow = progress && !session.channels.was_widened();
        if let Some((to, remote, failed)) = other {
            if to == number {
                tracing::info!(vessel = %name, "The vessel stopped answering; the connection was replaced");
            } else {
                let (from, to) = (ways.way(number).name(), ways.way(to).name());
                let why = if failed { "the way stopped answering" } else { "a better way is available again" };
                tracing::info!(vessel = %name, from, to, "Switching to another way: {why}");
            }
            self.earlier = Some(session.clone());
            return Ok(End::Replaced(to, remote));
        }
        self.memory.remember_shell(&self.vessel, session.remote.known_shell(), progress).await?;
        self.memory.remember_path(&self.vessel, session.channels.carried()).await?;
        match end {
            None if closed => Ok(End::Closed),
            None => Ok(End::LeftAlone),
            Some(Ok(Ended::Done)) => Ok(End::Done),
            Some(Ok(Ended::Closed)) => Ok(End::LeftAlone),
            Some(Err(fault)) if fault.scope == Scope::Daemon => Err(fault),
            Some(Err(fault)) => Ok(End::Away { fault, progress }),
        }
    }

    fn transfers(&self, session: &Arc<Session>) -> Arc<Transfers> {
        let Vessel { ledger, directories, source_cache, .. } = &self.vessel;
        Arc::new(Transfers::new(session.clone(), ledger.clone(), directories.clone(), source_cache.clone()))
    }
}

fn pause(pace: Pace, longest: Duration, is_dialled_in: bool) -> Backoff {
    match pace {
        Pace::AtOnce if is_dialled_in => DIALLED_IN,
        Pace::AtOnce => AWAY,
        Pace::Soon if is_dialled_in => Backoff::new(SOON, longest.min(DIALLED_IN_SOON)),
        Pace::Soon => Backoff::new(SOON, longest),
        Pace::Unhurried => UNHURRIED,
        Pace::Slow => SLOW,
    }
}
