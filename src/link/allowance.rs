//! The number of bytes that may still be sent over a way (one SSH route to a vessel): its budgets, compared with the
//! bytes on the link.
//!
//! Written bytes wait in windows and buffers before they reach the link. So the comparison also counts written bytes
//! that are not acknowledged yet, and allowed bytes that still wait for their turn on a channel. Near the end of a
//! budget, each write therefore waits until the earlier ones are acknowledged, and no write exceeds the budget.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::usage::{LinkUsage, Part, Payer};
use crate::clock::Clock;
use crate::settings::{Budget, Limit, Priorities, Priority, Reserve};

/// Bytes of a budget that writes leave unused, for the end of a session.
const LEFT: u64 = 24 << 10;
/// Maximum number of bytes on the link for a login and the requests after it, without files.
const LOGIN: u64 = 32 << 10;
/// Number of bytes on the link for 100 bytes of a file, including headers and acknowledgements; and the additional
/// bytes per write.
const PERCENT: u64 = 107;
const EACH_WRITE: u64 = 1024;
/// Interval at which a write that waits for acknowledgements checks again.
const LOOK: Duration = Duration::from_millis(20);
/// How long a write still counts in full after it was passed to a channel or given up, because the sums contain its
/// bytes only after the meters are read again.
const PASSED: Duration = Duration::from_millis(250);

/// This fraction (1/`SLICES`) of a budget is recorded as used in advance, but at least `LEAST_SLICE` bytes. A crash
/// costs at most that much.
const SLICES: u64 = 200;
const LEAST_SLICE: u64 = 64 << 10;
/// Pause after the ledger could not be used.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether a write may be sent now.
enum Answer {
    /// The write is allowed.
    Yes,
    /// The write must wait until earlier writes are acknowledged.
    Wait,
    /// This many bytes must first be recorded as used in the ledger.
    Record(u64),
}

/// Returns how many bytes of a session were written and are not acknowledged; `None` once the session has ended.
pub(crate) type Outstanding = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// The budget of a vessel or of a link, shared by all sessions that use it.
pub struct Purse {
    payer: Payer,
    budget: Budget,
    reserve: Option<Reserve>,
    usage: LinkUsage,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: Vec<Outstanding>,
    allowed: Vec<(Allowed, u64)>,
}

/// Bytes that were allowed. They count in full until the [`InHand`] of the write is dropped, and for [`PASSED`] longer.
#[derive(Clone, Default)]
struct Allowed(Arc<OnceLock<Instant>>);

impl Allowed {
    /// Returns whether these bytes no longer count as allowed, because the sessions or the meters count them by now, or
    /// because the write was given up.
    fn is_over(&self) -> bool {
        self.0.get().is_some_and(|passed| passed.elapsed() >= PASSED)
    }
}

/// A write that all budgets have allowed. Keep this value until the bytes were passed to a channel; the channel then
/// counts the bytes until they are acknowledged. If no channel counts the bytes, keep this value until they have
/// arrived.
#[derive(Default)]
pub(crate) struct InHand(Option<Allowed>);

impl Drop for InHand {
    fn drop(&mut self) {
        if let Some(Allowed(passed)) = &self.0 {
            let _ = passed.set(Instant::now());
        }
    }
}

/// Why a way may not be used for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The budget that is spent, or the schedule that is closed.
    pub why: String,
    /// When the way may be used again, in milliseconds since 1970.
    pub until: i64,
    /// Advice for an operator who wants to use the way at once.
    pub remedy: &'static str,
}

/// The part of a limit that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The limit.
    pub limit: Limit,
    /// The bytes on the link in its current period.
    pub bytes: u64,
}

impl Purse {
    /// Creates the purse of a payer. The `reserve` is the part of the budget that is kept for files of high priority.
    pub fn new(payer: Payer, budget: Budget, reserve: Option<Reserve>, usage: LinkUsage, clock: Clock) -> Self {
        Self { payer, budget, reserve, usage, clock, state: Mutex::default() }
    }

    /// Returns the used bytes of each limit.
    pub fn used(&self) -> Vec<Used> {
        let now = self.clock.now_ms();
        let used =
            |limit: &Limit| Used { limit: *limit, bytes: self.usage.used(&self.payer, limit.period.first_day(now)) };
        self.budget.limits().iter().map(used).collect()
    }

    /// Returns the spent limit whose period ends last; `None` if no limit is spent.
    pub fn spent(&self) -> Option<Closed> {
        self.spent_part(Part::Whole)
    }

    /// Returns a limit of which at most the reserve is left; `None` if no limit is used that far, or if there is no
    /// reserve.
    pub fn down_to_reserve(&self) -> Option<Closed> {
        self.spent_part(Part::BeforeReserve(self.reserve?))
    }

    /// Returns the priorities of the files that may use the budget now.
    pub fn allows_now(&self) -> Priorities {
        match self.reserve {
            _ if self.spent().is_some() => Priorities::NONE,
            Some(reserve) if self.down_to_reserve().is_some() => reserve.priorities(),
            _ => Priorities::default(),
        }
    }

    fn spent_part(&self, part: Part) -> Option<Closed> {
        let now = self.clock.now_ms();
        let used = self.used();
        let is_spent = |used: &&Used| self.usage.is_spent(&self.payer, &used.limit, part);
        // The spent limit with the longest period decides when sending continues.
        let spent = used.iter().filter(is_spent).max_by_key(|used| used.limit.period.ends(now))?;
        let Used { limit, bytes } = spent;
        let why = self.payer.why_spent(limit, part, *bytes);
        Some(Closed { why, until: limit.period.ends(now), remedy: "raise the Budget to continue now" })
    }

    fn join(&self, session: Outstanding) {
        self.state().sessions.push(session);
    }

    /// Returns the part of each limit that files of a priority may use.
    fn part(&self, priority: Priority) -> Part {
        let reserve = self.reserve.filter(|reserve| !reserve.priorities().contains(priority));
        reserve.map_or(Part::Whole, Part::BeforeReserve)
    }

    /// Allows a write if it fits into the budget together with all unacknowledged bytes and all allowed writes. If the
    /// write does not fit although no other bytes are unacknowledged or allowed, marks this part of the budget as
    /// spent.
    fn allows(&self, part: Part, bytes: u64, allowed: &Allowed) -> Answer {
        let used = self.used();
        let mut state = self.state();
        state.allowed.retain(|(allowed, _)| !allowed.is_over());
        let mut waiting: u64 = state.allowed.iter().map(|(_, bytes)| bytes).sum();
        state.sessions.retain(|session| session().map(|bytes| waiting += bytes).is_some());
        let needed = on_the_link(bytes).saturating_add(on_the_link(waiting));
        let too_small = |used: &&Used| used.bytes.saturating_add(needed).saturating_add(LEFT) > part.of(&used.limit);
        match used.iter().find(too_small) {
            None if !self.usage.is_below_ceiling(&self.payer, needed) => Answer::Record(needed),
            None => {
                state.allowed.push((allowed.clone(), bytes));
                Answer::Yes
            }
            Some(used) => {
                if waiting == 0 {
                    self.usage.mark_spent(&self.payer, &used.limit, part);
                }
                Answer::Wait
            }
        }
    }

    /// Waits until a write of this many bytes fits. Returns `false` once the part of the budget that this priority may
    /// use is spent.
    async fn take(&self, priority: Priority, bytes: u64, allowed: &Allowed) -> bool {
        let part = self.part(priority);
        loop {
            match self.allows(part, bytes, allowed) {
                Answer::Yes => return true,
                Answer::Wait if self.spent_part(part).is_some() => return false,
                Answer::Wait => tokio::time::sleep(LOOK).await,
                Answer::Record(needed) => {
                    let slice = self.budget.limits().iter().map(|limit| limit.bytes / SLICES).min().unwrap_or(0);
                    if let Err(e) = self.usage.raise_ceiling(&self.payer, needed, slice.max(LEAST_SLICE)).await {
                        tracing::debug!("Cannot record the use of a budget: {e}");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
    }

    /// Records the bytes of a login in the ledger, before the connection is opened.
    async fn expect_connection(&self) {
        if !self.usage.is_below_ceiling(&self.payer, LOGIN)
            && let Err(e) = self.usage.raise_ceiling(&self.payer, LOGIN, 0).await
        {
            tracing::debug!("Cannot record the use of a budget: {e}");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn on_the_link(bytes: u64) -> u64 {
    if bytes == 0 { 0 } else { (bytes / 100).saturating_mul(PERCENT).saturating_add(EACH_WRITE) }
}

/// The budgets that apply to one way of one vessel. The default is no limit.
#[derive(Clone, Default)]
pub struct Allowance(Vec<Arc<Purse>>);

impl Allowance {
    /// Creates an allowance within these budgets.
    pub fn within(purses: impl IntoIterator<Item = Arc<Purse>>) -> Self {
        Self(purses.into_iter().collect())
    }

    /// Returns whether no budget applies.
    pub fn is_unlimited(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the spent budget whose period ends last; `None` if none is spent.
    pub fn spent(&self) -> Option<Closed> {
        self.0.iter().filter_map(|purse| purse.spent()).max_by_key(|spent| spent.until)
    }

    /// Records the bytes of a login in the ledger before the connection is opened, so that the logins count even if the
    /// program is killed repeatedly.
    pub async fn expect_connection(&self) {
        for purse in &self.0 {
            purse.expect_connection().await;
        }
    }

    /// From now on, also counts the outstanding bytes of this session: the written bytes that are not acknowledged yet.
    pub(crate) fn join(&self, outstanding: impl Fn() -> Option<u64> + Clone + Send + Sync + 'static) {
        self.0.iter().for_each(|purse| purse.join(Box::new(outstanding.clone())));
    }

    /// Returns the limit of which at most the reserve is left; if there are several, the one whose period ends last.
    pub fn down_to_reserve(&self) -> Option<Closed> {
        self.0.iter().filter_map(|purse| purse.down_to_reserve()).max_by_key(|spent| spent.until)
    }

    /// Returns the priorities of the files that all budgets allow now.
    pub fn allows_now(&self) -> Priorities {
        self.0.iter().fold(Priorities::default(), |all, purse| all.and(purse.allows_now()))
    }

    /// Returns whether a budget has a reserve.
    pub fn has_reserve(&self) -> bool {
        self.0.iter().any(|purse| purse.reserve.is_some())
    }

    /// Waits until a write of this many bytes fits into all budgets. Returns `None` if only a reserve is left that this
    /// priority may not use. Never returns once one of the budgets is spent.
    pub(crate) async fn take(&self, priority: Priority, bytes: u64) -> Option<InHand> {
        if self.is_unlimited() {
            return Some(InHand(None));
        }
        let allowed = Allowed::default();
        // A write that waits for the next budget already counts in the earlier ones.
        let in_hand = InHand(Some(allowed.clone()));
        for purse in &self.0 {
            if !purse.take(priority, bytes, &allowed).await {
                match purse.spent() {
                    None => return None,
                    Some(_) => return std::future::pending().await,
                }
            }
        }
        Some(in_hand)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ledger::Ledger;
    use crate::names::VesselName;
    use crate::settings::{Environment, Settings};
    use crate::transport::LinkMeters;

    /// A write may wait a long time for its turn on a channel: behind other small files, or on a slow link.
    #[tokio::test]
    async fn a_write_counts_until_it_was_passed_to_a_channel_however_long_that_takes() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&dir.path().join("ledger"), Clock::system()).await.unwrap();
        let usage = LinkUsage::load(&ledger, LinkMeters::default(), Clock::system()).await.unwrap();
        let text = "[Directory d]\nLocation = /srv/d\n[Vessel v]\nAddress = v\nUsername = u\nBudget = 100 MB/day\n";
        let settings = Settings::parse(text, Path::new("/settings.ini"), &Environment::default()).unwrap();
        let (payer, budget) = (Payer::Vessel(VesselName::new("v")), settings.vessels[0].budget.clone());
        let purse = Purse::new(payer, budget, None, usage, Clock::system());
        let allowance = Allowance::within([Arc::new(purse)]);
        let write = || allowance.take(Priority::default(), 60_000_000);
        let first = write().await.unwrap();
        assert!(tokio::time::timeout(PASSED * 3, write()).await.is_err(), "both together are more than the budget");
        drop(first);
        assert!(tokio::time::timeout(PASSED * 20, write()).await.unwrap().is_some());
        ledger.close().await.unwrap();
    }
}
