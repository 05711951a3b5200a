//! What goes wrong again and again is said once, until it works again.

/// Remembers what was said last.
#[derive(Default)]
pub(super) struct LogOnce(Option<String>);

impl LogOnce {
    /// Says what went wrong with what, if it is something new.
    pub(super) fn about(&mut self, what: &str, why: &str) {
        if self.0.as_deref() == Some(why) {
            tracing::debug!("{what}: {why}");
        } else {
            tracing::warn!("{what}: {why}");
            self.0 = Some(why.to_owned());
        }
    }

    /// Says that it works again, if it did not.
    pub(super) fn is_over(&mut self, what: &str) {
        if self.0.take().is_some() {
            tracing::info!("{what} works again");
        }
    }
}
