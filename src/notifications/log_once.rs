//! Logs an error once while it repeats, and logs when it is resolved.

/// The last error that was logged; `None` when no error persists.
#[derive(Default)]
pub(super) struct LogOnce(Option<String>);

impl LogOnce {
    /// Logs an error as a warning, unless it repeats the last one.
    pub(super) fn about(&mut self, what: &str, why: &str) {
        if self.0.as_deref() == Some(why) {
            tracing::debug!("{what}: {why}");
        } else {
            tracing::warn!("{what}: {why}");
            self.0 = Some(why.to_owned());
        }
    }

    /// Logs that the error is resolved, if an error was logged.
    pub(super) fn is_over(&mut self, what: &str) {
        if self.0.take().is_some() {
            tracing::info!("{what} works again");
        }
    }
}
