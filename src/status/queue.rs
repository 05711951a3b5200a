//! `/api/queue` and `contentmonster queue`: the open deliveries, vessel by vessel, each vessel's in the order in which
//! they are sent. An answer is a page with a cursor, and costs the same however long the queue is.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::gather::{Gatherer, moment};
use super::live::LiveVessel;
use crate::ledger::{LedgerError, QueueFilter, QueuePosition, QueueState, Queued};
use crate::names::{DirectoryName, VesselName};
use crate::records::{DeliveryId, VersionId};

/// Maximum number of deliveries in an answer, and their number without `limit`.
const MOST: u32 = 1000;
const USUAL: u32 = 100;

/// A question for a part of the queue; also the query of `/api/queue`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueQuestion {
    /// Only this vessel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vessel: Option<String>,
    /// Only this directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Only deliveries in this state: `waiting`, `sending`, `put-off` or `parked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only files whose path contains this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Maximum number of deliveries, up to 1000; default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next` of the answer before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A part of the queue. Times are RFC 3339 in UTC, sizes are bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueAnswer {
    /// When the answer was made.
    pub at: Timestamp,
    /// The deliveries, vessel by vessel, each vessel's in the order in which they are due.
    pub deliveries: Vec<QueueEntry>,
    /// The cursor of the next part; `null` at the end of the queue. An answer may be short, even empty, before the end.
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
    /// `waiting`, `sending`, `put-off` or `parked`.
    pub state: String,
    /// Number of the file's bytes that the vessel holds; `null` unless it is being sent.
    pub taken: Option<u64>,
    /// When the file was admitted.
    pub since: Timestamp,
    /// Number of failed attempts in a row.
    pub attempts: u32,
    /// Reason of the last failure, and the remedy.
    pub reason: Option<String>,
    /// Time of the next attempt after a failure.
    pub next_try: Option<Timestamp>,
    /// Seconds until the file is sent at the vessel's current rate; `null` when there is no rate, after a failure, and
    /// when only a part of the queue was asked for.
    pub eta_seconds: Option<u64>,
    /// The delivery's number in the ledger.
    pub delivery: i64,
}

/// The reason why a question can't be answered.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The question is invalid.
    #[error("{0}")]
    Invalid(String),
    /// The ledger can't be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The state that a question asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    All,
    Sending,
    InLedger(QueueState),
}

fn asked(state: Option<&str>) -> Result<Asked, QueueError> {
    Ok(match state {
        None => Asked::All,
        Some("sending") => Asked::Sending,
        Some("waiting") => Asked::InLedger(QueueState::Waiting),
        Some("put-off") => Asked::InLedger(QueueState::PutOff),
        Some("parked") => Asked::InLedger(QueueState::Parked),
        Some(other) => {
            let why = format!("invalid state `{other}`; expected waiting, sending, put-off or parked");
            return Err(QueueError::Invalid(why));
        }
    })
}

/// A cursor: the vessel, the place in its queue, and the bytes of its deliveries before that place.
struct Cursor {
    vessel: String,
    position: Option<QueuePosition>,
    ahead: u64,
}

impl Cursor {
    fn write(&self) -> String {
        let (due_at, id) = self.position.map_or((String::new(), String::new()), |position| {
            (position.due_at.to_string(), position.delivery.0.to_string())
        });
        // The name comes last, because it may contain any character.
        format!("{due_at}.{id}.{}.{}", self.ahead, self.vessel)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '.');
        let (due_at, id) = (parts.next()?, parts.next()?);
        let (ahead, vessel) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
        let position = match (due_at, id) {
            ("", "") => None,
            (due_at, id) => {
                Some(QueuePosition { due_at: due_at.parse().ok()?, delivery: DeliveryId(id.parse().ok()?) })
            }
        };
        Some(Self { vessel, position, ahead })
    }
}

impl Gatherer {
    /// Returns the part of the queue that a question asks for.
    ///
    /// # Errors
    /// When the question is invalid, or the ledger can't be read.
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
                _ => None,
            },
            versions: None,
            search: question.search.clone().filter(|text| !text.is_empty()),
        };
        let mut answer = QueueAnswer { at: moment(self.now_ms()), deliveries: Vec::new(), next: None };
        let vessels = self.vessels_with_queue(question.vessel.as_deref()).await?;
        let first = cursor.as_ref().map_or(0, |cursor| {
            vessels.iter().position(|name| name.as_str() == cursor.vessel).unwrap_or(vessels.len())
        });
        let whole = filter == QueueFilter::default() && state == Asked::All;
        for name in &vessels[first..] {
            let live = self.live(name);
            let here = cursor.as_ref().filter(|cursor| cursor.vessel == name.as_str());
            let (mut after, mut ahead) = here.map_or((None, 0), |cursor| (cursor.position, cursor.ahead));
            let room = limit - u32::try_from(answer.deliveries.len()).unwrap_or(limit);
            if room == 0 {
                answer.next = Some(Cursor { vessel: name.to_string(), position: None, ahead: 0 }.write());
                break;
            }
            let filter = match state {
                // Only the running program knows what it sends.
                Asked::Sending if live.transfers.is_empty() => continue,
                Asked::Sending => {
                    &QueueFilter { versions: Some(live.transfers.keys().copied().collect()), ..filter.clone() }
                }
                _ => &filter,
            };
            let page = self.ledger().queue(name, filter, after, room).await?;
            after = page.next;
            let rate = if whole { self.rate(&live) } else { 0 };
            for queued in &page.entries {
                let entry = entry(name, queued, &live, rate, &mut ahead);
                // What the ledger calls put off may be on its way again.
                if !matches!(state, Asked::InLedger(_)) || entry.taken.is_none() {
                    answer.deliveries.push(entry);
                }
            }
            if after.is_some() {
                answer.next = Some(Cursor { vessel: name.to_string(), position: after, ahead }.write());
                break;
            }
        }
        Ok(answer)
    }
}

/// Makes an entry, and adds its bytes to those ahead of the next one.
fn entry(name: &VesselName, queued: &Queued, live: &LiveVessel, rate: u64, ahead: &mut u64) -> QueueEntry {
    let transfers: &HashMap<VersionId, _> = &live.transfers;
    let taken = transfers.get(&queued.version).map(|transfer| transfer.taken);
    let failed = taken.is_none() && queued.failures > 0;
    if !failed {
        *ahead += queued.size.saturating_sub(taken.unwrap_or(0));
    }
    QueueEntry {
        vessel: name.to_string(),
        directory: queued.directory.to_string(),
        path: queued.path.to_string(),
        kind: queued.kind.as_str().to_owned(),
        bytes: queued.size,
        state: if taken.is_some() { "sending" } else { queued.state().as_str() }.to_owned(),
        taken,
        since: moment(queued.admitted_at),
        attempts: queued.failures,
        reason: queued.reason.clone(),
        next_try: failed.then(|| moment(queued.position.due_at)),
        eta_seconds: (!failed && rate > 0).then(|| ahead.div_ceil(rate.max(1))),
        delivery: queued.position.delivery.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_whatever_the_vessel_is_called() {
        let position = Some(QueuePosition { due_at: -5, delivery: DeliveryId(7) });
        for (vessel, position) in [("tern", position), ("a.b..c d/é", position), ("tern", None)] {
            let cursor = Cursor { vessel: vessel.to_owned(), position, ahead: 12 };
            let read = Cursor::read(&cursor.write()).unwrap();
            assert_eq!((read.vessel.as_str(), read.position, read.ahead), (vessel, position, 12));
        }
        for bad in ["", "1", "1.2.3", "x.2.3.tern", "1..3.tern", "1.2.-3.tern"] {
            assert!(Cursor::read(bad).is_none(), "{bad}");
        }
    }
}
