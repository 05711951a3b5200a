//! The history of one file: its versions, why they are not delivered, the next step, and the possible actions of a
//! person.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::document::{Document, LinkState, VesselStatus};
use super::find::Meant;
use super::gather::moment;
use crate::ledger::{DeliveryStory, Ending, VersionStory};
use crate::local::{self, DiskError, EXPIRED, Found, Kind, PROCESSED, PathState, Rules};
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{DeliveryState, FileStamp, VersionKind};
use crate::settings::{Directory, Priority, Schedule, Settings};
use crate::text::{counted, duration};

/// The data from which a history is made.
pub struct Reporter<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// The current status.
    pub document: &'a Document,
    /// The program's command line, for commands that a person can type.
    pub command: &'a str,
    /// The file as the person named it, quoted for a shell.
    pub file: &'a str,
}

/// A file's history. Times are RFC 3339 in UTC, sizes are bytes.
#[derive(Clone, Debug, Serialize)]
pub struct History {
    /// The file's directory.
    pub directory: String,
    /// The file; unprintable characters are escaped.
    pub path: String,
    /// A remark on the file's current state on the shore's disk.
    pub note: Option<String>,
    /// Possible actions in the situation that `note` describes.
    pub you_can: Vec<String>,
    /// The file's versions, oldest first.
    pub versions: Vec<Chapter>,
}

/// One version of the file.
#[derive(Clone, Debug, Serialize)]
pub struct Chapter {
    /// The version's number in the ledger.
    pub version: i64,
    /// The version's size in bytes.
    pub bytes: u64,
    /// The version's SHA-256; `null` until the file has been read.
    pub sha256: Option<String>,
    /// When the version was admitted.
    pub taken_in: Timestamp,
    /// What happened to the version, as a phrase.
    pub fate: String,
    /// Whether the version is still to be delivered to a vessel.
    pub open: bool,
    /// The version's deliveries, ordered by vessel.
    pub deliveries: Vec<DeliveryReport>,
}

/// One delivery of a version.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryReport {
    /// The receiving vessel.
    pub vessel: String,
    /// The delivery's number in the ledger.
    pub delivery: i64,
    /// The delivery's progress.
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
    /// The file on the vessel that was moved or copied to make this one, as `directory/path`; `null` when it was sent.
    pub made_from: Option<String>,
    /// Bytes of the file that were written, including those written again; `null` when they were not counted.
    pub written_bytes: Option<u64>,
    /// The delivery's share of the bytes on the link in both directions; `null` when they were not counted.
    pub link_bytes: Option<u64>,
    /// Possible actions of a person.
    pub you_can: Vec<String>,
}

/// Assembles the history of a file, with deliveries to the vessel `only` or to all vessels.
pub fn report(reporter: &Reporter<'_>, meant: &Meant<'_>, only: Option<&VesselName>) -> History {
    let Meant { name, directory, path, versions } = meant;
    let state = directory.and_then(|directory| look(directory, path));
    let is_gone = matches!(state, Some(Ok(PathState::Gone)));
    let (note, you_can) = match directory {
        Some(directory) => reporter.disk((directory, state), versions).unzip(),
        None => reporter.not_configured(name, versions).unzip(),
    };
    // For a directory that is not in the settings a retry has no effect, so no actions are listed; `note` names the
    // remedy.
    let fitting =
        |fate: DeliveryReport| if directory.is_some() { fate } else { DeliveryReport { you_can: Vec::new(), ..fate } };
    let chapter = |history: &VersionStory| {
        let wanted = history.deliveries.iter().filter(|delivery| only.is_none_or(|only| *only == delivery.vessel));
        Chapter {
            version: history.version.id.0,
            bytes: history.version.stamp.size,
            sha256: history.version.digest.map(|digest| digest.to_string()),
            taken_in: moment(history.admitted_at),
            fate: fate(history, *directory, is_gone),
            open: history.ended.is_none() && !history.complete && history.forgotten_at.is_none(),
            deliveries: wanted.map(|delivery| reporter.delivery(history, delivery)).map(fitting).collect(),
        }
    };
    History {
        directory: name.to_string(),
        path: path.to_string(),
        note,
        you_can: you_can.unwrap_or_default(),
        versions: versions.iter().map(chapter).collect(),
    }
}

/// Timeout for a query to a disk.
const MOMENT: Duration = Duration::from_secs(2);

/// Returns the state of a path on the shore; `None` when the disk doesn't respond.
fn look(directory: &Directory, path: &RelPath) -> Option<Result<PathState, DiskError>> {
    let (directory, path) = (Arc::new(directory.clone()), path.clone());
    local::within(MOMENT, move || local::classify(&Rules::new(&directory), &path))
}

/// Returns whether the deletion of a version, whose source is gone, is still to be sent to the vessels of its mirror.
fn awaits_deletion(history: &VersionStory, directory: &Directory) -> bool {
    let stays = !directory.is_mirror() || !directory.delete || history.ended.is_some();
    !stays && history.version.kind != VersionKind::Gone
}

/// Returns what happened to a version, as a phrase.
fn fate(history: &VersionStory, directory: Option<&Directory>, is_gone: bool) -> String {
    let mirror = directory.is_some_and(Directory::is_mirror);
    match (history.ended, history.forgotten_at) {
        (Some((_, Ending::Superseded)), _) => "replaced by a newer version",
        (Some((_, Ending::Vanished)), _) => "its source disappeared before every vessel had this version",
        (Some((_, Ending::Retired)), _) => return retired(history, directory),
        (Some((_, Ending::Expired)), _) => return expired(history),
        (None, Some(_)) if history.version.kind == VersionKind::Skipped => {
            "skipped: the vessels keep the previous version until nothing exists at this path"
        }
        (None, Some(_)) => "forgotten: not sent to any vessel until the file changes",
        (None, None) if history.complete && is_gone && directory.is_some_and(|one| awaits_deletion(history, one)) => {
            "deleted here, but not on the vessels yet"
        }
        (None, None) if history.complete && has_expired(history) => {
            "delivered to every vessel that received it before it expired"
        }
        (None, None) if history.complete && mirror => "delivered everywhere",
        (None, None) if history.complete => "delivered everywhere; not retired yet",
        (None, None) => "to be delivered",
    }
    .to_owned()
}

/// Returns, as a phrase, under which name below `processed/` a retired version was moved.
fn retired(history: &VersionStory, directory: Option<&Directory>) -> String {
    let retired = match has_expired(history) {
        true => "delivered to every vessel that received it before it expired, and retired",
        false => "delivered everywhere and retired",
    };
    let path = &history.version.path;
    let Some(to) = &history.processed else { return retired.to_owned() };
    match directory {
        Some(directory) if is_beside_directory(directory, path) => {
            format!(
                "{retired} as {PROCESSED}/{to}, because {PROCESSED}/{path} is a directory; move that directory away"
            )
        }
        _ => format!("{retired} as {PROCESSED}/{to}"),
    }
}

/// Returns, as a phrase, where a version was moved that expired before any vessel had it.
fn expired(history: &VersionStory) -> String {
    let to = history.processed.as_ref().unwrap_or(&history.version.path);
    format!("expired before any vessel received it; its source was moved to {EXPIRED}/{to}")
}

/// Returns whether `processed/` contains a directory of the file's name; `false` when the disk doesn't respond.
fn is_beside_directory(directory: &Directory, path: &RelPath) -> bool {
    let (location, path) = (directory.location.clone(), path.clone());
    local::within(MOMENT, move || local::is_directory_in_processed(&location, &path)).unwrap_or(false)
}

fn has_expired(history: &VersionStory) -> bool {
    history.deliveries.iter().any(|delivery| delivery.state == DeliveryState::Expired)
}

fn is_open(delivery: &DeliveryStory) -> bool {
    !matches!(delivery.state, DeliveryState::Acknowledged | DeliveryState::Superseded | DeliveryState::Expired)
}

impl Reporter<'_> {
    /// Explains that a waiting file is not delivered because its directory is no longer in the settings, and lists
    /// possible actions; returns `None` when the file doesn't wait.
    fn not_configured(&self, name: &DirectoryName, versions: &[VersionStory]) -> Option<(String, Vec<String>)> {
        let waits =
            |history: &VersionStory| history.ended.is_none() && !history.complete && history.forgotten_at.is_none();
        versions.iter().any(waits).then(|| {
            let why = format!("[Directory {name}] is no longer in the settings, so its undelivered files wait");
            let file = self.settings.file.display();
            let you_can = vec![
                format!("add [Directory {name}] to {file} again, under this name"),
                format!("{} forget {}     (stop delivering this file)", self.command, self.file),
                format!(
                    "{} forget --all {}     (stop delivering all waiting files of the directory)",
                    self.command,
                    quoted(name.as_str())
                ),
            ];
            (why, you_can)
        })
    }

    /// Describes the file's state on the disk, and possible actions; returns `None` when the ledger already shows the
    /// state.
    fn disk(
        &self,
        (directory, state): (&Directory, Option<Result<PathState, DiskError>>),
        versions: &[VersionStory],
    ) -> Option<(String, Vec<String>)> {
        let current = versions.last().filter(|version| version.ended.is_none());
        let trouble = self.document.directories.iter().find(|one| one.name == directory.name.as_str());
        let trouble = trouble.and_then(|one| one.trouble.clone());
        let rules = Rules::new(&Arc::new(directory.clone()));
        let state = match state {
            Some(Ok(state)) => state,
            Some(Err(e)) => return Some((e.fault().to_string(), Vec::new())),
            None => {
                let location = directory.location.display();
                let why = format!("{location} does not answer: its file system hangs");
                return Some((why, vec!["restore its server, or unmount it (umount -l)".to_owned()]));
            }
        };
        match (state, current) {
            (PathState::Taken(found) | PathState::Directory(found), Some(current)) => {
                if found.traits.stamp == current.version.stamp {
                    trouble.filter(|_| current.complete).map(|trouble| (trouble, Vec::new()))
                } else {
                    Some(self.not_taken_in("the file changed after it was taken in", directory, found.traits.stamp))
                }
            }
            (PathState::Directory(_), None) if !rules.takes_directories() => {
                let why = "this is a directory; the files in it are delivered only with `Recursive = yes`";
                Some((why.to_owned(), Vec::new()))
            }
            (PathState::Taken(found) | PathState::Directory(found), None) => {
                Some(self.left_or_awaited(directory, &rules, &found, trouble))
            }
            (PathState::Skipped(Kind::Own), _) => {
                Some(("skipped: it is one of contentmonster's own files, which are never sent".to_owned(), Vec::new()))
            }
            (PathState::Skipped(kind @ Kind::Unreadable(_)), _) => {
                Some((format!("skipped: {}", kind.why_skipped()), Vec::new()))
            }
            (PathState::Skipped(kind), _) => {
                Some((format!("skipped: {}; only regular files are delivered", kind.why_skipped()), Vec::new()))
            }
            (PathState::Gone, Some(current)) if awaits_deletion(current, directory) => Some(match trouble {
                Some(trouble) => {
                    (format!("the source is gone; its deletion on the vessels is held back: {trouble}"), Vec::new())
                }
                None if self.document.daemon.is_none() => (
                    "the source is gone; the vessels' copies are deleted once contentmonster runs".to_owned(),
                    self.start(),
                ),
                None => ("the source is gone; the vessels' copies are about to be deleted".to_owned(), Vec::new()),
            }),
            (PathState::Gone, Some(current)) if !current.complete => Some((
                "the source is gone; the remaining deliveries are dropped once contentmonster detects this".to_owned(),
                Vec::new(),
            )),
            (PathState::Gone, _) => None,
        }
    }

    /// Explains why a file on the disk has not been admitted.
    fn left_or_awaited(
        &self,
        directory: &Directory,
        rules: &Rules,
        found: &Found,
        trouble: Option<String>,
    ) -> (String, Vec<String>) {
        let name = &directory.name;
        let stamp = found.traits.stamp;
        if !rules.may_take(&found.path) {
            let why = format!("skipped: IgnoreNames, Include, Exclude or Recursive of [Directory {name}] excludes it");
            (why, vec!["rename the file, or change these keys in the settings".to_owned()])
        } else if !rules.takes_size(stamp.size) {
            let why = format!("skipped: MinSize or MaxSize of [Directory {name}] excludes this file");
            (why, vec!["change these keys in the settings".to_owned()])
        } else if self.settings.vessels_of(name).is_empty() {
            let why = format!("skipped: no vessel takes [Directory {name}]");
            (why, vec!["remove the directory from the vessels' IgnoreDirs, or add it to their Dirs".to_owned()])
        } else if let Some(trouble) = trouble {
            (format!("not taken in yet: {trouble}"), Vec::new())
        } else {
            self.not_taken_in("not taken in yet", directory, stamp)
        }
    }

    fn not_taken_in(&self, what: &str, directory: &Directory, stamp: FileStamp) -> (String, Vec<String>) {
        if self.document.daemon.is_none() {
            return (format!("{what}: contentmonster is not running"), self.start());
        }
        let changed = Timestamp::new(stamp.mtime, 0).unwrap_or(Timestamp::MIN);
        let (changed, quiet) = (local(changed), duration(directory.settle_time));
        let why =
            format!("{what} (last change {changed}): waiting until it is closed, or has been unchanged for {quiet}");
        let advice = "finish writing the file; a file that was written elsewhere and is moved here is taken in at once";
        (why, vec![advice.to_owned()])
    }

    fn start(&self) -> Vec<String> {
        vec![format!("{}            (runs until it is stopped)", self.command), format!("{} --once", self.command)]
    }

    fn delivery(&self, history: &VersionStory, delivery: &DeliveryStory) -> DeliveryReport {
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
            written_bytes: delivery.cost.map(|cost| cost.written),
            link_bytes: delivery.cost.and_then(|cost| cost.link),
            you_can,
        }
    }

    /// Describes the state of an open delivery; returns it with the time of the next attempt and possible actions.
    fn open(&self, history: &VersionStory, delivery: &DeliveryStory) -> (String, Option<Timestamp>, Vec<String>) {
        let name = delivery.vessel.as_str();
        let Some(vessel) = self.document.vessels.iter().find(|vessel| vessel.name == name) else {
            let mend = format!("add [Vessel {name}] again, or start contentmonster, which drops the deliveries to it");
            return ("the vessel is no longer in the settings".to_owned(), None, vec![mend]);
        };
        let link = &vessel.link;
        if !matches!(link.state, LinkState::Off | LinkState::Paused)
            && let Some((now, opens)) = self.closed(history, delivery)
        {
            return (now, opens, Vec::new());
        }
        let since = link.since.map(|since| format!(" since {}", local(since))).unwrap_or_default();
        let reason = link.reason.as_deref().unwrap_or("no connection was made yet");
        match link.state {
            LinkState::Off => {
                let before = link.reason.as_ref().map(|why| format!("; when it last ran, the vessel was away: {why}"));
                let now = format!("contentmonster is not running{}", before.unwrap_or_default());
                (now, None, self.start())
            }
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
        }
    }

    /// Returns the priority of a directory for a phrase; empty if it is the default.
    fn priority(&self, name: &DirectoryName) -> String {
        let directory = self.settings.directories.iter().find(|directory| directory.name == *name);
        let priority = directory.map(|directory| directory.priority).unwrap_or_default();
        if priority == Priority::default() { String::new() } else { format!(" with priority {}", priority.as_str()) }
    }

    /// Explains that a delivery expired.
    fn expired(&self, history: &VersionStory, delivery: &DeliveryStory) -> String {
        let at = delivery.expired_at.map(|at| format!(" at {}", local(moment(at)))).unwrap_or_default();
        let directory = &history.version.directory;
        format!("expired{at}: not received within Expire of [Directory {directory}], so it is not sent any more")
    }

    /// Returns why a delivery waits although it is due: its window is closed, and when the window opens.
    fn closed(&self, history: &VersionStory, delivery: &DeliveryStory) -> Option<(String, Option<Timestamp>)> {
        let directory = self.settings.directories.iter().find(|one| one.name == history.version.directory)?;
        let vessel = self.settings.vessels.iter().find(|one| one.name == delivery.vessel)?;
        let schedules = vessel.schedules(directory);
        let now = self.document.at.as_millisecond();
        if schedules.iter().all(|schedule| schedule.is_open(now)) {
            return None;
        }
        let of = match vessel.own_schedule(directory.priority).is_some_and(|schedule| !schedule.is_open(now)) {
            true => format!("[Vessel {}]", vessel.name),
            false => format!("[Directory {}]", directory.name),
        };
        let opens = Schedule::next_open(&schedules, now).map(moment);
        let when = opens.map_or("never".to_owned(), local);
        Some((format!("waits for the Schedule of {of}; its window opens at {when}"), opens))
    }

    fn connected(
        &self,
        history: &VersionStory,
        delivery: &DeliveryStory,
        vessel: &VesselStatus,
    ) -> (String, Option<Timestamp>, Vec<String>) {
        let version = &history.version;
        let place = (version.directory.as_str(), version.path.to_string());
        let transfer = vessel.transfers.iter().find(|t| (t.directory.as_str(), &t.path) == (place.0, &place.1));
        if let Some(transfer) = transfer {
            let now = format!("under way: {} of {} bytes, {}", transfer.taken, transfer.bytes, delivery.state.as_str());
            return (now, None, Vec::new());
        }
        let due = moment(delivery.due_at);
        // A delivery that has not failed only waits for its turn, whatever its due time.
        if delivery.reason.is_none() && (delivery.failures == 0 || due <= self.document.at) {
            let queue = counted(vessel.backlog.files, "file");
            let now = format!("queued{}; {queue} in the queue for this vessel", self.priority(&version.directory));
            return (now, None, Vec::new());
        }
        let word = if delivery.parked { "parked" } else { "waits for a retry" };
        let reason = delivery.reason.as_deref().unwrap_or("the last attempt failed");
        let retry =
            format!("{} retry {} --vessel {}     (at once)", self.command, self.file, quoted(vessel.name.as_str()));
        let forget = format!("{} forget {}     (keep the file here, undelivered)", self.command, self.file);
        (format!("{word}: {reason}"), Some(due), vec![retry, forget])
    }
}

/// Explains why a delivery was superseded.
fn ended(history: &VersionStory) -> String {
    match (history.ended, history.forgotten_at) {
        (Some((_, Ending::Superseded)), _) => "not needed: a newer version replaced this one",
        (Some(_), _) => "not needed: the source of the file disappeared",
        (None, Some(_)) => "not needed: the file was forgotten",
        (None, None) => "not needed: this directory is no longer sent to the vessel",
    }
    .to_owned()
}

/// Formats a time in the local time zone.
fn local(moment: Timestamp) -> String {
    moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl History {
    /// Returns the outstanding deliveries of the file's current version.
    pub fn open_deliveries(&self) -> impl Iterator<Item = &DeliveryReport> {
        let open = self.versions.iter().filter(|version| version.open);
        open.flat_map(|version| &version.deliveries)
            .filter(|fate| fate.delivered.is_none() && !matches!(fate.state.as_str(), "superseded" | "expired"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        assert_eq!((quoted("a-b"), quoted("a b"), quoted("it's")), ("a-b".into(), "'a b'".into(), r"'it'\''s'".into()));
    }
}
