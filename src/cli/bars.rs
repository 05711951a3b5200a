//! Progress bars: one for each vessel, with bytes, rate and remaining time.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::monitor::{Event, Monitor, Silent};
use crate::names::VesselName;
use crate::settings::Vessel;

/// The progress bars of a run, one for each vessel.
pub(super) struct Bars {
    bars: HashMap<VesselName, ProgressBar>,
}

/// Returns a screen for progress bars, or `None` when standard error is not a terminal.
pub(super) fn screen() -> Option<MultiProgress> {
    std::io::stderr().is_terminal().then(MultiProgress::new)
}

/// Returns a monitor that draws a progress bar for each vessel. Without a screen, it ignores all events.
pub(super) fn monitor(screen: Option<&MultiProgress>, vessels: &[Vessel]) -> Arc<dyn Monitor> {
    match screen {
        Some(screen) => Arc::new(Bars::new(screen, vessels)),
        None => Arc::new(Silent),
    }
}

impl Bars {
    fn new(screen: &MultiProgress, vessels: &[Vessel]) -> Self {
        let width = vessels.iter().map(|v| v.name.as_str().chars().count()).max().unwrap_or(0);
        let template = format!(
            "{{prefix:{width}}} [{{bar:30}}] {{binary_bytes}}/{{binary_total_bytes}} {{binary_bytes_per_sec}} {{eta}} {{msg}}"
        );
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar = |vessel: &Vessel| {
            let bar = screen.add(ProgressBar::new(0).with_style(style.clone()).with_prefix(vessel.name.to_string()));
            (vessel.name.clone(), bar)
        };
        Self { bars: vessels.iter().map(bar).collect() }
    }

    fn on(&self, vessel: &VesselName, act: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = self.bars.get(vessel) {
            act(bar);
        }
    }
}

impl Monitor for Bars {
    fn notice(&self, event: &Event<'_>) {
        match event {
            Event::Owed { vessel, bytes } => self.on(vessel, |bar| bar.inc_length(*bytes)),
            Event::Taken { vessel, bytes, .. } => self.on(vessel, |bar| bar.inc(*bytes)),
            Event::Connected { vessel, .. } => self.on(vessel, |bar| bar.set_message("")),
            Event::Away { vessel, .. } => self.on(vessel, |bar| bar.set_message("away")),
            _ => {}
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bars.values().for_each(ProgressBar::abandon);
    }
}
