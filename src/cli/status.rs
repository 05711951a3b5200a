//! `status`: prints the status in two tables.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::shore::{Refusal, Shore, on_shore};
use super::{Exit, clear_screen, say, say_json, sizes};
use crate::status::{BudgetStatus, DirectoryStatus, Document, LinkState, VesselStatus, WayStatus};
use crate::text::counted;

/// Time between two updates with `--watch`.
const BEAT: Duration = Duration::from_secs(1);
/// Maximum number of listed parked files.
const PARKED: usize = 10;

/// Prints the status once or repeatedly.
pub(super) fn status(settings: &Path, json: bool, watch: bool) -> Exit {
    on_shore(settings, async |shore| {
        loop {
            tokio::select! {
                shown = show(&shore, json, watch) => shown?,
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Good),
            }
            if !watch {
                return Ok(Exit::Good);
            }
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Good),
            }
        }
    })
}

async fn show(shore: &Shore, json: bool, watch: bool) -> Result<(), Refusal> {
    let document = shore.document().await?;
    match (json, watch) {
        (true, true) => say_json(&serde_json::to_string(&document)?),
        (true, false) => say_json(&serde_json::to_string_pretty(&document)?),
        (false, _) => {
            if watch && std::io::stdout().is_terminal() {
                clear_screen();
            }
            say(format_args!("{}", tables(&document).trim_end()));
        }
    }
    Ok(())
}

fn tables(document: &Document) -> String {
    let mut text = match &document.daemon {
        Some(daemon) => {
            format!("contentmonster {} runs, started {}\n", daemon.release, sizes::ago(daemon.started, document.at))
        }
        None => "contentmonster is not running; this is the state in the ledger\n".to_owned(),
    };
    text.push_str(&reload(document));
    let header =
        ["VESSEL", "LINK", "WAITING", "BYTES", "PARKED", "OLDEST", "RATE", "LEFT", "LINK TODAY", "LAST RECEIVED"];
    let rows = document.vessels.iter().map(|vessel| row_of_vessel(vessel, document.at));
    text.push_str(&table(header, rows));
    for vessel in &document.vessels {
        if let Some(reason) = &vessel.link.reason {
            let next = vessel.link.next_try.map(|next| format!(" (next try {})", sizes::until(next, document.at)));
            let _ = writeln!(text, "  {}: {reason}{}", vessel.name, next.unwrap_or_default());
        }
    }
    for vessel in &document.vessels {
        text.push_str(&queues(vessel, document.at));
        vessel.ways.iter().for_each(|way| text.push_str(&line_of_way(&vessel.name, way)));
    }
    document.budgets.iter().for_each(|budget| text.push_str(&line_of_budget(budget, document.at)));
    let header = ["DIRECTORY", "WAITING", "BYTES", "IN FLIGHT", "PARKED", "RETIRED TODAY", "BYTES"];
    text.push('\n');
    text.push_str(&table(header, document.directories.iter().map(row_of_directory)));
    for directory in &document.directories {
        if let Some(trouble) = &directory.trouble {
            let _ = writeln!(text, "  {}: {trouble}", directory.name);
        }
    }
    for disk in document.disks.iter().filter(|disk| disk.low) {
        let _ =
            writeln!(text, "low disk space: {}: {} free, less than MinFree", disk.path, sizes::bytes(disk.free_bytes));
    }
    for parked in document.parked.iter().take(PARKED) {
        let next = sizes::until(parked.next_try, document.at);
        let (vessel, directory, path, reason) = (&parked.vessel, &parked.directory, &parked.path, &parked.reason);
        let _ = writeln!(text, "parked for {vessel}: {directory}/{path}: {reason} (next try {next})");
    }
    text
}

/// Describes what waits for a window, what has another priority than the default, and what expired; empty where nothing
/// does.
fn queues(vessel: &VesselStatus, now: Timestamp) -> String {
    let mut text = String::new();
    for queue in vessel.queues.iter().filter(|queue| queue.opens.is_some() || queue.priority != "normal") {
        let opens = queue.opens.map(|opens| format!(", waits for its window (opens {})", sizes::until(opens, now)));
        let (files, bytes) = (counted(queue.waiting.files, "file"), sizes::bytes(queue.waiting.bytes));
        let (name, directory, priority) = (&vessel.name, &queue.directory, &queue.priority);
        let _ =
            writeln!(text, "  {name}: {directory}: {files}, {bytes}, priority {priority}{}", opens.unwrap_or_default());
    }
    if vessel.expired > 0 {
        let _ = writeln!(text, "  {}: {} expired so far", vessel.name, counted(vessel.expired, "file"));
    }
    text
}

fn line_of_way(vessel: &str, way: &WayStatus) -> String {
    let WayStatus { name, bytes_today, bytes_month, currency, .. } = way;
    let carries = match &way.why {
        Some(why) => format!("carries ({why}), "),
        None => String::new(),
    };
    let (today, month) = (sizes::bytes(*bytes_today), sizes::bytes(*bytes_month));
    let cost = match way.cost_month > 0.0 {
        true => format!(" (today {:.2}, this month {:.2} {currency})", way.cost_today, way.cost_month),
        false => String::new(),
    };
    format!("  {vessel} over {name}: {carries}{today} today, {month} this month{}\n", cost.replace(" )", ")"))
}

fn line_of_budget(budget: &BudgetStatus, now: Timestamp) -> String {
    let BudgetStatus { of, name, period, bytes, used, ends } = budget;
    let percent = used.saturating_mul(100) / (*bytes).max(1);
    let (used, bytes, ends) = (sizes::bytes(*used), sizes::bytes(*bytes), sizes::until(*ends, now));
    format!(
        "  budget of the {of} {name}: {percent} % used, {used} of {bytes} for this {period}; the next one begins {ends}\n"
    )
}

/// Describes the last reload of the settings; empty when the reload requires no action.
fn reload(document: &Document) -> String {
    let Some(reload) = document.daemon.as_ref().and_then(|daemon| daemon.reload.as_ref()) else { return String::new() };
    let mut text = String::new();
    if !reload.problems.is_empty() {
        let ago = sizes::ago(reload.at, document.at);
        let _ = writeln!(text, "the last reload of the settings failed {ago}; the previous settings stay in effect:");
        for problem in &reload.problems {
            let _ = writeln!(text, "  {problem}");
        }
    }
    if !reload.needs_restart.is_empty() {
        let _ = writeln!(text, "[MONSTER] {}: a change takes effect after a restart", reload.needs_restart.join(", "));
    }
    text
}

fn row_of_vessel(vessel: &VesselStatus, now: Timestamp) -> [String; 10] {
    let since = vessel.link.since.map(|since| format!(" {}", sizes::span(since, now)));
    let link = match vessel.link.state {
        LinkState::Off => "off".to_owned(),
        state => format!("{}{}", state.as_str(), since.unwrap_or_default()),
    };
    let dash = || "-".to_owned();
    [
        vessel.name.clone(),
        link,
        vessel.backlog.files.to_string(),
        sizes::bytes(vessel.backlog.bytes),
        vessel.parked.to_string(),
        vessel.oldest.as_ref().map_or_else(dash, |oldest| sizes::span(oldest.since, now)),
        if vessel.rate > 0 { format!("{}/s", sizes::bytes(vessel.rate)) } else { dash() },
        vessel.eta_seconds.map_or_else(dash, |seconds| sizes::duration(Duration::from_secs(seconds))),
        vessel.link_bytes_today.map_or_else(dash, |today| sizes::bytes(today.sent + today.received)),
        vessel.last_acknowledged.map_or_else(dash, |last| sizes::ago(last, now)),
    ]
}

fn row_of_directory(directory: &DirectoryStatus) -> [String; 7] {
    [
        directory.name.clone(),
        directory.waiting.files.to_string(),
        sizes::bytes(directory.waiting.bytes),
        directory.in_flight.to_string(),
        directory.parked.to_string(),
        directory.retired_today.files.to_string(),
        sizes::bytes(directory.retired_today.bytes),
    ]
}

/// Formats a table whose columns are as wide as their widest cell.
fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "1".to_owned()], ["long name".to_owned(), "22".to_owned()]];
        assert_eq!(table(["N", "COUNT"], rows.into_iter()), "N          COUNT\na          1\nlong name  22\n");
    }
}
