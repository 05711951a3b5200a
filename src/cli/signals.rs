//! The signals that stop the daemon, and the one that makes it reload its settings.

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The signals. They are caught from the creation of this struct on, and delivered when they are awaited.
pub(super) struct Signals {
    pub(super) ends: Ends,
    /// SIGHUP, where it reloads the settings.
    pub(super) hangup: Option<Signal>,
}

/// SIGTERM, SIGINT, and SIGHUP (a closed terminal) where it doesn't reload the settings.
pub(super) struct Ends {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// Catches the signals. `hangup_ends` tells whether SIGHUP stops the program.
    ///
    /// # Errors
    ///
    /// When the system doesn't allow them to be caught.
    pub(super) fn catch(runtime: &Runtime, hangup_ends: bool) -> std::io::Result<Self> {
        let _inside = runtime.enter();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let hangup = Some(signal(SignalKind::hangup())?);
        let (ends, reads) = if hangup_ends { (hangup, None) } else { (None, hangup) };
        Ok(Self { ends: Ends { terminate, interrupt, hangup: ends }, hangup: reads })
    }
}

impl Ends {
    /// Requests a stop at a safe point on the first signal; returns on the second.
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

/// Waits for the next signal; for ever, if it is not caught.
pub(super) async fn next(signal: &mut Option<Signal>) {
    let come = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if come.is_none() {
        std::future::pending().await
    }
}
