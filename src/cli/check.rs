//! `check`: tests the settings, this host and the vessels, and prints remedies.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::check_shore::{self, take_back_refusal};
use super::{Exit, load, runtime, say, say_json, ssh_environment};
use crate::local;
use crate::logging;
use crate::names::VesselName;
use crate::transport::SshEnvironment;
use crate::vessel::{self, Finding};

/// Timeout for a query to a disk.
const MOMENT: Duration = Duration::from_secs(2);

/// Reports the findings: as text one line at a time, as JSON one document at the end.
struct Report {
    json: bool,
    findings: Vec<Line>,
    fit: bool,
}

/// A finding in JSON.
#[derive(Serialize)]
struct Line {
    /// `ok`, `note` or `bad`.
    result: &'static str,
    /// The vessel; `null` for a finding about the settings or this host.
    vessel: Option<String>,
    text: String,
}

impl Report {
    fn add(&mut self, vessel: Option<&VesselName>, finding: &Finding) {
        self.fit &= !matches!(finding, Finding::Bad(_));
        let (result, head, what) = match finding {
            Finding::Good(what) => ("ok", "ok   ", what),
            Finding::Note(what) => ("note", "note ", what),
            Finding::Bad(what) => ("bad", "BAD  ", what),
        };
        if self.json {
            self.findings.push(Line { result, vessel: vessel.map(ToString::to_string), text: what.clone() });
            return;
        }
        match vessel {
            Some(vessel) => say(format_args!("{head} vessel {vessel}: {what}")),
            None => say(format_args!("{head} {what}")),
        }
    }

    fn end(self) -> Exit {
        if self.json {
            let document = serde_json::json!({ "fit": self.fit, "findings": self.findings });
            match serde_json::to_string_pretty(&document) {
                Ok(document) => say_json(&document),
                Err(_) => return Exit::Broken,
            }
        }
        if self.fit { Exit::Good } else { Exit::Unfit }
    }
}

/// Checks the settings, this host and every vessel.
pub(super) fn check(file: &Path, json: bool) -> Exit {
    let settings = match load(file) {
        Ok(mut settings) => {
            settings.find_single_files(|location| {
                let asked = location.to_owned();
                local::within(MOMENT, move || local::is_file(&asked)).unwrap_or(false)
            });
            settings
        }
        Err(exit) => return exit,
    };
    let _ = logging::start(None, None);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let mut report = Report { json, findings: Vec::new(), fit: true };
    report.add(None, &Finding::Good(format!("settings: {} is valid", file.display())));
    for line in &settings.listing {
        report.add(None, &Finding::Good(format!("settings: {line}")));
    }
    for warning in &settings.warnings {
        report.add(None, &Finding::Note(format!("settings: {warning}")));
    }
    for finding in runtime.block_on(check_shore::check(&settings)) {
        report.add(None, &finding);
    }
    // The check accepts a new host key if the settings allow that, but does not record the key; only `trust` and the
    // connections for deliveries record keys.
    let environment = Arc::new(SshEnvironment { records_host_keys: false, ..ssh_environment(&settings) });
    let directories: Vec<_> = settings.directories.iter().cloned().map(Arc::new).collect();
    for vessel in settings.vessels.iter().cloned().map(Arc::new) {
        let (findings, has_shell) = runtime.block_on(vessel::check(&vessel, &directories, &environment));
        if has_shell && runtime.block_on(take_back_refusal(&settings, &vessel.name)) {
            let note = "its shell did not work earlier; the next connection tries the shell again";
            report.add(Some(&vessel.name), &Finding::Note(note.to_owned()));
        }
        for finding in findings {
            report.add(Some(&vessel.name), &finding);
        }
    }
    // Does not wait for threads, because a thread that waits for a disk may never end.
    runtime.shutdown_background();
    report.end()
}
