//! `/api/queue` and `contentmonster queue`: the open deliveries, vessel by vessel, and for each vessel in the order in
//! which they are sent. An answer is one page with a cursor; its cost does not depend on the length of the queue.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::convert::moment;
use super::document::{Document, Held, LinkState, VesselStatus};
use super::forecast::Expected;
use super::gather::Gatherer;
use super::live::LiveVessel;
use super::queue_cursor::{Ahead, Cursor};
use super::queue_order::fingerprint;
use super::queues::Sending;
use crate::ledger::{LedgerError, QueueCursor, QueueFilter, QueueState, Queued};
use crate::names::{DirectoryName, VesselName};
use crate::records::VersionId;
use crate::settings::Priority;

/// Maximum and default number of deliveries in an answer.
const MOST: u32 = 1000;
const USUAL: u32 = 100;

/// A request for a part of the queue; also the query parameters of `/api/queue`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueQuestion {
    /// Only this vessel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vessel: Option<String>,
    /// Only this directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Only deliveries in this state: `waiting`, `held`, `sending`, `put-off` or `parked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only files whose path contains this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Maximum number of deliveries, up to 1000; default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The cursor: the `next` of the previous answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A part of the queue. Times are RFC 3339 in UTC, sizes are bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueAnswer {
    /// When the answer was made.
    pub at: Timestamp,
    /// The deliveries, vessel by vessel, and for each vessel in the order in which they are sent.
    pub deliveries: Vec<QueueEntry>,
    /// The cursor of the next part; `null` at the end of the queue. An answer before the end may be short, or even
    /// empty.
    pub next: Option<String>,
}

/// One delivery in the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// The receiving vessel.
    pub vessel: String,
    /// The file's directory.
    pub directory: String,
    /// The file; unprintable characters are escaped.
    pub path: String,
    /// The kind of entry: `file`, `directory`, `link` or `gone` (a deletion).
    pub kind: String,
    /// The file's size in bytes.
    pub bytes: u64,
    /// The state: `waiting` (for its turn), `held` (by a schedule, a budget or a link), `sending`, `put-off` (waits for
    /// a retry) or `parked`.
    pub state: String,
    /// Why the delivery is held back, and until when; `null` unless the state is `held`.
    #[serde(default)]
    pub held: Option<Held>,
    /// Number of the file's bytes that the vessel holds; `null` unless the file is being sent.
    pub taken: Option<u64>,
    /// When the file was admitted.
    pub since: Timestamp,
    /// Number of failed attempts in a row.
    pub attempts: u32,
    /// Reason of the last failure, and the remedy.
    pub reason: Option<String>,
    /// Why a file in the state `waiting` or `held` is not sent now: for example, the vessel is away or paused, the
    /// directory is paused, or a schedule, a budget or a link holds the file back. `null` if the file waits for its
    /// turn.
    #[serde(default)]
    pub hold: Option<String>,
    /// Time of the next attempt after a failure.
    pub next_try: Option<Timestamp>,
    /// Expected number of seconds until the file is sent, given the rates of the ways, the windows and the budgets;
    /// `null` if that is not known, after a failure, if the request selects deliveries by directory, state or path, and
    /// for files of a directory with an `Order` or a `Schedule`.
    pub eta_seconds: Option<u64>,
    /// The delivery's number in the ledger.
    pub delivery: i64,
    /// The version's number in the ledger, which `forget` takes.
    #[serde(default)]
    pub version: i64,
}

/// The reason why a request can't be answered.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The request is invalid.
    #[error("{0}")]
    Invalid(String),
    /// The ledger can't be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The state of the requested deliveries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    All,
    Sending,
    Held,
    InLedger(QueueState),
}

fn asked(state: Option<&str>) -> Result<Asked, QueueError> {
    Ok(match state {
        None => Asked::All,
        Some("sending") => Asked::Sending,
        Some("held") => Asked::Held,
        Some("waiting") => Asked::InLedger(QueueState::Waiting),
        Some("put-off") => Asked::InLedger(QueueState::PutOff),
        Some("parked") => Asked::InLedger(QueueState::Parked),
        Some(other) => {
            let why = format!("invalid state `{other}`; expected waiting, held, sending, put-off or parked");
            return Err(QueueError::Invalid(why));
        }
    })
}

impl Gatherer {
    /// Returns the requested part of the queue.
    ///
    /// # Errors
    /// When the request is invalid, or the ledger can't be read.
    pub async fn queue(&self, question: &QueueQuestion) -> Result<QueueAnswer, QueueError> {
        let state = asked(question.state.as_deref())?;
        let limit = question.limit.unwrap_or(USUAL).clamp(1, MOST);
        let cursor = match &question.after {
            Some(after) => {
                let invalid =
                    || QueueError::Invalid(format!("invalid cursor `{after}`; expected the `next` of an answer"));
                Some(Cursor::read(after).ok_or_else(invalid)?)
            }
            None => None,
        };
        let filter = QueueFilter {
            directory: question.directory.as_deref().map(DirectoryName::new),
            state: match state {
                Asked::InLedger(state) => Some(state),
                Asked::Held => Some(QueueState::Waiting),
                Asked::All | Asked::Sending => None,
            },
            among: None,
            versions: None,
            search: question.search.clone().filter(|text| !text.is_empty()),
        };
        let mut answer = QueueAnswer { at: moment(self.now_ms()), deliveries: Vec::new(), next: None };
        let vessels = self.vessels_with_queue(question.vessel.as_deref()).await?;
        let first = cursor.as_ref().map_or(0, |cursor| {
            vessels.iter().position(|name| name.as_str() == cursor.vessel).unwrap_or(vessels.len())
        });
        let whole = filter == QueueFilter::default() && state == Asked::All;
        let holds = self.document().await?;
        // Later pages use the windows and due times as of the request for the first page.
        let at = cursor.as_ref().map_or_else(|| self.now_ms(), |cursor| cursor.at);
        let mut missing = limit;
        for name in &vessels[first..] {
            let live = self.live(name);
            let stages = self.sending().stages(name, at);
            let order = fingerprint(&stages);
            let begin = |place, ahead| Cursor { at, order, vessel: name.to_string(), place, ahead };
            if missing == 0 {
                answer.next = Some(begin(QueueCursor::default(), Ahead::default()).write());
                break;
            }
            let here = cursor.as_ref().filter(|cursor| cursor.vessel == name.as_str());
            if here.is_some_and(|here| here.order != order && here.place != QueueCursor::default()) {
                let why = "the settings have changed since the first page of this list; request the first page again";
                return Err(QueueError::Invalid(why.to_owned()));
            }
            let held = self.held(name).await?;
            let filter = match state {
                Asked::Held if held.is_empty() => continue,
                Asked::Held => &QueueFilter { among: Some(held.keys().cloned().collect()), ..filter.clone() },
                // Only the live state shows which transfers run. Without running transfers, there is nothing to list.
                Asked::Sending if live.transfers.is_empty() => continue,
                Asked::Sending => {
                    &QueueFilter { versions: Some(live.transfers.keys().copied().collect()), ..filter.clone() }
                }
                _ => &filter,
            };
            let page = self.ledger().queue(name, &stages, filter, here.map(|here| &here.place), missing).await?;
            let ahead = here.map_or_else(Ahead::default, |here| here.ahead);
            let mut eta = if whole { self.eta(name, &live, ahead).await? } else { Eta::Unknown };
            let vessel = holds.vessels.iter().find(|vessel| vessel.name == name.as_str());
            for queued in &page.entries {
                let mut entry = entry(name, queued, (&live, &held), &mut eta);
                // The ledger may list a delivery as postponed or parked although it is running again, or as waiting
                // although it is held back.
                let is_wanted = match state {
                    Asked::InLedger(QueueState::Waiting) => entry.state == QueueState::Waiting.as_str(),
                    Asked::InLedger(_) | Asked::Held => entry.taken.is_none(),
                    Asked::All | Asked::Sending => true,
                };
                if !is_wanted {
                    continue;
                }
                if entry.held.is_some() || entry.state == QueueState::Waiting.as_str() {
                    entry.hold = hold(&holds, vessel, &entry);
                }
                missing -= 1;
                answer.deliveries.push(entry);
            }
            let ahead = eta.ahead().unwrap_or(ahead);
            if let Some(place) = page.next {
                answer.next = Some(begin(place, ahead).write());
                break;
            }
        }
        Ok(answer)
    }
}

/// Returns why a waiting delivery is not sent now; `None` if it waits for its turn.
fn hold(document: &Document, vessel: Option<&VesselStatus>, entry: &QueueEntry) -> Option<String> {
    let paused = document.directories.iter().find(|one| one.name == entry.directory).and_then(|one| one.pause.as_ref());
    if let Some(pause) = paused {
        let note = pause.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        return Some(format!("the directory is paused{note}"));
    }
    let link = &vessel?.link;
    let with_reason = |state: &str| match &link.reason {
        Some(reason) => format!("{state}: {reason}"),
        None => state.to_owned(),
    };
    match (link.state, &entry.held) {
        (LinkState::Off, _) => Some(link.when_not_running()),
        (LinkState::Paused, _) => Some(with_reason("the vessel is paused")),
        (_, Some(held)) => Some(match (held.by.as_str(), held.until) {
            ("schedule", Some(opens)) => format!("the window of its vessel or directory opens at {}", said(opens)),
            _ => held.phrase(said),
        }),
        (LinkState::Away, None) => Some(with_reason("the vessel is away")),
        (LinkState::Connecting, None) => Some("connecting to the vessel".to_owned()),
        (LinkState::Closed | LinkState::Connected | LinkState::Elsewhere, None) => None,
    }
}

fn said(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Estimates when the next delivery in the order of the queue is sent.
enum Eta {
    Unknown,
    /// All bytes ahead of the delivery are sent at one rate, in bytes per second.
    ByRate {
        rate: u64,
        ahead: Ahead,
    },
    /// Each priority has its own forecast, which takes windows and budgets into account.
    ByLevel {
        now: i64,
        levels: Vec<(Priority, Expected)>,
        orders: Arc<Sending>,
        ahead: Ahead,
    },
}

impl Eta {
    /// Adds the unsent bytes of the next delivery, a file of `directory`, and returns the expected number of seconds
    /// until they are sent.
    fn after(&mut self, directory: &DirectoryName, bytes: u64) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::ByRate { rate, ahead } => {
                ahead[Priority::default() as usize] += bytes;
                (*rate > 0).then(|| ahead[Priority::default() as usize].div_ceil(*rate))
            }
            Self::ByLevel { now, levels, orders, ahead } => {
                let level = orders.level_of(directory)?;
                ahead[level as usize] += bytes;
                let (_, expected) = levels.iter().find(|(priority, _)| *priority == level)?;
                let at = expected.sent(ahead[level as usize])?;
                Some(at.saturating_sub(*now).max(0).cast_unsigned().div_ceil(1000))
            }
        }
    }

    fn ahead(&self) -> Option<Ahead> {
        match self {
            Self::Unknown => None,
            Self::ByRate { ahead, .. } | Self::ByLevel { ahead, .. } => Some(*ahead),
        }
    }
}

impl Gatherer {
    async fn eta(&self, name: &VesselName, live: &LiveVessel, ahead: Ahead) -> Result<Eta, LedgerError> {
        let orders = self.sending();
        if orders.is_plain(name) {
            return Ok(Eta::ByRate { rate: self.rate(live), ahead });
        }
        Ok(Eta::ByLevel { now: self.now_ms(), levels: self.levels(name).await?, orders, ahead })
    }
}

/// Makes an entry, and adds its unsent bytes to the bytes ahead of the next entry.
fn entry(
    name: &VesselName,
    queued: &Queued,
    (live, held): (&LiveVessel, &HashMap<DirectoryName, Held>),
    eta: &mut Eta,
) -> QueueEntry {
    let transfers: &HashMap<VersionId, _> = &live.transfers;
    let taken = transfers.get(&queued.version).map(|transfer| transfer.taken);
    let failed = taken.is_none() && queued.failures > 0;
    let held = held.get(&queued.directory).filter(|_| taken.is_none() && !failed).cloned();
    let left = queued.size.saturating_sub(taken.unwrap_or(0));
    let state = match (&held, taken) {
        (Some(_), _) => "held",
        (None, Some(_)) => "sending",
        (None, None) => queued.state().as_str(),
    };
    QueueEntry {
        vessel: name.to_string(),
        directory: queued.directory.to_string(),
        path: queued.path.to_string(),
        kind: queued.kind.as_str().to_owned(),
        bytes: queued.size,
        state: state.to_owned(),
        held,
        taken,
        since: moment(queued.admitted_at),
        attempts: queued.failures,
        reason: queued.reason.clone(),
        hold: None,
        next_try: failed.then(|| moment(queued.position.due_at)),
        eta_seconds: if failed { None } else { eta.after(&queued.directory, left) },
        delivery: queued.position.delivery.0,
        version: queued.version.0,
    }
}
