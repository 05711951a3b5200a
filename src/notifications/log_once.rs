//! Logs a repeated error as a warning only the first time, and logs when the error is resolved.

/// The last error that was logged; `None` when no error persists.
#[derive(Default)]
pub(super) struct LogOnce(Option<String>);

impl LogOnce {
    /// Logs an error: as a warning, or at debug level if it repeats the last error.
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
