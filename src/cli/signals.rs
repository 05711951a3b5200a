//! The signals that end the daemon, and the one that has it read its settings anew.

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The signals, caught from the moment this exists, whoever looks at them later.
pub(super) struct Signals {
    pub(super) ends: Ends,
    /// SIGHUP, where it has the settings read anew.
    pub(super) hangup: Option<Signal>,
}

/// SIGTERM, SIGINT, and where nobody reads settings anew SIGHUP too: a terminal that is closed.
pub(super) struct Ends {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// Catches them. `hangup_ends` says what SIGHUP is for.
    ///
    /// # Errors
    ///
    /// When the system doesn't let them be caught.
    pub(super) fn catch(runtime: &Runtime, hangup_ends: bool) -> std::io::Result<Self> {
        let _inside = runtime.enter();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let hangup = Some(signal(SignalKind::hangup())?);
        let (ends, reads) = if hangup_ends { (hangup, None) } else { (None, hangup) };
        Ok(Self { ends: Ends { terminate, interrupt, hangup: ends }, hangup: reads })
    }
}

impl Ends {
    /// The first asks to stop at a safe point; returns with the second.
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

/// Waits for the next signal; for ever, where it is not listened to.
pub(super) async fn next(signal: &mut Option<Signal>) {
    let come = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if come.is_none() {
        std::future::pending().await
    }
}
