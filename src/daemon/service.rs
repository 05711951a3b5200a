//! Notifies the service manager (`sd_notify`): sends the states ready, reloading and stopping, the status line, and
//! watchdog messages. Does nothing without a service manager.

use std::sync::{Arc, Once};
use std::time::Duration;

use indicatif::BinaryBytes;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::ledger::Ledger;
use crate::status::{Document, Gatherer, LinkState};
use crate::text::counted;

/// Interval at which the status line is checked for changes.
const GLANCE: Duration = Duration::from_secs(2);

/// The notifications to the service manager; dropping the value reports that the daemon stops.
pub(super) struct Service {
    _tasks: [AbortOnDropHandle<()>; 2],
    stopping: Arc<Once>,
}

impl Drop for Service {
    fn drop(&mut self) {
        // The program may end before the task that reports the stop runs again.
        say_that_it_stops(&self.stopping);
    }
}

impl Service {
    /// Reports that the daemon is ready, and starts the tasks that send status and watchdog messages.
    pub(super) fn announce(gatherer: watch::Receiver<Arc<Gatherer>>, ledger: Ledger, stop: CancellationToken) -> Self {
        tell(&[NotifyState::Ready]);
        let stopping = Arc::new(Once::new());
        let notifications = tell_how_it_goes(gatherer, stop, stopping.clone());
        let tasks = [tokio::spawn(notifications), tokio::spawn(keep_watch(ledger))];
        Self { _tasks: tasks.map(AbortOnDropHandle::new), stopping }
    }

    /// Reports that a reload of the settings began.
    pub(super) fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
    }

    /// Reports that a reload of the settings ended, successfully or not.
    pub(super) fn reloaded(&self) {
        tell(&[NotifyState::Ready]);
    }
}

/// Reports why the daemon is not ready yet, and that its start may take longer.
pub(super) fn starts_later(why: &str) {
    /// Longer than one attempt to open the ledger and the wait before it.
    const LONGER: Duration = Duration::from_secs(60);
    let longer = u32::try_from(LONGER.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(longer), NotifyState::Status(why)]);
}

/// Reports the status line whenever it changes, and finally that the daemon stops.
async fn tell_how_it_goes(mut gatherer: watch::Receiver<Arc<Gatherer>>, stop: CancellationToken, stopping: Arc<Once>) {
    let mut told = String::new();
    // Without a service manager, nobody reads the status line.
    while std::env::var_os("NOTIFY_SOCKET").is_some() {
        let now = gatherer.borrow_and_update().clone();
        if let Some(Ok(document)) = stop.run_until_cancelled(now.document()).await {
            let line = line(&document);
            if line != told {
                tell(&[NotifyState::Status(&line)]);
                told = line;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(GLANCE) => {}
            _ = gatherer.changed() => {}
            () = stop.cancelled() => break,
        }
    }
    stop.cancelled().await;
    say_that_it_stops(&stopping);
}

fn say_that_it_stops(stopping: &Once) {
    let status = "stopping; unfinished transfers resume at the next start";
    stopping.call_once(|| tell(&[NotifyState::Stopping, NotifyState::Status(status)]));
}

/// Returns the status line that `systemctl status` shows.
fn line(document: &Document) -> String {
    let in_state = |state: LinkState| -> Vec<&str> {
        let vessels = document.vessels.iter().filter(|vessel| vessel.link.state == state);
        vessels.map(|vessel| vessel.name.as_str()).collect()
    };
    let (all, connected) = (document.vessels.len(), in_state(LinkState::Connected).len());
    let mut line = format!("{connected} of {} connected", counted(all as u64, "vessel"));
    for state in [LinkState::Connecting, LinkState::Away, LinkState::Closed, LinkState::Paused] {
        let names = in_state(state);
        if !names.is_empty() {
            line.push_str(&format!(", {}: {}", state.as_str(), names.join(" ")));
        }
    }
    let files: u64 = document.directories.iter().map(|directory| directory.waiting.files).sum();
    let bytes: u64 = document.directories.iter().map(|directory| directory.waiting.bytes).sum();
    line.push_str(&format!("; {} ({}) waiting", counted(files, "file"), BinaryBytes(bytes)));
    let parked: u64 = document.vessels.iter().map(|vessel| vessel.parked).sum();
    if parked > 0 {
        line.push_str(&format!("; {parked} parked"));
    }
    let reload = document.daemon.as_ref().and_then(|daemon| daemon.reload.as_ref());
    if reload.is_some_and(|reload| !reload.problems.is_empty()) {
        line.push_str("; the last reload of the settings failed");
    }
    line
}

/// Sends watchdog messages at half the required interval, while the runtime and the ledger respond.
async fn keep_watch(ledger: Ledger) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut beat = tokio::time::interval(limit / 2);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        if moves(&ledger).await {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// Runs a no-op through the runtime, a blocking thread and the ledger. If one of them hangs, this call hangs too, and
/// the service manager gets no watchdog message.
async fn moves(ledger: &Ledger) -> bool {
    let (thread, entered) = tokio::join!(tokio::task::spawn_blocking(|| ()), ledger.beat());
    thread.is_ok() && entered.is_ok()
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("Cannot notify the service manager: {e}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn blocking_threads_that_hang_are_noticed() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::TempDir::new().unwrap();
            let ledger = Ledger::open(&dir.path().join("ledger"), Clock::system()).await.unwrap();
            assert!(moves(&ledger).await);
            let (release, hang) = mpsc::channel::<()>();
            let hanging = tokio::task::spawn_blocking(move || hang.recv());
            let mut moving = std::pin::pin!(moves(&ledger));
            assert!(tokio::time::timeout(Duration::from_millis(200), &mut moving).await.is_err());
            drop(release);
            assert!(moving.await);
            hanging.await.unwrap().unwrap_err();
        });
    }
}
