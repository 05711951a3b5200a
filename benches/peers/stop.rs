//! When to stop early: a signal, or the end of the process that started this one again.
//!
//! Nothing is cut short here. Everybody who waits asks, and returns with an error; what was started and made is then taken
//! down on the way out as after any other error.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::Result;

/// Tells whether to stop.
#[derive(Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Stops on SIGINT, SIGTERM and SIGHUP.
    pub(crate) fn on_signals() -> Self {
        let stop = Self(Arc::default());
        let asked = stop.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            runtime.expect("an I/O driver for the signals").block_on(asked.listen());
        });
        stop
    }

    /// Stops on these signals, and when the standard input ends, which its starter holds open as long as it lives.
    pub(crate) fn on_signals_or_end_of_input() -> Self {
        let stop = Self::on_signals();
        let asked = stop.clone();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            asked.0.store(true, Ordering::Relaxed);
        });
        stop
    }

    async fn listen(&self) {
        let listener = |kind| signal(kind).expect("a signal that may be handled");
        let (mut interrupt, mut terminate, mut hang_up) =
            (listener(SignalKind::interrupt()), listener(SignalKind::terminate()), listener(SignalKind::hangup()));
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            self.0.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error as soon as it is asked to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_asked() { Err("stopped".to_owned()) } else { Ok(()) }
    }

    /// Sleeps, if it may.
    pub(crate) fn sleep(&self, pause: Duration) -> Result<()> {
        let end = Instant::now() + pause;
        while let Some(rest) = end.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
            self.check()?;
            std::thread::sleep(rest.min(Duration::from_millis(100)));
        }
        self.check()
    }

    /// Asks `is_so` every `pause` until it is so.
    ///
    /// # Errors
    /// When `limit` has passed, named by `what`.
    pub(crate) fn wait_until(
        &self,
        what: &str,
        pause: Duration,
        limit: Duration,
        mut is_so: impl FnMut() -> bool,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        while !is_so() {
            self.check()?;
            if Instant::now() > end {
                return Err(format!("waited {limit:?} in vain: {what}"));
            }
            std::thread::sleep(pause);
        }
        Ok(())
    }
}
