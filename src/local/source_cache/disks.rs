//! The disks that sources are read from. A disk that doesn't answer, such as a network mount whose server is down,
//! affects only its own sources: waiting readers give up after about 2 s, and new readers fail at once.

use std::collections::HashMap;
use std::future::Future;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::broken;
use crate::local::DiskError;
use crate::local::source::SourceFile;

/// Maximum number of threads that read from one location.
const THREADS: usize = 32;
/// A disk that answers no call for this long counts as unresponsive.
const SILENCE: Duration = Duration::from_secs(2);
/// Interval at which waiting tasks check whether the disk is unresponsive.
const GLANCE: Duration = Duration::from_millis(200);

/// The disks, by location.
#[derive(Default)]
pub(super) struct Disks(Mutex<HashMap<PathBuf, Arc<Disk>>>);

impl Disks {
    pub(super) fn of(&self, location: &Path) -> Arc<Disk> {
        let mut disks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(disk) = disks.get(location) {
            return disk.clone();
        }
        let disk = Arc::new(Disk::new(location));
        disks.insert(location.to_owned(), disk.clone());
        disk
    }
}

#[cfg(test)]
impl Disks {
    /// Returns whether no calls are in progress.
    pub(super) fn are_idle(&self) -> bool {
        let disks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        disks.values().all(|disk| disk.state().calls == 0)
    }
}

/// The disk of a location.
pub(super) struct Disk {
    location: PathBuf,
    threads: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    /// Number of calls in progress.
    calls: usize,
    /// When the disk last answered, or when it was first called after it was idle.
    heard: Instant,
    said: bool,
}

/// A call in progress.
struct Call(Arc<Disk>);

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.calls -= 1;
        state.heard = Instant::now();
        if std::mem::take(&mut state.said) {
            drop(state);
            tracing::info!(location = %self.0.location.display(), "The file system answers again");
        }
    }
}

impl Disk {
    fn new(location: &Path) -> Self {
        let state = State { calls: 0, heard: Instant::now(), said: false };
        Self { location: location.to_owned(), threads: Arc::new(Semaphore::new(THREADS)), state: Mutex::new(state) }
    }

    /// Runs blocking work on a blocking thread, and waits for the result as long as the disk responds to calls.
    pub(super) async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        act: &'static str,
        work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let permit = self.permit().await?;
        let call = self.begin();
        let working = spawn_blocking(move || {
            let done = work();
            drop((call, permit));
            done
        });
        self.patiently(working).await?.map_err(|error| broken(act, error))?
    }

    /// Reserves one of the location's threads; fails when the disk is unresponsive.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, DiskError> {
        if self.is_silent() {
            return Err(self.silent());
        }
        let permit = self.patiently(self.threads.clone().acquire_owned()).await?;
        Ok(permit.expect("the semaphore is never closed"))
    }

    /// Marks the start of a call to the disk. Dropping the result marks the end of the call.
    pub(super) fn begin(self: &Arc<Self>) -> impl Send + use<> {
        let mut state = self.state();
        if state.calls == 0 {
            state.heard = Instant::now();
        }
        state.calls += 1;
        Call(self.clone())
    }

    /// Waits for a result from the disk; fails when the disk is unresponsive.
    pub(super) async fn patiently<T>(&self, coming: impl Future<Output = T>) -> Result<T, DiskError> {
        let mut coming = std::pin::pin!(coming);
        loop {
            tokio::select! {
                biased;
                come = &mut coming => return Ok(come),
                () = tokio::time::sleep(GLANCE) => {}
            }
            if self.is_silent() {
                return Err(self.silent());
            }
        }
    }

    fn is_silent(&self) -> bool {
        let state = self.state();
        state.calls > 0 && state.heard.elapsed() > SILENCE
    }

    fn silent(&self) -> DiskError {
        if !std::mem::replace(&mut self.state().said, true) {
            tracing::warn!(
                location = %self.location.display(),
                "The file system does not answer; its files wait, other directories continue"
            );
        }
        DiskError::Silent { path: self.location.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open source. Dropping it closes the file on a blocking thread, because closing may block on a network file
/// system.
pub(super) struct OpenSource(Option<SourceFile>);

impl From<SourceFile> for OpenSource {
    fn from(file: SourceFile) -> Self {
        Self(Some(file))
    }
}

impl Deref for OpenSource {
    type Target = SourceFile;

    fn deref(&self) -> &SourceFile {
        self.0.as_ref().expect("the file is taken out only when this value is dropped")
    }
}

impl Drop for OpenSource {
    fn drop(&mut self) {
        if let (Some(file), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn_blocking(move || drop(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_does_not_answer_is_given_up_and_asked_no_more_until_it_does() {
        let (disks, at) = (Disks::default(), Path::new("/srv/hangs"));
        let (disk, (answer, hangs)) = (disks.of(at), mpsc::channel::<()>());
        let first = disk.call("read", move || Ok(hangs.recv().is_ok())).await;
        assert!(matches!(first, Err(DiskError::Silent { .. })), "{first:?}");
        let began = Instant::now();
        assert!(matches!(disk.call("read", || Ok(())).await, Err(DiskError::Silent { .. })));
        assert!(began.elapsed() < SILENCE / 2, "whoever comes later does not wait at all");
        disks.of(Path::new("/srv/other")).call("read", || Ok(())).await.unwrap();
        drop(answer);
        while disk.is_silent() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        disk.call("read", || Ok(())).await.unwrap();
    }
}
