//! Catches the signals that stop the daemon, and the signal that makes the daemon reload its settings.

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The caught signals. Signals that arrive before they are awaited are not lost.
pub(super) struct Signals {
    pub(super) ends: Ends,
    /// SIGHUP, if it reloads the settings.
    pub(super) hangup: Option<Signal>,
}

/// The signals that stop the program: SIGTERM, SIGINT, and SIGHUP (a closed terminal) unless it reloads the settings.
pub(super) struct Ends {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// Catches the signals. With `hangup_ends`, SIGHUP stops the program instead of reloading the settings.
    ///
    /// # Errors
    /// When the system doesn't allow the signals to be caught.
    pub(super) fn catch(runtime: &Runtime, hangup_ends: bool) -> std::io::Result<Self> {
        let _inside = runtime.enter();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let hangup = Some(signal(SignalKind::hangup())?);
        let (ends, reads) = if hangup_ends { (hangup, None) } else { (None, hangup) };
        Ok(Self { ends: Ends { terminate, interrupt, hangup: ends }, hangup: reads })
    }
}

impl Ends {
    /// Requests a stop at a safe point on the first signal; returns on the second signal.
    pub(super) async fn second(mut self, stop: CancellationToken) {
        for _ in 0..2 {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                () = next(&mut self.hangup) => {}
            }
            if !stop.is_cancelled() {
                tracing::info!("Stopping; a second signal stops at once");
            }
            stop.cancel();
        }
    }
}

/// Waits for the next signal; never returns when `signal` is `None`.
pub(super) async fn next(signal: &mut Option<Signal>) {
    let come = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if come.is_none() {
        std::future::pending().await
    }
}
