//! `status --check`: prints the status as one line, and returns an exit code, in the format of Nagios plugins.

use serde_json::json;

use super::shore::Refusal;
use super::{say, say_json};
use crate::status::{Document, LinkState};
use crate::text::counted;

/// The state of the program. Its number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum State {
    /// Everything works.
    Fine = 0,
    /// Some vessels are away, files are parked or postponed, a hook fails, or the last reload of the settings failed.
    Warning = 1,
    /// The program does not run, the ledger or a directory can't be used, all vessels are away, or no new file is taken
    /// in.
    Critical = 2,
    /// The state cannot be determined.
    Unknown = 3,
}

/// Prints and returns the state that a document shows.
pub(super) fn check(document: &Document, json: bool) -> Result<State, Refusal> {
    let faults = faults(document);
    let state = faults.iter().map(|(state, _)| *state).max().unwrap_or(State::Fine);
    let words: Vec<&str> = faults.iter().map(|(_, words)| words.as_str()).collect();
    let sum = |count: fn(&crate::status::VesselStatus) -> u64| document.vessels.iter().map(count).sum::<u64>();
    let (waiting, bytes) = (sum(|vessel| vessel.backlog.files), sum(|vessel| vessel.backlog.bytes));
    let (put_off, parked) = (sum(|vessel| vessel.put_off), sum(|vessel| vessel.parked));
    let away = document.vessels.iter().filter(|vessel| vessel.link.state == LinkState::Away).count();
    let word = match state {
        State::Fine => "OK",
        State::Warning => "WARNING",
        State::Critical => "CRITICAL",
        State::Unknown => "UNKNOWN",
    };
    if json {
        let answer = json!({
            "state": word, "code": state as u8, "faults": words, "waiting_files": waiting, "waiting_bytes": bytes,
            "put_off": put_off, "parked": parked, "vessels_away": away, "vessels": document.vessels.len(),
        });
        say_json(&serde_json::to_string_pretty(&answer)?);
        return Ok(state);
    }
    let text = match words.is_empty() {
        true => format!("{}, {} waiting", counted(document.vessels.len() as u64, "vessel"), counted(waiting, "file")),
        // In the format of Nagios plugins, a `|` begins the performance data, so the text must not contain a `|`.
        false => words.join("; ").replace('|', "/"),
    };
    say(format_args!(
        "{word}: {text} | waiting={waiting} bytes={bytes}B put_off={put_off} parked={parked} away={away}"
    ));
    Ok(state)
}

/// Prints that the program does not run, without reading the ledger.
pub(super) fn not_running(json: bool) -> Result<State, Refusal> {
    const WHY: &str = "contentmonster is not running";
    match json {
        true => {
            let answer = json!({ "state": "CRITICAL", "code": State::Critical as u8, "faults": [WHY] });
            say_json(&serde_json::to_string_pretty(&answer)?);
        }
        false => say(format_args!("CRITICAL: {WHY}")),
    }
    Ok(State::Critical)
}

/// Returns the problems, the worst first.
fn faults(document: &Document) -> Vec<(State, String)> {
    let mut faults = Vec::new();
    if let Some(trouble) = &document.ledger.trouble {
        faults.push((State::Critical, trouble.clone()));
    }
    // No disk is marked with `holds_ledger` if the ledger is in PostgreSQL, or if the ledger's disk can't be queried.
    for disk in document.disks.iter().filter(|disk| disk.low && disk.holds_ledger) {
        faults.push((State::Critical, format!("low disk space at {}: no new files are taken in", disk.path)));
    }
    for directory in &document.directories {
        if let Some(trouble) = &directory.trouble {
            faults.push((State::Critical, format!("directory {}: {trouble}", directory.name)));
        }
    }
    let away: Vec<&str> = document
        .vessels
        .iter()
        .filter(|vessel| vessel.link.state == LinkState::Away)
        .map(|vessel| vessel.name.as_str())
        .collect();
    if !away.is_empty() {
        let all = document.vessels.len();
        let state = if away.len() == all { State::Critical } else { State::Warning };
        faults.push((state, format!("{} of {} away: {}", away.len(), counted(all as u64, "vessel"), some(&away))));
    }
    for (what, count) in [
        ("parked", (|vessel| vessel.parked) as fn(&crate::status::VesselStatus) -> u64),
        ("postponed", |vessel| vessel.put_off),
    ] {
        let concerned: Vec<_> = document.vessels.iter().filter(|vessel| count(vessel) > 0).collect();
        if !concerned.is_empty() {
            let files = counted(concerned.iter().map(|vessel| count(vessel)).sum::<u64>(), "file");
            let names: Vec<&str> = concerned.iter().map(|vessel| vessel.name.as_str()).collect();
            faults.push((State::Warning, format!("{files} {what} for {}", some(&names))));
        }
    }
    for hook in &document.hooks {
        if let Some(why) = &hook.failing {
            faults.push((State::Warning, format!("{} fails: {why}", hook.name)));
        }
    }
    let reload = document.daemon.as_ref().and_then(|daemon| daemon.reload.as_ref());
    if reload.is_some_and(|reload| !reload.problems.is_empty()) {
        faults.push((State::Warning, "the last reload of the settings failed".to_owned()));
    }
    faults.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
    faults
}

/// Lists the first 5 names, and says how many more there are.
fn some(names: &[&str]) -> String {
    const MOST: usize = 5;
    let shown = names[..names.len().min(MOST)].join(", ");
    if names.len() > MOST { format!("{shown} and {} more", names.len() - MOST) } else { shown }
}
