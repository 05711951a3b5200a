//! Limits how many files are open at once on a vessel. The limit is the number that the vessel announces, or a lower
//! number that was found by failed opens.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// How long the opening of a file waits at most for other files to be closed. The wait is bounded, because callers that
/// each hold one file and wait for another one could otherwise wait for each other forever.
const PATIENCE: Duration = Duration::from_secs(20);
/// After this many successful opens in a row, a limit that was lowered after a failed open grows by one.
const GROW_AFTER: usize = 256;

/// The count of open files of one session.
#[derive(Default)]
pub(super) struct Handles {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    open: usize,
    /// The number of files that may be open now.
    limit: usize,
    /// The number of open files that the vessel allows, or `usize::MAX` if the vessel announces no limit.
    allowed: usize,
    /// How many files were opened since the limit last changed.
    opened: usize,
}

impl Default for State {
    fn default() -> Self {
        Self { open: 0, limit: usize::MAX, allowed: usize::MAX, opened: 0 }
    }
}

/// One file that is open or about to be opened. The file is counted until this value is dropped.
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

    /// Waits until another file may be opened, at most for [`PATIENCE`].
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
        // After this time the limit is exceeded, because callers that each hold one file could otherwise wait for each
        // other forever.
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

    /// Sets the number of open files that the vessel allows; 0 means that the vessel names no limit.
    pub(super) fn allow(&self, number: u64) {
        if number > 0 {
            let mut state = self.state();
            state.allowed = usize::try_from(number).unwrap_or(usize::MAX);
            state.limit = state.allowed;
        }
    }

    /// Returns the current limit on open files.
    pub(super) fn limit(&self) -> usize {
        self.state().limit
    }

    /// Records that a file was opened.
    pub(super) fn opened(&self) {
        let mut state = self.state();
        state.opened += 1;
        if state.limit < state.allowed && state.opened >= GROW_AFTER {
            (state.opened, state.limit) = (0, state.limit + 1);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Records that opening a file failed. If other files are open, there may be too many of them: lowers the limit and
    /// returns `true`. Otherwise the failure has another reason: restores the announced limit and returns `false`.
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
