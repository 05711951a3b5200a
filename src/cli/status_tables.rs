//! The tables of `status`.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;

use super::sizes;
use crate::status::{BudgetStatus, DirectoryStatus, Document, LinkState, NO_RATE, VesselStatus, WayStatus};
use crate::text::counted;

/// Maximum number of listed parked files.
const PARKED: usize = 10;

/// The size of the terminal, in characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// Formats the document. If the screen is too small for all vessels, shows as many as fit, those in the worst trouble
/// first.
pub(super) fn tables(document: &Document, screen: Option<Screen>) -> String {
    let whole = text(document, document.vessels.iter().collect());
    let Some(Screen { columns, rows }) = screen else { return whole };
    // One row stays free for the cursor.
    let room = rows.saturating_sub(1);
    let lines = |text: &str| text.trim_end().lines().count();
    let mut shown: Vec<&VesselStatus> = document.vessels.iter().collect();
    let mut fitted = whole;
    if lines(&fitted) > room {
        shown.sort_by_key(|vessel| vessel.rank());
        // Estimates three lines for each vessel: one for its row, and up to two for its reasons.
        while lines(&fitted) + 1 > room && !shown.is_empty() {
            let over = lines(&fitted) + 1 - room;
            shown.truncate(shown.len().saturating_sub(over.div_ceil(3)));
            fitted = text(document, shown.clone());
        }
        let left_out = document.vessels.len() - shown.len();
        let mut lines: Vec<&str> = fitted.trim_end().lines().take(room.saturating_sub(1)).collect();
        let note = format!(
            "… and {}; `status --only-trouble` lists those in trouble",
            counted(left_out as u64, "more vessel")
        );
        if left_out > 0 {
            lines.push(&note);
        }
        fitted = lines.join("\n");
    }
    let clipped = |line: &str| {
        if line.chars().count() > columns {
            line.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
        } else {
            line.to_owned()
        }
    };
    fitted.lines().map(clipped).collect::<Vec<String>>().join("\n")
}

fn text(document: &Document, vessels: Vec<&VesselStatus>) -> String {
    let mut text = match &document.daemon {
        Some(daemon) => {
            format!("contentmonster {} runs, started {}\n", daemon.release, sizes::ago(daemon.started, document.at))
        }
        None => "contentmonster is not running; this is the state in the ledger\n".to_owned(),
    };
    if let Some(trouble) = &document.ledger.trouble {
        let _ =
            writeln!(text, "{trouble}; nothing is published, deleted or retired until the ledger is available again");
    }
    text.push_str(&reload(document));
    let header = [
        "VESSEL",
        "LINK",
        "WAITING",
        "BYTES",
        "PUT OFF",
        "PARKED",
        "OLDEST",
        "RATE",
        "ETA",
        "LINK TODAY",
        "LAST RECEIVED",
    ];
    let rows = vessels.iter().map(|vessel| row_of_vessel(vessel, document.at));
    text.push_str(&table(header, rows));
    for vessel in vessels {
        if let Some(reason) = &vessel.link.reason {
            let what = if vessel.link.state == LinkState::Paused { "resumes" } else { "next try" };
            let next = vessel.link.next_try.map(|next| format!(" ({what} {})", sizes::until(next, document.at)));
            let _ = writeln!(text, "  {}: {reason}{}", vessel.name, next.unwrap_or_default());
        }
        if let Some(first) = &vessel.retried_first {
            let (files, next) = (counted(vessel.put_off, "file"), sizes::until(first.next_try, document.at));
            let (name, directory, path, reason) = (&vessel.name, &first.directory, &first.path, &first.reason);
            let _ = writeln!(
                text,
                "  {name}: {files} postponed; first to be retried: {directory}/{path}: {reason} (next try {next})"
            );
        }
        text.push_str(&queues(vessel, document.at));
        vessel.ways.iter().for_each(|way| text.push_str(&line_of_way(&vessel.name, way)));
    }
    document.budgets.iter().for_each(|budget| text.push_str(&line_of_budget(budget, document.at)));
    let header = ["DIRECTORY", "WAITING", "BYTES", "IN FLIGHT", "PARKED", "RETIRED TODAY", "BYTES"];
    text.push('\n');
    text.push_str(&table(header, document.directories.iter().map(row_of_directory)));
    for directory in &document.directories {
        if let Some(pause) = &directory.pause {
            let until = pause.until.map(|until| format!(" (resumes {})", sizes::until(until, document.at)));
            let note = pause.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
            let since = sizes::span(pause.since, document.at);
            let _ = writeln!(text, "  {}: paused for {since}{note}{}", directory.name, until.unwrap_or_default());
        }
        if let Some(trouble) = &directory.trouble {
            let _ = writeln!(text, "  {}: {trouble}", directory.name);
        }
    }
    text.push_str(&super::shores::lines(document));
    for hook in &document.hooks {
        if let Some(why) = &hook.failing {
            let since = hook.since.map(|since| format!(" for {}", sizes::span(since, document.at))).unwrap_or_default();
            let (name, failures) = (&hook.name, counted(hook.failures, "failure"));
            let _ = writeln!(text, "{name} has been failing{since} ({failures} in total): {why}");
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

/// Describes the queues that are held back or have another priority than the default, the reason why there is no ETA,
/// and the expired files; empty if there are none of these.
fn queues(vessel: &VesselStatus, now: Timestamp) -> String {
    let mut text = String::new();
    for queue in vessel.queues.iter().filter(|queue| queue.held.is_some() || queue.priority != "normal") {
        let opens = queue.held.as_ref().map(|held| match (held.by.as_str(), held.until) {
            ("schedule", Some(opens)) if queue.opens.is_some() => {
                format!(", waits for its window (opens {})", sizes::until(opens, now))
            }
            (_, until) => {
                let until = until.map(|until| format!("; continues {}", sizes::until(until, now)));
                format!(", waits: {}{}", held.why, until.unwrap_or_default())
            }
        });
        let (files, bytes) = (counted(queue.waiting.files, "file"), sizes::bytes(queue.waiting.bytes));
        let (name, directory, priority) = (&vessel.name, &queue.directory, &queue.priority);
        let _ =
            writeln!(text, "  {name}: {directory}: {files}, {bytes}, priority {priority}{}", opens.unwrap_or_default());
    }
    if let Some(why) =
        vessel.eta_unknown.as_ref().filter(|why| why.as_str() != NO_RATE && vessel.link.state == LinkState::Connected)
    {
        let _ = writeln!(text, "  {}: no ETA: {why}", vessel.name);
    }
    if vessel.expired > 0 {
        let _ = writeln!(text, "  {}: {} expired so far", vessel.name, counted(vessel.expired, "file"));
    }
    text
}

fn line_of_way(vessel: &str, way: &WayStatus) -> String {
    let WayStatus { name, bytes_today, bytes_month, currency, .. } = way;
    let carries = match &way.why {
        Some(why) => format!("in use ({why}), "),
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
    let BudgetStatus { of, name, period, bytes, used, ends, .. } = budget;
    let reserve = match (&budget.reserve_for, budget.state.as_str()) {
        (Some(kept), "reserve") => format!("; the rest is reserved for {kept}"),
        _ => String::new(),
    };
    let percent = used.saturating_mul(100) / (*bytes).max(1);
    let (used, bytes, ends) = (sizes::bytes(*used), sizes::bytes(*bytes), sizes::until(*ends, now));
    format!(
        "  budget of the {of} {name}: {percent} % used, {used} of {bytes} for this {period}; the next {period} begins {ends}{reserve}\n"
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

fn row_of_vessel(vessel: &VesselStatus, now: Timestamp) -> [String; 11] {
    let since = vessel.link.since.map(|since| format!(" {}", sizes::span(since, now)));
    let link = match vessel.link.state {
        LinkState::Off => "off".to_owned(),
        LinkState::Elsewhere => format!("on {}", vessel.shore.as_deref().unwrap_or("another shore")),
        state => format!("{}{}", state.as_str(), since.unwrap_or_default()),
    };
    let dash = || "-".to_owned();
    [
        vessel.name.clone(),
        link,
        vessel.backlog.files.to_string(),
        sizes::bytes(vessel.backlog.bytes),
        vessel.put_off.to_string(),
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
pub(super) fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::status::{Amount, Histogram, LedgerStatus, Link};

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "1".to_owned()], ["long name".to_owned(), "22".to_owned()]];
        assert_eq!(table(["N", "COUNT"], rows.into_iter()), "N          COUNT\na          1\nlong name  22\n");
    }

    fn vessel(name: &str, state: LinkState) -> VesselStatus {
        VesselStatus {
            name: name.to_owned(),
            link: Link { state, since: None, reason: None, next_try: None },
            shore: None,
            backlog: Amount::default(),
            parked: 0,
            expired: 0,
            opens: None,
            queues: Vec::new(),
            carries: None,
            put_off: 0,
            retried_first: None,
            groups: Vec::new(),
            oldest: None,
            in_flight: 0,
            in_flight_bytes: 0,
            transfers: Vec::new(),
            rate: 0,
            eta_seconds: None,
            eta_unknown: None,
            acknowledged: Amount::default(),
            last_acknowledged: None,
            sent_bytes: 0,
            saved_bytes: 0,
            link_bytes: None,
            link_bytes_today: None,
            link_bytes_month: None,
            ways: Vec::new(),
            speed: None,
            errors: BTreeMap::new(),
            took: Histogram::new(),
        }
    }

    #[test]
    fn on_a_small_screen_the_vessels_in_trouble_come_first_and_every_line_fits() {
        let mut vessels: Vec<_> =
            (1..=60).map(|number| vessel(&format!("ship{number:02}"), LinkState::Connected)).collect();
        for at in [41, 59] {
            vessels[at].link.state = LinkState::Away;
            vessels[at].link.reason =
                Some("cannot be reached, for a reason that takes much more than a line".repeat(3));
        }
        vessels[50].parked = 3;
        let document = Document {
            version: 1,
            at: Timestamp::UNIX_EPOCH,
            daemon: None,
            vessels,
            directories: Vec::new(),
            parked: Vec::new(),
            deliveries: Vec::new(),
            errors: Vec::new(),
            ledger: LedgerStatus { file: String::new(), bytes: 0, free_bytes: 0, trouble: None },
            disks: Vec::new(),
            hooks: Vec::new(),
            budgets: Vec::new(),
            shores: Vec::new(),
        };
        for (columns, rows) in [(80, 24), (40, 10), (200, 50), (10, 3), (1, 1)] {
            let shown = tables(&document, Some(Screen { columns, rows }));
            assert!(shown.lines().count() < rows.max(2), "{columns} x {rows}:\n{shown}");
            assert!(shown.lines().all(|line| line.chars().count() <= columns), "{columns} x {rows}:\n{shown}");
            if rows >= 24 {
                let at = |name: &str| shown.find(name).unwrap_or_else(|| panic!("no {name} in\n{shown}"));
                assert!(at("ship42") < at("ship51") && at("ship60") < at("ship51") && at("ship51") < at("ship01"));
                assert!(shown.contains("more vessels"), "{shown}");
            }
        }
        let whole = tables(&document, Some(Screen { columns: 300, rows: 100 }));
        assert!((1..=60).all(|number| whole.contains(&format!("ship{number:02}"))), "{whole}");
        assert!(whole.find("ship01") < whole.find("ship42"), "with room for all, the order is that of the settings");
    }
}
