//! How many files are open at once on a vessel: what it says it allows, or what it turns out to allow. Knows counts and waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// How long one that needs a second file beside its first waits, at the most, for others to close theirs.
const PATIENCE: Duration = Duration::from_secs(20);
/// After so many files that were opened in a row, one more is tried than failed before.
const GROW_AFTER: usize = 256;

/// Counts open files of one session.
#[derive(Default)]
pub(super) struct Handles {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    open: usize,
    /// As many as may be open now.
    limit: usize,
    /// What the vessel says; `usize::MAX` where it names no number.
    allowed: usize,
    /// Opened since the limit last changed.
    opened: usize,
}

impl Default for State {
    fn default() -> Self {
        Self { open: 0, limit: usize::MAX, allowed: usize::MAX, opened: 0 }
    }
}

/// One file that is open, or about to be; counted until it is dropped.
#[derive(Debug)]
pub(super) struct Counted(Arc<Handles>);

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handles").finish_non_exhaustive()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.state().open -= 1;
        self.0.changed.notify_one();
    }
}

impl Handles {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_enter(&self) -> bool {
        let mut state = self.state();
        let enters = state.open < state.limit;
        state.open += usize::from(enters);
        enters
    }

    /// Waits until another file may be open.
    pub(super) async fn enter(self: &Arc<Self>) -> Counted {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if self.try_enter() {
                    return;
                }
                changed.await;
            }
        };
        // Those that hold one each and wait for a second would wait for ever.
        if timeout(PATIENCE, waiting).await.is_err() {
            self.state().open += 1;
        }
        let has_room = {
            let state = self.state();
            state.open < state.limit
        };
        if has_room {
            self.changed.notify_one();
        }
        Counted(self.clone())
    }

    /// The vessel says how many it allows; 0 where it names no number.
    pub(super) fn allow(&self, number: u64) {
        if number > 0 {
            let mut state = self.state();
            state.allowed = usize::try_from(number).unwrap_or(usize::MAX);
            state.limit = state.allowed;
        }
    }

    /// How many it is taken to allow.
    pub(super) fn limit(&self) -> usize {
        self.state().limit
    }

    /// One was opened.
    pub(super) fn opened(&self) {
        let mut state = self.state();
        state.opened += 1;
        if state.limit < state.allowed && state.opened >= GROW_AFTER {
            (state.opened, state.limit) = (0, state.limit + 1);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Opening one failed. Where others are open these may be too many, and fewer are tried from now on; `false` where it
    /// failed alone: there is another reason, and what was tried is given up.
    pub(super) fn refused(&self) -> bool {
        let mut state = self.state();
        let others = state.open - 1;
        state.opened = 0;
        if others > 0 {
            state.limit = state.limit.min((others * 3 / 4).max(1));
            return true;
        }
        state.limit = state.allowed;
        drop(state);
        self.changed.notify_waiters();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_that_nobody_names_is_found_and_kept_to() {
        let handles = Arc::new(Handles::default());
        let mut open = Vec::new();
        let mut refused = 0;
        for _ in 0..100 {
            let one = handles.enter().await;
            if open.len() == 8 {
                assert!(handles.refused());
                refused += 1;
                break;
            }
            handles.opened();
            open.push(one);
        }
        assert_eq!((refused, handles.limit()), (1, 6));
        open.truncate(5);
        open.push(handles.enter().await);
        let (next, ()) = tokio::join!(handles.enter(), async { open.truncate(2) });
        drop(next);
        assert_eq!(handles.limit(), 6);
    }

    #[tokio::test]
    async fn what_fails_alone_fails_for_another_reason() {
        let handles = Arc::new(Handles::default());
        let (one, other) = (handles.enter().await, handles.enter().await);
        assert!(handles.refused());
        drop(other);
        assert!(!handles.refused());
        assert_eq!(handles.limit(), usize::MAX);
        drop(one);
    }
}
