//! `why`: prints a file's history.

use std::path::Path;

use jiff::Timestamp;

use super::receipts::made_from;
use super::shore::on_shore;
use super::{Exit, command, say, say_json, shell_word, sizes};
use crate::names::VesselName;
use crate::status::{self, Chapter, DeliveryReport, History, Reporter};

/// Prints a file's history. The exit code shows whether everything was delivered.
pub(super) fn why(settings: &Path, file: &Path, vessel: Option<&str>, json: bool) -> Exit {
    on_shore(settings, async |shore| {
        let (document, ledger) = (shore.document().await?, shore.ledger().await?);
        if let Some(vessel) = vessel {
            shore.known_vessel(&ledger, vessel).await?;
        }
        let meant = shore.find(&ledger, file).await?;
        let (command, word) = (command(&shore.settings), shell_word(&file.display().to_string()));
        let reporter = Reporter { settings: &shore.settings, document: &document, command: &command, file: &word };
        let history = status::report(&reporter, &meant, vessel.map(VesselName::new).as_ref());
        if json {
            say_json(&serde_json::to_string_pretty(&history)?);
        } else {
            show(&history, document.at);
        }
        let delivered = history.open_deliveries().next().is_none() && history.note.is_none();
        Ok(if delivered { Exit::Good } else { Exit::Undelivered })
    })
}

fn show(history: &History, now: Timestamp) {
    say(format_args!("{}/{}", history.directory, history.path));
    if let Some(note) = &history.note {
        say(format_args!("  {note}"));
        show_advice("  ", &history.you_can);
    }
    for chapter in history.versions.iter().rev() {
        show_version(chapter, now);
    }
}

fn show_version(version: &Chapter, now: Timestamp) {
    let hash = version.sha256.as_deref().unwrap_or("not read yet");
    let taken_in = sizes::ago(version.taken_in, now);
    say(format_args!(
        "  version {} ({}), taken in {taken_in}: {}",
        version.version,
        sizes::bytes(version.bytes),
        version.fate
    ));
    say(format_args!("    SHA-256 {hash}"));
    version.deliveries.iter().for_each(|report| show_delivery(report, version.bytes, now));
}

fn show_delivery(report: &DeliveryReport, bytes: u64, now: Timestamp) {
    match (&report.delivered, &report.verified) {
        (Some(at), Some(how)) => {
            let from = report.made_from.as_ref().map(|from| made_from(how, from, bytes, report.saved_bytes));
            let from = from.unwrap_or_default();
            say(format_args!("    {}: delivered {}, {how}{from}", report.vessel, sizes::ago(*at, now)));
            show_cost(report);
            return;
        }
        _ => say(format_args!("    {}: {}", report.vessel, report.now)),
    }
    show_cost(report);
    if let Some(error) = report.last_error.as_ref().filter(|error| !report.now.ends_with(error.as_str())) {
        say(format_args!("      last error (failed attempts in a row: {}): {error}", report.failures.max(1)));
    }
    if let Some(next) = report.next_try {
        say(format_args!("      next try: {}", sizes::until(next, now)));
    }
    show_advice("      ", &report.you_can);
}

fn show_cost(report: &DeliveryReport) {
    if let Some(written) = report.written_bytes {
        let link =
            report.link_bytes.map(|link| format!("; bytes on the link for this delivery: {}", sizes::bytes(link)));
        say(format_args!("      wrote {} of the file{}", sizes::bytes(written), link.unwrap_or_default()));
    }
}

fn show_advice(indent: &str, you_can: &[String]) {
    you_can.iter().for_each(|advice| say(format_args!("{indent}you can: {advice}")));
}
