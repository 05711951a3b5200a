//! Records which threads of local targets were given up, because the disk does not answer or the connection to the
//! target was closed. A system call can't be cancelled, so the target gets no further request until the call returns:
//! the request could block as well, and would run concurrently with the call.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ConnectError;
use crate::settings::LocalTarget;

/// The interval at which a waiting caller checks whether the abandoned system calls have returned.
const GLANCE: Duration = Duration::from_millis(10);

/// The number of threads that were given up and still wait for a system call. The key is the list of the target's
/// directories.
static GIVEN_UP: LazyLock<Mutex<HashMap<Vec<PathBuf>, usize>>> = LazyLock::new(Mutex::default);

fn given_up() -> MutexGuard<'static, HashMap<Vec<PathBuf>, usize>> {
    GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the error for a target whose disk does not answer.
pub(super) fn does_not_answer() -> ConnectError {
    ConnectError::Away {
        why: "the disk does not answer: its file system hangs".into(),
        remedy: "restore its server, or unmount it (umount -l); the disk is checked again every few seconds".into(),
    }
}

/// The state of a thread that makes system calls on a target.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stand {
    #[default]
    Asks,
    GivenUp,
    Over,
}

/// A thread that makes system calls on a target; cheap to clone.
#[derive(Clone)]
pub(super) struct Hung {
    places: Arc<Vec<PathBuf>>,
    stand: Arc<Mutex<Stand>>,
}

impl Hung {
    pub(super) fn new(target: &LocalTarget) -> Self {
        let places = target.places.iter().map(|place| place.path.clone()).collect();
        Self { places: Arc::new(places), stand: Arc::default() }
    }

    /// Returns the target's directories, for the log.
    pub(super) fn places(&self) -> &[PathBuf] {
        &self.places
    }

    /// Waits until all abandoned system calls on this target have returned.
    ///
    /// # Errors
    /// When some calls have not returned within `patience`.
    pub(super) async fn wait(&self, patience: Duration) -> Result<(), ConnectError> {
        let asked = Instant::now();
        while given_up().contains_key(&*self.places) {
            if asked.elapsed() >= patience {
                return Err(does_not_answer());
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Records that the thread is given up: no caller waits for it any more.
    pub(super) fn is_given_up(&self) {
        let mut stand = self.stand.lock().unwrap_or_else(PoisonError::into_inner);
        if *stand == Stand::Asks {
            *stand = Stand::GivenUp;
            *given_up().entry(self.places.to_vec()).or_default() += 1;
        }
    }

    /// Records that the thread's system calls have returned.
    pub(super) fn is_over(&self) {
        let mut stand = self.stand.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *stand, Stand::Over) != Stand::GivenUp {
            return;
        }
        let mut all = given_up();
        if let Some(calls) = all.get_mut(&*self.places) {
            *calls -= 1;
        }
        all.retain(|_, calls| *calls > 0);
    }
}
