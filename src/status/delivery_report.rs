//! The part of a file's history that concerns one delivery: where it is, why it waits, and what a person can do.

use jiff::Timestamp;
use serde::Serialize;

use super::convert::moment;
use super::document::{LinkState, QueueStatus, VesselStatus};
use super::reporter::{Reporter, local, quoted};
use crate::ledger::{DeliveryHistory, Ending, VersionHistory};
use crate::names::DirectoryName;
use crate::records::DeliveryState;
use crate::settings::Priority;
use crate::text::counted;

/// One delivery of a version.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryReport {
    /// The receiving vessel.
    pub vessel: String,
    /// The delivery's number in the ledger.
    pub delivery: i64,
    /// The delivery's state in the ledger, as one word.
    pub state: String,
    /// The delivery's current state as a phrase.
    pub now: String,
    /// Number of consecutive failures.
    pub failures: u32,
    /// Reason of the last failure, and the remedy.
    pub last_error: Option<String>,
    /// Time of the next attempt; `null` when none is scheduled.
    pub next_try: Option<Timestamp>,
    /// When the delivery was acknowledged.
    pub delivered: Option<Timestamp>,
    /// How the vessel's copy was verified.
    pub verified: Option<String>,
    /// The file on the vessel that was moved, or from which the whole content or some blocks were copied, as
    /// `directory/path`; `null` when the whole file was sent.
    pub made_from: Option<String>,
    /// Number of bytes that were moved or copied from `made_from`; `null` when there were none, or when an
    /// older version of the program recorded the delivery.
    pub saved_bytes: Option<u64>,
    /// Bytes of the file that were written, including those written again; `null` when they were not counted.
    pub written_bytes: Option<u64>,
    /// The delivery's share of the bytes on the link in both directions; `null` when they were not counted.
    pub link_bytes: Option<u64>,
    /// Possible actions of a person.
    pub you_can: Vec<String>,
}

fn is_open(delivery: &DeliveryHistory) -> bool {
    !matches!(delivery.state, DeliveryState::Acknowledged | DeliveryState::Superseded | DeliveryState::Expired)
}

impl Reporter<'_> {
    pub(super) fn delivery(&self, history: &VersionHistory, delivery: &DeliveryHistory) -> DeliveryReport {
        let (now, next_try, you_can) = match delivery.state {
            DeliveryState::Acknowledged => ("delivered".to_owned(), None, Vec::new()),
            DeliveryState::Superseded => (ended(history), None, Vec::new()),
            DeliveryState::Expired => (self.expired(history, delivery), None, Vec::new()),
            _ => self.open(history, delivery),
        };
        DeliveryReport {
            vessel: delivery.vessel.to_string(),
            delivery: delivery.id.0,
            state: delivery.state.as_str().to_owned(),
            now,
            failures: delivery.failures,
            last_error: delivery.reason.clone().filter(|_| is_open(delivery)),
            next_try,
            delivered: delivery.acknowledged.as_ref().map(|(at, _)| moment(*at)),
            verified: delivery.acknowledged.as_ref().map(|(_, how)| how.clone()),
            made_from: delivery.made_from.clone(),
            saved_bytes: delivery.saved_bytes,
            written_bytes: delivery.cost.map(|cost| cost.written),
            link_bytes: delivery.cost.and_then(|cost| cost.link),
            you_can,
        }
    }

    /// Returns the state of an open delivery as a phrase, the time of the next attempt, and possible actions.
    fn open(&self, history: &VersionHistory, delivery: &DeliveryHistory) -> (String, Option<Timestamp>, Vec<String>) {
        let name = delivery.vessel.as_str();
        let Some(vessel) = self.document.vessels.iter().find(|vessel| vessel.name == name) else {
            let mend = format!("add [Vessel {name}] again, or start contentmonster to drop the deliveries to it");
            return ("the vessel is no longer in the settings".to_owned(), None, vec![mend]);
        };
        let link = &vessel.link;
        if let Some((now, until)) = self.paused_directory(&history.version.directory) {
            let you_can =
                vec![format!("{} resume --directory {}", self.command, quoted(history.version.directory.as_str()))];
            return (now, until, you_can);
        }
        let may_go = !delivery.parked && delivery.failures == 0;
        let is_mine = |queue: &QueueStatus| queue.directory == history.version.directory.as_str();
        let is_out_of_window = vessel.queues.iter().any(|queue| queue.opens.is_some() && is_mine(queue));
        let is_served = link.state == LinkState::Connected && may_go || is_out_of_window;
        if !matches!(link.state, LinkState::Off | LinkState::Paused)
            && is_served
            && let Some((now, opens)) = held(history, vessel)
        {
            return (now, opens, Vec::new());
        }
        let since = link.since.map(|since| format!(" since {}", local(since))).unwrap_or_default();
        let reason = link.reason.as_deref().unwrap_or("no connection was made yet");
        match link.state {
            LinkState::Off => (link.when_not_running(), None, self.start()),
            LinkState::Paused => {
                let until = link.next_try.map(|until| format!(" until {}", local(until))).unwrap_or_default();
                let note = link.reason.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
                let now = format!("the vessel is paused{since}{until}{note}");
                (now, None, vec![format!("{} resume {}", self.command, quoted(name))])
            }
            LinkState::Away => {
                let now = format!("the vessel is away{since}: {reason}");
                (now, link.next_try, vec![format!("{} retry --vessel {}     (at once)", self.command, quoted(name))])
            }
            LinkState::Connecting | LinkState::Closed => ("connecting to the vessel".to_owned(), None, Vec::new()),
            LinkState::Connected => self.connected(history, delivery, vessel),
            LinkState::Elsewhere => {
                let shore = vessel.shore.as_deref().unwrap_or_default();
                (format!("the shore {shore} serves the vessel; run `why` on that host for details"), None, Vec::new())
            }
        }
    }

    /// If a directory is paused, returns a phrase that says so, and the end of the pause.
    fn paused_directory(&self, name: &DirectoryName) -> Option<(String, Option<Timestamp>)> {
        let directory = self.document.directories.iter().find(|one| one.name == name.as_str())?;
        let pause = directory.pause.as_ref()?;
        let until = pause.until.map(|until| format!(" until {}", local(until))).unwrap_or_default();
        let note = pause.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        Some((format!("[Directory {name}] is paused since {}{until}{note}", local(pause.since)), pause.until))
    }

    /// Explains what a due delivery waits for: a failed file of its directory that is retried first, files with a
    /// higher priority, or the files before it in its queue.
    fn turn(&self, name: &DirectoryName, vessel: &VesselStatus) -> String {
        let held = vessel.retried_first.as_ref().filter(|first| first.directory == name.as_str());
        if let Some(first) = held {
            return format!(
                "waits: another file of {name} failed and is retried first: {}/{}: {}",
                first.directory, first.path, first.reason
            );
        }
        let own = vessel.queues.iter().position(|queue| queue.directory == name.as_str());
        let before = own.map_or(&[][..], |own| &vessel.queues[..own]);
        let mine = own.map(|own| vessel.queues[own].priority.as_str());
        let higher = before.iter().filter(|queue| queue.held.is_none() && Some(queue.priority.as_str()) != mine);
        let (names, files) = higher.fold((Vec::new(), 0), |(mut names, files), queue| {
            names.push(format!("{} ({})", queue.directory, queue.priority));
            (names, files + queue.waiting.files)
        });
        let queue = counted(vessel.backlog.files, "file");
        let of = self.priority(name);
        match files {
            0 => format!("queued{of}; {queue} in the queue for this vessel"),
            _ => format!(
                "queued{of} behind {} with a higher priority: {}; {queue} in the queue for this vessel",
                counted(files, "file"),
                names.join(", ")
            ),
        }
    }

    /// Returns the priority of a directory as a part of a phrase; empty for the default priority.
    fn priority(&self, name: &DirectoryName) -> String {
        let directory = self.settings.directories.iter().find(|directory| directory.name == *name);
        let priority = directory.map(|directory| directory.priority).unwrap_or_default();
        if priority == Priority::default() { String::new() } else { format!(" with priority {}", priority.as_str()) }
    }

    /// Explains that a delivery expired.
    fn expired(&self, history: &VersionHistory, delivery: &DeliveryHistory) -> String {
        let at = delivery.expired_at.map(|at| format!(" at {}", local(moment(at)))).unwrap_or_default();
        let directory = &history.version.directory;
        format!("expired{at}: not received within Expire of [Directory {directory}], so it is not sent any more")
    }

    fn connected(
        &self,
        history: &VersionHistory,
        delivery: &DeliveryHistory,
        vessel: &VesselStatus,
    ) -> (String, Option<Timestamp>, Vec<String>) {
        let version = &history.version;
        let place = (version.directory.as_str(), version.path.to_string());
        let transfer = vessel.transfers.iter().find(|t| (t.directory.as_str(), &t.path) == (place.0, &place.1));
        if let Some(transfer) = transfer {
            let now =
                format!("in progress: {} of {} bytes, {}", transfer.taken, transfer.bytes, delivery.state.as_str());
            return (now, None, Vec::new());
        }
        let due = moment(delivery.due_at);
        // A delivery that has not failed waits only for its turn, even if its due time is later.
        if delivery.reason.is_none() && (delivery.failures == 0 || due <= self.document.at) {
            return (self.turn(&version.directory, vessel), None, Vec::new());
        }
        let word = if delivery.parked { "parked" } else { "waits for a retry" };
        let reason = delivery.reason.as_deref().unwrap_or("the last attempt failed");
        let retry =
            format!("{} retry {} --vessel {}     (at once)", self.command, self.file, quoted(vessel.name.as_str()));
        let forget = format!("{} forget {}     (keep the file here, undelivered)", self.command, self.file);
        (format!("{word}: {reason}"), Some(due), vec![retry, forget])
    }
}

/// Returns why a delivery waits although it is due, and until when: a schedule, a budget or a link holds it back.
fn held(history: &VersionHistory, vessel: &VesselStatus) -> Option<(String, Option<Timestamp>)> {
    let queue = vessel.queues.iter().find(|queue| queue.directory == history.version.directory.as_str())?;
    let held = queue.held.as_ref()?;
    let now = match (&queue.opens, held.until) {
        (Some(_), Some(opens)) => {
            let of = held.why.trim_start_matches("the Schedule of ").trim_end_matches(" is closed");
            format!("waits for the Schedule of {of}; its window opens at {}", local(opens))
        }
        _ => format!("waits: {}", held.phrase(local)),
    };
    Some((now, held.until))
}

/// Explains why a delivery was superseded.
fn ended(history: &VersionHistory) -> String {
    match (history.ended, history.forgotten_at) {
        (Some((_, Ending::Superseded)), _) => "not needed: a newer version replaced this one",
        (Some(_), _) => "not needed: the source of the file disappeared",
        (None, Some(_)) => "not needed: the file was forgotten",
        (None, None) => "not needed: this directory is no longer sent to the vessel",
    }
    .to_owned()
}
