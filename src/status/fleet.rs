//! The status page's data about the whole fleet: the parts of the [`Document`] that fit into one line per vessel.
//!
//! Fields without a value are left out, because the page receives the document as a JSON merge patch, in which `null`
//! removes a field. Times are milliseconds since 1970.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::document::{
    BudgetStatus, Delivered, DirectoryStatus, DiskStatus, Document, ErrorStatus, HookStatus, Reload, ShoreStatus,
    Trouble, VesselStatus,
};

/// The whole fleet.
#[derive(Serialize)]
struct Fleet<'a> {
    at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reload: Option<&'a Reload>,
    vessels: BTreeMap<&'a str, Line<'a>>,
    directories: BTreeMap<&'a str, DirectoryLine<'a>>,
    /// The shores that use the ledger; empty if there is at most one and it is not drained.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    shores: BTreeMap<&'a str, ShoreLine<'a>>,
    errors: &'a [ErrorStatus],
    deliveries: &'a [Delivered],
    budgets: &'a [BudgetStatus],
    hooks: Vec<&'a HookStatus>,
    low_disks: Vec<&'a DiskStatus>,
    ledger: &'a str,
    ledger_bytes: u64,
}

/// A vessel.
#[derive(Serialize)]
struct Line<'a> {
    /// The vessel's position in the settings.
    order: usize,
    /// The number of the vessel's [`Rank`](super::rank::Rank): 0 is the worst; below 3, the vessel is in trouble.
    rank: u8,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
    /// Why the vessel is away or paused, or why a file for it was parked or postponed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try: Option<i64>,
    #[serde(skip_serializing_if = "is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "is_zero")]
    files: u64,
    #[serde(skip_serializing_if = "is_zero")]
    bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    put_off: u64,
    #[serde(skip_serializing_if = "is_zero")]
    parked: u64,
    #[serde(skip_serializing_if = "is_zero")]
    sending: u64,
    #[serde(skip_serializing_if = "is_zero")]
    rate: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<i64>,
    /// When the vessel's window opens; if it is open, when the window of the first directory with a closed window
    /// opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    opens: Option<i64>,
    /// The shore that serves the vessel; omitted if `shores` is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    shore: Option<&'a str>,
}

/// A shore, without the values that change with each renewal of its lease, because the page would receive them again
/// and again.
#[derive(Serialize)]
struct ShoreLine<'a> {
    holder: &'a str,
    since: i64,
    vessels: usize,
    directories: usize,
    housekeeping: bool,
    drained: bool,
    /// Whether the shore's lease has expired.
    lost: bool,
}

/// A directory.
#[derive(Serialize)]
struct DirectoryLine<'a> {
    order: usize,
    files: u64,
    bytes: u64,
    sending: u64,
    parked: u64,
    retired: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_until: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

/// Returns the fleet as JSON.
///
/// # Errors
/// Never: the values can always be written.
pub(super) fn fleet(document: &Document) -> serde_json::Result<Value> {
    let parked = |name: &str| document.parked.iter().find(|parked| parked.vessel == name);
    let vessels = document.vessels.iter().enumerate();
    let is_shared = !document.has_one_shore();
    let vessels = vessels.map(|(order, vessel)| {
        let shore = vessel.shore.as_deref().filter(|_| is_shared);
        (vessel.name.as_str(), Line { shore, ..line(order, vessel, parked(&vessel.name)) })
    });
    let directories = document.directories.iter().enumerate();
    let directories = directories.map(|(order, directory)| (directory.name.as_str(), directory_line(order, directory)));
    let shores = document.shores.iter().filter(|_| is_shared);
    serde_json::to_value(Fleet {
        at: document.at.as_millisecond(),
        release: document.daemon.as_ref().map(|daemon| daemon.release.as_str()),
        reload: document.daemon.as_ref().and_then(|daemon| daemon.reload.as_ref()),
        vessels: vessels.collect(),
        directories: directories.collect(),
        shores: shores.map(|shore| (shore.name.as_str(), shore_line(shore))).collect(),
        errors: &document.errors,
        deliveries: &document.deliveries,
        budgets: &document.budgets,
        hooks: document.hooks.iter().filter(|hook| hook.failing.is_some()).collect(),
        low_disks: document.disks.iter().filter(|disk| disk.low).collect(),
        ledger: &document.ledger.file,
        ledger_bytes: document.ledger.bytes,
    })
}

/// Returns the line of a vessel. `parked` is one of the vessel's parked files.
fn line<'a>(order: usize, vessel: &'a VesselStatus, parked: Option<&Trouble>) -> Line<'a> {
    let ms = |time: Option<Timestamp>| time.map(Timestamp::as_millisecond);
    let (link, first) = (&vessel.link, vessel.retried_first.as_ref());
    let parked = || parked.map(|one| format!("{}/{}: {}", one.directory, one.path, one.reason));
    let put_off = || first.map(|one| format!("{}/{}: {}", one.directory, one.path, one.reason));
    Line {
        order,
        rank: vessel.rank() as u8,
        state: link.state.as_str(),
        since: ms(link.since),
        reason: link.reason.clone().or_else(parked).or_else(put_off),
        next_try: ms(link.next_try.or_else(|| first.filter(|_| link.reason.is_none()).map(|first| first.next_try))),
        groups: &vessel.groups,
        files: vessel.backlog.files,
        bytes: vessel.backlog.bytes,
        put_off: vessel.put_off,
        parked: vessel.parked,
        sending: vessel.in_flight,
        rate: vessel.rate,
        eta: vessel.eta_seconds,
        oldest: ms(vessel.oldest.as_ref().map(|oldest| oldest.since)),
        last: ms(vessel.last_acknowledged),
        opens: ms(vessel.opens.or_else(|| vessel.queues.iter().find_map(|queue| queue.opens))),
        shore: None,
    }
}

fn shore_line(shore: &ShoreStatus) -> ShoreLine<'_> {
    ShoreLine {
        holder: &shore.holder,
        since: shore.since.as_millisecond(),
        vessels: shore.vessels.len(),
        directories: shore.directories.len(),
        housekeeping: shore.housekeeping,
        drained: shore.drained,
        lost: shore.lease_ms < 0,
    }
}

fn directory_line(order: usize, directory: &DirectoryStatus) -> DirectoryLine<'_> {
    let pause = directory.pause.as_ref();
    DirectoryLine {
        order,
        files: directory.waiting.files,
        bytes: directory.waiting.bytes,
        sending: directory.in_flight,
        parked: directory.parked,
        retired: directory.retired_today.files,
        trouble: directory.trouble.as_deref(),
        paused: pause.map(|pause| pause.since.as_millisecond()),
        paused_until: pause.and_then(|pause| pause.until).map(Timestamp::as_millisecond),
        note: pause.and_then(|pause| pause.note.as_deref()),
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn is_empty(list: &&[String]) -> bool {
    list.is_empty()
}
