//! The priorities that a session's way may carry now: only some if its settings say so, or if only the reserve of a
//! budget is left.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::levels::Allowed;
use crate::link::Session;

/// How long a session is kept over a way that may carry only some priorities, while no file of these priorities is due.
const KEPT_WHILE_IDLE: Duration = Duration::from_secs(15);

/// Returns the priorities that the session's way may carry now.
pub(super) fn allowed(session: &Session) -> Allowed {
    let link = &session.link;
    let of_link = link.settings.link.as_ref().map(|link| link.priorities).unwrap_or_default();
    let allowance = &link.way.allowance;
    if !allowance.has_reserve() {
        return Allowed { priorities: of_link, until: None };
    }
    let until = allowance.down_to_reserve().map(|closed| closed.until);
    Allowed { priorities: of_link.and(allowance.allows_now()), until }
}

/// The state of a limited way during a session.
#[derive(Default)]
pub(super) struct LimitedWay {
    /// When a way that may carry only some priorities became idle.
    idle_since: Option<Instant>,
    /// The end of the budget period in which it was last logged that only the reserve is left.
    told_of_reserve: Option<i64>,
}

impl LimitedWay {
    /// Logs that only the reserve of a budget is left, once in each period of the budget.
    pub(super) fn say_reserve(&mut self, session: &Session) {
        let Some(closed) = session.link.way.allowance.down_to_reserve() else { return };
        if self.told_of_reserve.replace(closed.until) != Some(closed.until) {
            let goes_on = Timestamp::from_millisecond(closed.until).unwrap_or(Timestamp::MAX);
            let (vessel, why) = (&session.link.settings.name, &closed.why);
            tracing::info!(%vessel, "Files of lower priorities wait: {why}; they continue at {goes_on:.0}");
        }
    }

    /// Returns whether the session's way may carry only some priorities, and has been idle for [`KEPT_WHILE_IDLE`].
    /// Each connection costs bytes, and such a way is probably an expensive one.
    pub(super) fn is_of_no_use(&mut self, session: &Session, is_idle: bool) -> bool {
        if allowed(session).priorities.is_all() || !is_idle {
            self.idle_since = None;
            return false;
        }
        self.idle_since.get_or_insert_with(Instant::now).elapsed() >= KEPT_WHILE_IDLE
    }
}
