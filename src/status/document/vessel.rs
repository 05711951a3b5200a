//! The part of the status document about one vessel.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Amount;
use crate::status::Histogram;
use crate::status::speed::Speed;

/// The status of one vessel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VesselStatus {
    /// The vessel's name in the settings.
    pub name: String,
    /// The vessel's connection.
    pub link: Link,
    /// The shore that serves the vessel; `null` if the ledger is a file, or no shore serves it.
    #[serde(default)]
    pub shore: Option<String>,
    /// Files that the vessel lacks, including those being sent, with their whole sizes.
    pub backlog: Amount,
    /// Number of parked deliveries.
    pub parked: u64,
    /// Number of deliveries that expired since the ledger was created.
    #[serde(default)]
    pub expired: u64,
    /// When the vessel's window opens; `null` while it is open.
    #[serde(default)]
    pub opens: Option<Timestamp>,
    /// The directories with files for the vessel, in the order in which they are sent.
    #[serde(default)]
    pub queues: Vec<QueueStatus>,
    /// The rate of the path to the vessel, in bytes per second, as measured now or within the last 24 h, but at most
    /// the rate limit that applies now. If the rate was not measured, this limit, or `null` without a limit.
    #[serde(default)]
    pub carries: Option<u64>,
    /// Number of deliveries that failed and wait for the next attempt, without the parked ones.
    #[serde(default)]
    pub put_off: u64,
    /// The delivery, among those counted by `put_off`, that is retried first, with the reason of its last failure.
    #[serde(default)]
    pub retried_first: Option<PutOff>,
    /// The groups of the vessel, in the order of the settings.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The file that has waited longest for the vessel.
    pub oldest: Option<Oldest>,
    /// Number of deliveries in progress.
    pub in_flight: u64,
    /// Number of bytes of the deliveries in progress that the vessel already holds.
    pub in_flight_bytes: u64,
    /// The largest deliveries in progress, at most 10.
    pub transfers: Vec<Transfer>,
    /// Current rate of sending to the vessel in bytes per second.
    pub rate: u64,
    /// Expected number of seconds until the backlog is sent, given the rates of the ways, the windows and the budgets;
    /// `null` when there is no backlog, or when the time is not known.
    pub eta_seconds: Option<u64>,
    /// Why `eta_seconds` is not known although there is a backlog; otherwise `null`.
    #[serde(default)]
    pub eta_unknown: Option<String>,
    /// Files that the vessel acknowledged since the ledger was created.
    pub acknowledged: Amount,
    /// Time of the last acknowledgement.
    pub last_acknowledged: Option<Timestamp>,
    /// Bytes of files sent to the vessel since the program started, including repeated bytes.
    pub sent_bytes: u64,
    /// Bytes of files that the vessel moved or copied, instead of receiving them, since the program started.
    #[serde(default)]
    pub saved_bytes: u64,
    /// Bytes on the link to the vessel since the program started; `null` when none were counted, as with
    /// `Transport = local`.
    #[serde(default)]
    pub link_bytes: Option<LinkBytes>,
    /// Bytes on the link to the vessel today (UTC), as recorded in the ledger; `null` when there were none. They are
    /// recorded up to 65 s late.
    #[serde(default)]
    pub link_bytes_today: Option<LinkBytes>,
    /// Bytes on the link to the vessel this month, in UTC, as recorded in the ledger; `null` when there were none.
    #[serde(default)]
    pub link_bytes_month: Option<LinkBytes>,
    /// The ways to the vessel, the preferred one first; empty if the vessel has only one address and no link.
    #[serde(default)]
    pub ways: Vec<WayStatus>,
    /// The rate to the vessel, and what limits it; `null` when the program does not run.
    #[serde(default)]
    pub speed: Option<Speed>,
    /// Numbers of errors since the program started, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Durations of deliveries since the program started, in seconds.
    pub took: Histogram,
}

/// The files of one directory that wait for a vessel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// The directory.
    pub directory: String,
    /// The directory's `Priority`.
    pub priority: String,
    /// The directory's `Order`.
    pub order: String,
    /// Files of the directory that the vessel lacks, including those being sent, with their whole sizes.
    pub waiting: Amount,
    /// When the windows of the vessel and of the directory are next open at the same time; `null` while both are open.
    pub opens: Option<Timestamp>,
    /// Why the directory's files may not be sent now; `null` if they may.
    #[serde(default)]
    pub held: Option<Held>,
    /// When the first of the waiting bytes is expected to be sent if the vessel is reached and no more files come,
    /// given the rates of the ways, the windows and the budgets; `null` if that is not known, or more than 31 days
    /// away.
    #[serde(default)]
    pub begins: Option<Timestamp>,
    /// When the last of these bytes is expected to be sent; see `begins`.
    #[serde(default)]
    pub ends: Option<Timestamp>,
}

/// One of the ways to a vessel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WayStatus {
    /// The name of the link, or the address.
    pub name: String,
    /// Whether the connection to the vessel uses this way.
    pub carries: bool,
    /// Why this way is used, and not a better one; `null` if it is not used.
    pub why: Option<String>,
    /// Bytes on this way to the vessel today, in both directions, as recorded in the ledger.
    pub bytes_today: u64,
    /// Bytes on this way this month. Days and months are those of UTC.
    pub bytes_month: u64,
    /// The cost of the bytes today, in units of the currency.
    pub cost_today: f64,
    /// The cost of the bytes this month.
    pub cost_month: f64,
    /// The currency of the costs; it may be empty.
    pub currency: String,
}

/// Why files that are due may not be sent now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What holds the files back: `schedule`, `budget` or `link`.
    pub by: String,
    /// The reason, as text for people.
    pub why: String,
    /// From when on the files may be sent; `null` if that is not known.
    pub until: Option<Timestamp>,
}

/// Bytes that the connections to a vessel put on the link, headers included (an estimate: see the chapter on operating
/// in the book).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkBytes {
    /// Bytes sent to the vessel, including `resent`.
    pub sent: u64,
    /// Bytes received from the vessel.
    pub received: u64,
    /// Bytes that TCP sent again because they were lost.
    pub resent: u64,
}

/// The state of a vessel's connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The state of the connection.
    pub state: LinkState,
    /// Since when the connection is in this state.
    pub since: Option<Timestamp>,
    /// Why the vessel is away, and the remedy; for a paused vessel, the note of the person who paused it.
    pub reason: Option<String>,
    /// Time of the next attempt to connect; for a paused vessel, the time at which it is resumed.
    pub next_try: Option<Timestamp>,
}

impl Link {
    /// Returns the reason to show while the program does not run: this fact and, if known, why the vessel was away.
    pub(in crate::status) fn when_not_running(&self) -> String {
        let before = self.reason.as_ref().map(|why| format!("; when it last ran, the vessel was away: {why}"));
        format!("contentmonster is not running{}", before.unwrap_or_default())
    }
}

/// The state of a vessel's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// The vessel is connected and is being served.
    Connected,
    /// The first connection is being made.
    Connecting,
    /// The vessel can't be served for now.
    Away,
    /// The vessel's window is closed, so there is no connection to it.
    Closed,
    /// A person paused the vessel; it is not served until the pause ends.
    Paused,
    /// The program doesn't run.
    Off,
    /// Another shore serves the vessel.
    Elsewhere,
}

impl LinkState {
    /// Returns the state as a word, as in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Connecting => "connecting",
            Self::Away => "away",
            Self::Closed => "closed",
            Self::Paused => "paused",
            Self::Off => "off",
            Self::Elsewhere => "elsewhere",
        }
    }

    /// Returns why no file is sent to the vessel, if the state is the reason.
    pub fn why_not_sending(self) -> Option<&'static str> {
        Some(match self {
            Self::Connected => return None,
            Self::Connecting => "the vessel is being connected",
            Self::Away => "the vessel is away",
            Self::Closed => "the vessel's window is closed",
            Self::Paused => "the vessel is paused",
            Self::Off => "contentmonster is not running",
            Self::Elsewhere => "another shore serves the vessel",
        })
    }
}

/// The file that has waited longest for a vessel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Oldest {
    /// The file's directory.
    pub directory: String,
    /// The file; unprintable characters are escaped.
    pub path: String,
    /// When the file was admitted.
    pub since: Timestamp,
}

/// A delivery that failed and waits for the next attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PutOff {
    /// The file's directory.
    pub directory: String,
    /// The file; unprintable characters are escaped.
    pub path: String,
    /// The reason of the last failure, and the remedy.
    pub reason: String,
    /// Time of the next attempt to deliver the file.
    pub next_try: Timestamp,
}

/// A delivery in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// The file's directory.
    pub directory: String,
    /// The file; unprintable characters are escaped.
    pub path: String,
    /// The file's size in bytes.
    pub bytes: u64,
    /// Number of the file's bytes that the vessel holds.
    pub taken: u64,
    /// Start of the current attempt.
    pub since: Timestamp,
}
