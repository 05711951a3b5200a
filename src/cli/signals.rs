//! The signals that end the daemon.

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGTERM and SIGINT, caught from the moment this exists, whoever looks at them later.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them.
    ///
    /// # Errors
    ///
    /// When the system doesn't let them be caught.
    pub(super) fn catch(runtime: &Runtime) -> std::io::Result<Self> {
        let _inside = runtime.enter();
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The first asks to stop at a safe point; returns with the second.
    pub(super) async fn second(mut self, stop: CancellationToken) {
        for _ in 0..2 {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if !stop.is_cancelled() {
                tracing::info!("stopping; a second signal stops at once");
            }
            stop.cancel();
        }
    }
}
