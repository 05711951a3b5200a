//! The loop in the vessel's shell that receives small files: whether a session uses one, and how many bytes are in
//! flight to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::sleep;

use super::channel_pool::{BESIDE_WORTH_BYTES, ChannelPool, LONG};
use crate::settings::{SmallFiles, Vessel};
use crate::transport::{FileLoop, Lead, Rank, Remote, SshEnvironment};

/// The largest file that is sent to the loop, in bytes. A larger one would hold up the files behind it, and would gain
/// little from the saved round trips.
pub(crate) const MOST_BYTES: u64 = 1 << 20;
/// Maximum number of files, and of bytes, that are in flight to the loop. Further files wait.
const FILES: usize = 128;
const BYTES: usize = 1 << 20;
/// Approximate time that the vessel's processes need for one file in the loop, and the number of round trips that the
/// loop saves. If the processes for all files take longer than the saved round trips, the files are sent over SFTP,
/// which needs few processes.
const EACH: Duration = Duration::from_millis(5);
const SAVED: u32 = 5;

/// Interval between checks whether large files are being sent.
const LOOK: Duration = Duration::from_millis(500);
/// How long the separate connection for small files is kept after the last large file, and the pause before it is
/// opened again after a failure.
const REST: Duration = Duration::from_secs(60);

/// The loop of one session, started once.
pub(crate) struct LoopSlot {
    state: Mutex<State>,
    /// A loop on a connection of its own, so that small files do not wait behind the bytes of large ones.
    beside: std::sync::Mutex<Option<Arc<FileLoop>>>,
    files: Semaphore,
    bytes: Semaphore,
    /// The number of small files that are being delivered.
    running: AtomicUsize,
    /// Held while a check runs whether a directory on the vessel overlaps with its sources on the shore; the loop waits
    /// for the result before it publishes a file there. Meanwhile, other files for unchecked directories wait.
    pub(crate) asking: Mutex<()>,
}

#[derive(Default)]
enum State {
    #[default]
    New,
    Running(Arc<FileLoop>),
    /// The loop could not be started, or it has ended. The session sends small files over SFTP.
    Unusable,
}

/// The right to send one file to the loop, counted among the files in flight until it is dropped.
pub(crate) struct LoopTurn<'a> {
    file_loop: Arc<FileLoop>,
    _places: [SemaphorePermit<'a>; 2],
}

impl LoopTurn<'_> {
    pub(crate) fn file_loop(&self) -> &FileLoop {
        &self.file_loop
    }
}

impl Default for LoopSlot {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            beside: std::sync::Mutex::default(),
            files: Semaphore::new(FILES),
            bytes: Semaphore::new(BYTES),
            running: AtomicUsize::new(0),
            asking: Mutex::default(),
        }
    }
}

impl LoopSlot {
    /// Returns whether small files go to a loop over this connection.
    pub(crate) fn is_used(remote: &Remote, vessel: &Vessel) -> bool {
        let is_wanted = match vessel.small_files {
            SmallFiles::Auto => remote.main_channel().round_trip() >= LONG,
            SmallFiles::Shell => true,
            SmallFiles::Sftp => false,
        };
        is_wanted && remote.capabilities().receives_files()
    }

    /// Sets the number of small files that are being delivered.
    pub(crate) fn set_running(&self, files: usize) {
        self.running.store(files, Ordering::Relaxed);
    }

    /// Returns whether so many small files are being delivered that SFTP is faster, and the settings allow SFTP.
    pub(crate) fn are_too_many(&self, remote: &Remote, vessel: &Vessel) -> bool {
        let worth = remote.main_channel().round_trip().max(LONG) * SAVED;
        vessel.small_files != SmallFiles::Shell
            && EACH * u32::try_from(self.running.load(Ordering::Relaxed)).unwrap_or(u32::MAX) > worth
    }

    /// Waits for a turn for a file of `bytes` bytes, and starts the loop if there is none yet. `None` if there is no
    /// usable loop.
    pub(crate) async fn turn(&self, remote: &Remote, vessel: &Vessel, bytes: u64) -> Option<LoopTurn<'_>> {
        let file = self.files.acquire().await.ok()?;
        let bytes = self.bytes.acquire_many(u32::try_from(bytes).ok()?).await.ok()?;
        let beside = self.beside().clone().filter(|beside| !beside.has_ended());
        let file_loop = match beside {
            Some(beside) => beside,
            None => self.running(remote, vessel).await?,
        };
        Some(LoopTurn { file_loop, _places: [file, bytes] })
    }

    fn beside(&self) -> std::sync::MutexGuard<'_, Option<Arc<FileLoop>>> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts off the separate connection for small files, and discards its unsent data.
    pub(crate) fn abandon(&self) {
        if let Some(beside) = self.beside().take() {
            beside.abandon();
        }
    }

    /// Keeps a loop on a separate connection while large files are sent on a long path; never returns.
    pub(crate) async fn keep_beside(
        &self,
        remote: &Remote,
        vessel: &Arc<Vessel>,
        environment: &Arc<SshEnvironment>,
        channels: &ChannelPool,
    ) {
        let mut busy_at = Instant::now();
        loop {
            // Waits for work instead of checking at intervals, so that an idle vessel causes no load.
            if self.beside().is_none() {
                channels.wait_for_work(BESIDE_WORTH_BYTES).await;
            }
            sleep(LOOK).await;
            let is_busy = channels.is_connection_beside_worth_it(vessel) && Self::is_used(remote, vessel);
            let is_there = self.beside().as_ref().is_some_and(|beside| !beside.has_ended());
            match (is_busy, is_there) {
                (true, true) => busy_at = Instant::now(),
                (false, true) if busy_at.elapsed() >= REST => *self.beside() = None,
                (true, false) => match connect(remote, vessel, environment).await {
                    Some(started) => {
                        *self.beside() = Some(Arc::new(started));
                        busy_at = Instant::now();
                    }
                    None => sleep(REST).await,
                },
                (false, _) => {}
            }
        }
    }

    /// Returns whether the first file still has to wait until the loop has started.
    pub(crate) fn is_starting(&self) -> bool {
        // The lock is held while the loop starts.
        self.state.try_lock().map_or(true, |state| matches!(*state, State::New))
    }

    /// Returns the running loop, and starts it the first time. `None` if it could not be started or has ended.
    pub(crate) async fn running(&self, remote: &Remote, vessel: &Vessel) -> Option<Arc<FileLoop>> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Running(running) if !running.has_ended() => return Some(running.clone()),
            State::New => {}
            State::Running(_) | State::Unusable => {
                *state = State::Unusable;
                return None;
            }
        }
        match FileLoop::start(remote).await {
            Ok(started) => {
                let started = Arc::new(started);
                *state = State::Running(started.clone());
                Some(started)
            }
            Err(e) => {
                tracing::debug!(
                    vessel = %vessel.name,
                    "Small files are sent over SFTP, because the vessel's shell cannot receive them: {e}"
                );
                *state = State::Unusable;
                None
            }
        }
    }
}

/// Opens a connection, and starts a loop on it.
async fn connect(remote: &Remote, vessel: &Arc<Vessel>, environment: &Arc<SshEnvironment>) -> Option<FileLoop> {
    let (known, alone) = (remote.known_shell(), Lead::alone(Rank::further()));
    let connected = match Remote::connect(vessel, environment, &known, &alone).await {
        Ok(connected) => FileLoop::start(&connected).await.map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    };
    connected
        .inspect_err(|e| tracing::debug!(vessel = %vessel.name, "No separate connection for small files: {e}"))
        .ok()
}
