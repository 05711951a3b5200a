//! The ways to a vessel (its links or addresses): which of them may be used now, in which order they are tried, and the
//! state of each.
//!
//! A session uses one way; with `Together`, its large files also go over the others. After a switch to another way, an
//! upload continues from the data that the vessel already has.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;

use super::retry_waits::{DIALLED_IN, SLOW, SOON, UNHURRIED};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::fault::{Cause, Fault, Pace};
use crate::link::{Allowance, Closed, Limits};
use crate::rate_limit::RateLimiter;
use crate::settings;
use crate::settings::Priorities;
use crate::transport::{ConnectError, DialIn, KnownShell, Lead, Rank, Remote, SshEnvironment};

/// How long an attempt to connect over a way may take before the next way is tried as well.
const STAGGER: Duration = Duration::from_millis(1500);
/// If a way is skipped that may be tried again within this time, the next attempt follows soon, whatever the faults of
/// the other ways allow.
const DUE_SOON: Duration = Duration::from_secs(5);
/// How long a connection on a better way must work before the way is used again. Doubled, up to `LONGEST_STEADY`,
/// whenever the way fails within [`PROVEN`].
const STEADY: Duration = Duration::from_millis(500);
const LONGEST_STEADY: Duration = Duration::from_secs(10);
/// A way that has been in use for this long counts as steady.
const PROVEN: Duration = Duration::from_secs(4);
/// Waits before an unreachable way is tried again. They are short, because an attempt costs only one packet.
const UNREACHED: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(1));
/// Timeout of the ping on a standby connection.
const PING: Duration = Duration::from_secs(3);

/// A way to a vessel, with everything that a session over it needs.
#[derive(Clone)]
pub struct Way {
    /// The vessel's settings for connections over this way.
    pub settings: Arc<settings::Vessel>,
    /// The way's rate limit and budgets.
    pub(super) limits: Limits,
}

impl Way {
    /// Creates a way with a rate limit for bytes of files, and budgets for bytes on the link.
    pub fn new(settings: Arc<settings::Vessel>, limit: RateLimiter, allowance: Allowance) -> Self {
        Self { settings, limits: Limits { limit, allowance } }
    }

    fn priorities(&self) -> Priorities {
        self.settings.link.as_ref().map(|link| link.priorities).unwrap_or_default()
    }

    /// Returns the way's name, for messages.
    pub(super) fn name(&self) -> String {
        self.settings.way().unwrap_or_else(|| self.settings.ssh.at())
    }
}

/// The ways to one vessel, the preferred one first.
pub(super) struct Ways {
    all: Vec<Way>,
    clock: Clock,
    environment: Arc<SshEnvironment>,
    state: Mutex<State>,
}

struct State {
    ways: Vec<Known>,
    /// The number of another way, and a connection on it that is ready to take over.
    standby: Option<(usize, Remote)>,
    /// The priorities of the files that are due.
    wanted: Priorities,
}

/// The state of a way.
#[derive(Clone)]
struct Known {
    failures: u32,
    pace: Option<Pace>,
    not_before: Option<Instant>,
    why: Option<String>,
    steady: Duration,
    used_since: Option<Instant>,
}

impl Ways {
    pub(super) fn new(all: Vec<Way>, clock: Clock, environment: Arc<SshEnvironment>) -> Self {
        let known = Known { failures: 0, pace: None, not_before: None, why: None, steady: STEADY, used_since: None };
        let state = State { ways: vec![known; all.len()], standby: None, wanted: Priorities::default() };
        Self { all, clock, environment, state: Mutex::new(state) }
    }

    /// Returns whether there is more than one way, so that one can take over from another.
    pub(super) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// Reads the identities of the sockets through which the vessel dials in, to detect new tunnels.
    pub(super) async fn look_at_sockets(&self) -> DialIn {
        let settings: Vec<&settings::Vessel> = self.all.iter().map(|way| &*way.settings).collect();
        DialIn::look(&settings).await
    }

    /// Notes that the vessel has dialled in again, so that its new tunnel is tried at once. After a refused login, the
    /// wait still applies, because more attempts may lock the account.
    pub(super) fn note_dialled_in(&self) {
        let mut state = self.state();
        let renewed = state.ways.iter_mut().zip(&self.all).filter(|(_, way)| way.settings.ssh.socket().is_some());
        renewed.filter(|(known, _)| known.pace != Some(Pace::Slow)).for_each(|(known, _)| known.not_before = None);
    }

    /// Returns whether the vessel dials in on one of its ways.
    pub(super) fn are_dialled_in(&self) -> bool {
        self.all.iter().any(|way| way.settings.ssh.is_dialled_in())
    }

    pub(super) fn way(&self, at: usize) -> &Way {
        &self.all[at]
    }

    /// Returns why a way may not be used now, and until when.
    pub(super) fn closed(&self, at: usize) -> Option<Closed> {
        let way = &self.all[at];
        let schedule = way.settings.link.as_ref().map(|link| (&link.name, &link.schedule));
        let now = self.clock.now_ms();
        if let Some((link, schedule)) = schedule.filter(|(_, schedule)| !schedule.is_open(now)) {
            let why = format!("the schedule of the link {link} is closed");
            let until = schedule.next_change(now).unwrap_or(i64::MAX);
            return Some(Closed { why, until, remedy: "extend the Schedule to continue now" });
        }
        way.limits.allowance.spent()
    }

    /// Returns whether a way may carry only some priorities, either always or near the end of a budget.
    pub(super) fn may_be_limited(&self) -> bool {
        self.all.iter().any(|way| !way.priorities().is_all() || way.limits.allowance.has_reserve())
    }

    /// Returns the priorities of the files that may go over a way now.
    pub(super) fn carries(&self, at: usize) -> Priorities {
        let way = &self.all[at];
        match self.closed(at) {
            Some(_) => Priorities::NONE,
            None if way.limits.allowance.has_reserve() => way.priorities().and(way.limits.allowance.allows_now()),
            None => way.priorities(),
        }
    }

    /// Returns whether a way is better than another one now: it may carry more priorities, or as many and is preferred.
    pub(super) fn is_before(&self, at: usize, other: usize) -> bool {
        if !self.may_be_limited() {
            return at < other;
        }
        let place = |at: usize| (std::cmp::Reverse(self.carries(at).count()), at);
        place(at) < place(other)
    }

    /// Stores the priorities of the files that are due.
    pub(super) fn want(&self, due: Priorities) {
        self.state().wanted = due;
    }

    pub(super) fn wanted(&self) -> Priorities {
        self.state().wanted
    }

    /// Returns whether a way may carry files of all priorities now, or at least one file that is due.
    pub(super) fn is_wanted(&self, at: usize) -> bool {
        self.is_wanted_for(at, self.wanted())
    }

    fn is_wanted_for(&self, at: usize, due: Priorities) -> bool {
        let carries = self.carries(at);
        carries.is_all() || !carries.and(due).is_empty()
    }

    /// Stores the priorities `due` of the files that are due. Returns whether they make a way usable that could carry
    /// no file of the priorities `before`.
    pub(super) fn becomes_wanted(&self, before: Priorities, due: Priorities) -> bool {
        self.want(due);
        (0..self.all.len()).any(|at| self.is_wanted_for(at, due) && !self.is_wanted_for(at, before))
    }

    /// Returns why a way may carry only some priorities now; `None` if it may carry all.
    fn limit(&self, at: usize) -> Option<String> {
        let way = &self.all[at];
        if self.carries(at).is_all() {
            return None;
        }
        let reserve = way.limits.allowance.down_to_reserve();
        let only = || format!("only files of priority {} may use it", self.carries(at).either());
        Some(reserve.map_or_else(only, |closed| {
            let goes_on = Timestamp::from_millisecond(closed.until).unwrap_or(Timestamp::MAX);
            format!("{}; other files continue at {goes_on:.0}", closed.why)
        }))
    }

    /// If no open way may carry a due file, returns why each way is unusable; otherwise `None`.
    pub(super) fn all_unwanted(&self) -> Option<String> {
        let mut reasons = Vec::new();
        for at in 0..self.all.len() {
            let closed = self.closed(at);
            if closed.is_none() && self.is_wanted(at) {
                return None;
            }
            let why = closed.map(|closed| closed.why).or_else(|| self.limit(at)).unwrap_or_default();
            reasons.push(format!("{}: {why}", self.all[at].name()));
        }
        Some(reasons.join("; "))
    }

    /// Returns whether a way may be used at any time.
    pub(super) fn is_always_open(&self, at: usize) -> bool {
        let way = &self.all[at];
        way.limits.allowance.is_unlimited()
            && way.settings.link.as_ref().is_none_or(|link| link.schedule.is_always_open())
    }

    /// If no way may be used now, returns why the way that opens first is closed; otherwise `None`.
    pub(super) fn all_closed(&self) -> Option<Closed> {
        let mut first: Option<Closed> = None;
        for at in 0..self.all.len() {
            let closed = self.closed(at)?;
            if first.as_ref().is_none_or(|first| closed.until < first.until) {
                first = Some(closed);
            }
        }
        first
    }

    /// Returns why the way `at` is used instead of a better one.
    pub(super) fn why(&self, at: usize) -> String {
        let limited = self.limit(at).map(|why| format!("; {why}")).unwrap_or_default();
        if at == 0 {
            return format!("preferred{limited}");
        }
        let reason = |better: usize| {
            let why = match self.closed(better) {
                Some(closed) => closed.why,
                None if self.is_before(at, better) => self.limit(better).unwrap_or_default(),
                None => self.state().ways[better].why.clone().unwrap_or_else(|| "it has not connected yet".into()),
            };
            format!("{}: {why}", self.all[better].name())
        };
        (0..at).map(reason).collect::<Vec<_>>().join("; ") + &limited
    }

    /// Returns the time until the next attempt to connect over a way is allowed.
    pub(super) fn rest(&self, at: usize) -> Duration {
        let not_before = self.state().ways[at].not_before;
        not_before.map(|not_before| not_before.saturating_duration_since(Instant::now())).unwrap_or_default()
    }

    /// Connects over one way, and notes the result.
    pub(super) async fn try_way(&self, at: usize, known: &KnownShell, lead: &Lead) -> Result<Remote, ConnectError> {
        self.all[at].limits.allowance.expect_connection().await;
        let connected = Remote::connect(&self.all[at].settings, &self.environment, known, lead).await;
        match &connected {
            Ok(_) => self.note_success(at),
            Err(error) => self.note_failure(at, error),
        }
        connected
    }

    fn note_success(&self, at: usize) {
        let mut state = self.state();
        let known = &mut state.ways[at];
        (known.failures, known.pace, known.not_before) = (0, None, None);
    }

    fn note_failure(&self, at: usize, error: &ConnectError) {
        let fault = error.fault();
        let settings = &self.all[at].settings;
        let backoff = match fault.pace {
            Pace::AtOnce if settings.ssh.is_dialled_in() => DIALLED_IN,
            Pace::AtOnce => UNREACHED,
            Pace::Soon => Backoff::new(SOON, settings.reconnect_wait),
            Pace::Unhurried => UNHURRIED,
            Pace::Slow => SLOW,
        };
        let mut state = self.state();
        let known = &mut state.ways[at];
        known.failures = if known.pace == Some(fault.pace) { known.failures + 1 } else { 1 };
        known.pace = Some(fault.pace);
        known.why = Some(fault.reason);
        known.not_before = Some(Instant::now() + backoff.wait(known.failures, fastrand::f64()));
    }

    /// Notes that a session begins on a way.
    pub(super) fn begin(&self, at: usize) {
        self.state().ways[at].used_since = Some(Instant::now());
    }

    /// Notes that a session on a way has ended; `failed` tells why, if the way failed.
    pub(super) fn end(&self, at: usize, failed: Option<String>) {
        let mut state = self.state();
        let known = &mut state.ways[at];
        let lasted = known.used_since.take().is_some_and(|since| since.elapsed() >= PROVEN);
        match failed {
            Some(why) => {
                known.why = Some(why);
                known.steady = if lasted { STEADY } else { (known.steady * 2).min(LONGEST_STEADY) };
            }
            None if lasted => known.steady = STEADY,
            None => {}
        }
    }

    /// Waits until a connection has worked without interruption for as long as its way requires. Returns `false` if it
    /// fails before that.
    pub(super) async fn is_steady(&self, at: usize, remote: &Remote) -> bool {
        let (since, steady) = (Instant::now(), self.state().ways[at].steady);
        loop {
            if tokio::time::timeout(PING, remote.ping()).await.is_err() || remote.is_lost() {
                return false;
            }
            if since.elapsed() >= steady {
                return true;
            }
            tokio::time::sleep((steady / 4).min(Duration::from_secs(1))).await;
        }
    }

    /// Connects over the best way that can be reached, but not over the way `without`. Tries the next way as soon as an
    /// attempt fails or takes longer than [`STAGGER`].
    pub(super) async fn connect(
        &self,
        known: &KnownShell,
        rank: Rank,
        without: Option<usize>,
    ) -> Result<(usize, Remote), Fault> {
        if let Some(ready) = self.use_standby(without).await {
            return Ok(ready);
        }
        let is_open = |at: usize| Some(at) != without && self.closed(at).is_none() && self.is_wanted(at);
        let mut usable: Vec<usize> = (0..self.all.len()).filter(|at| is_open(*at)).collect();
        if self.may_be_limited() {
            usable.sort_by_key(|at| (std::cmp::Reverse(self.carries(*at).count()), *at));
        }
        // Ways that failed recently are skipped until their waiting time is over.
        let rests = usable.iter().map(|at| self.rest(*at)).filter(|rest| !rest.is_zero());
        let is_due_soon = rests.min().is_some_and(|rest| rest <= DUE_SOON);
        let mut waiting: VecDeque<usize> = usable.into_iter().filter(|at| self.rest(*at).is_zero()).collect();
        let (mut trying, mut failed) = (FuturesUnordered::new(), Vec::new());
        loop {
            let next = waiting.pop_front();
            if let Some(at) = next {
                trying.push(async move {
                    let lead = Lead::alone(rank);
                    (at, self.try_way(at, known, &lead).await)
                });
            }
            let ended = match next {
                Some(_) => match tokio::time::timeout(STAGGER, trying.next()).await {
                    Ok(ended) => ended,
                    Err(_) => continue,
                },
                None => trying.next().await,
            };
            match ended {
                Some((at, Ok(remote))) => return Ok((at, remote)),
                Some((at, Err(error))) => failed.push((at, error)),
                None if is_due_soon => return Err(self.failure(failed).at(Pace::AtOnce)),
                None => return Err(self.failure(failed)),
            }
        }
    }

    /// Combines the faults of all ways that failed: returns the fault that allows the earliest retry, with the reasons
    /// of all ways.
    fn failure(&self, mut failed: Vec<(usize, ConnectError)>) -> Fault {
        failed.sort_by_key(|(at, _)| *at);
        let mut reasons: Vec<String> = failed.iter().map(|(at, e)| format!("{}: {e}", self.all[*at].name())).collect();
        let unwanted = (0..self.all.len()).filter(|at| self.closed(*at).is_none() && !self.is_wanted(*at));
        reasons.extend(unwanted.filter_map(|at| Some(format!("{}: {}", self.all[at].name(), self.limit(at)?))));
        let faults = failed.iter().map(|(_, error)| error.fault());
        let soonest = |fault: &Fault| match fault.pace {
            Pace::AtOnce => 0,
            Pace::Soon => 1,
            Pace::Unhurried => 2,
            Pace::Slow => 3,
        };
        match faults.min_by_key(soonest) {
            Some(fault) => Fault { reason: reasons.join("; "), ..fault },
            // No way was tried, because all are still waiting after earlier failures.
            None => {
                let state = self.state();
                let why = state.ways.iter().zip(&self.all);
                let why = why.filter_map(|(known, way)| Some(format!("{}: {}", way.name(), known.why.as_ref()?)));
                let reason = why.collect::<Vec<_>>().join("; ");
                Fault::vessel(reason).at(Pace::AtOnce).mend("retrying each way at its own intervals").of(Cause::Link)
            }
        }
    }

    /// Returns the standby connection if it works, and if its way may carry files that are due.
    pub(super) async fn use_standby(&self, without: Option<usize>) -> Option<(usize, Remote)> {
        let (at, remote) = self.state().standby.take()?;
        if Some(at) == without || self.closed(at).is_some() || !self.is_wanted(at) || remote.is_lost() {
            return None;
        }
        tokio::time::timeout(PING, remote.ping()).await.ok()?;
        remote.keep_alive();
        Some((at, remote))
    }

    /// Returns whether there is a usable standby connection on another way than `current`; drops an unusable one.
    pub(super) fn has_standby(&self, current: usize) -> bool {
        let closed = |at: usize| self.closed(at).is_some();
        let standby = self.state().standby.take();
        let standby = standby.filter(|(at, remote)| *at != current && !remote.is_lost() && !closed(*at));
        let has = standby.is_some();
        self.state().standby = standby;
        has
    }

    pub(super) fn keep_standby(&self, standby: Option<(usize, Remote)>) {
        self.state().standby = standby;
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
