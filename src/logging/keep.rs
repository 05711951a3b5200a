//! Keeps the last log lines about each vessel, for the status page.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::status::LogLines;

/// A layer that passes events with a field `vessel` to [`LogLines`], except debug and trace events.
pub(super) struct Keep(pub(super) LogLines);

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            _ => return,
        };
        let mut line = Line::default();
        event.record(&mut line);
        if let Some(vessel) = &line.vessel {
            self.0.keep(vessel, level, &format!("{}{}", line.message, line.fields));
        }
    }
}

/// The parts of a log line.
#[derive(Default)]
struct Line {
    vessel: Option<String>,
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // The result is ignored, because writing to a `String` doesn't fail.
        let _ = match field.name() {
            "vessel" => {
                self.vessel = Some(format!("{value:?}"));
                Ok(())
            }
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn lines_of_a_vessel_are_kept_with_their_fields() {
        let lines = LogLines::default();
        let subscriber = tracing_subscriber::registry().with(Keep(lines.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(vessel = %"tern", files = 3, "Connected");
            tracing::warn!(vessel = "tern", "Away: {}", "no route");
            tracing::info!("Nothing about a vessel");
            tracing::debug!(vessel = "tern", "Too much");
        });
        assert_eq!(lines.texts("tern"), ["Away: no route", "Connected files=3"]);
    }
}
