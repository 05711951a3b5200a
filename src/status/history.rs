//! The history of one file: its versions, why they are not delivered, the next step, and the possible actions of a
//! person.

use jiff::Timestamp;
use serde::Serialize;

use super::convert::moment;
use super::delivery_report::DeliveryReport;
use super::find::Meant;
use super::on_shore::look;
use super::reporter::{MOMENT, Reporter, awaits_deletion};
use crate::ledger::{Ending, VersionHistory};
use crate::local::{self, EXPIRED, PROCESSED, PathState};
use crate::names::{RelPath, VesselName};
use crate::records::{DeliveryState, VersionKind};
use crate::settings::Directory;

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

/// Assembles the history of a file, with deliveries to the vessel `only` or to all vessels.
pub fn report(reporter: &Reporter<'_>, meant: &Meant<'_>, only: Option<&VesselName>) -> History {
    let Meant { name, directory, path, versions } = meant;
    let state = directory.and_then(|directory| look(directory, path));
    let is_gone = matches!(state, Some(Ok(PathState::Gone)));
    let (note, you_can) = match directory {
        Some(directory) => reporter.disk((directory, state), versions).unzip(),
        None => reporter.not_configured(name, versions).unzip(),
    };
    // For a directory that is not in the settings, a retry has no effect. So the deliveries list no actions; the
    // history's `you_can` lists the remedies.
    let fitting = |report: DeliveryReport| {
        if directory.is_some() { report } else { DeliveryReport { you_can: Vec::new(), ..report } }
    };
    let chapter = |history: &VersionHistory| {
        let wanted = history.deliveries.iter().filter(|delivery| only.is_none_or(|only| *only == delivery.vessel));
        Chapter {
            version: history.version.id.0,
            bytes: history.version.stamp.size,
            sha256: history.version.digest.map(|digest| digest.to_string()),
            taken_in: moment(history.admitted_at),
            fate: outcome(history, *directory, is_gone),
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

/// Returns what happened to a version, as a phrase.
fn outcome(history: &VersionHistory, directory: Option<&Directory>, is_gone: bool) -> String {
    let mirror = directory.is_some_and(Directory::is_mirror);
    match (history.ended, history.forgotten_at) {
        (Some((_, Ending::Superseded)), _) => "replaced by a newer version",
        (Some((_, Ending::Vanished)), _) => "its source disappeared before every vessel had this version",
        (Some((_, Ending::Retired)), _) => return retired(history, directory),
        (Some((_, Ending::Expired)), _) => return expired(history),
        (None, Some(_)) if history.version.kind == VersionKind::Skipped => {
            "skipped: the vessels keep the previous version until this path is deleted here"
        }
        (None, Some(_)) => "forgotten: not sent to any vessel until the file changes",
        (None, None) if history.complete && is_gone && directory.is_some_and(|one| awaits_deletion(history, one)) => {
            "deleted here, but not on the vessels yet"
        }
        (None, None) if history.complete && has_expired(history) => {
            "expired before some vessels received it; delivered to the others"
        }
        (None, None) if history.complete && mirror => "delivered everywhere",
        (None, None) if history.complete => "delivered everywhere; not retired yet",
        (None, None) => "to be delivered",
    }
    .to_owned()
}

/// Returns a phrase with the name that a retired version has below `processed/`.
fn retired(history: &VersionHistory, directory: Option<&Directory>) -> String {
    let retired = match has_expired(history) {
        true => "expired before some vessels received it; delivered to the others, and retired",
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

/// Returns a phrase that says where the source of an expired version was moved; no vessel has this version.
fn expired(history: &VersionHistory) -> String {
    let to = history.processed.as_ref().unwrap_or(&history.version.path);
    format!("expired before any vessel received it; its source was moved to {EXPIRED}/{to}")
}

/// Returns whether `processed/` contains a directory with the file's name; `false` when the disk doesn't respond.
fn is_beside_directory(directory: &Directory, path: &RelPath) -> bool {
    let (location, path) = (directory.location.clone(), path.clone());
    local::within(MOMENT, move || local::is_directory_in_processed(&location, &path)).unwrap_or(false)
}

fn has_expired(history: &VersionHistory) -> bool {
    history.deliveries.iter().any(|delivery| delivery.state == DeliveryState::Expired)
}

impl History {
    /// Returns the outstanding deliveries of the file's current version.
    pub fn open_deliveries(&self) -> impl Iterator<Item = &DeliveryReport> {
        let open = self.versions.iter().filter(|version| version.open);
        open.flat_map(|version| &version.deliveries)
            .filter(|report| report.delivered.is_none() && !matches!(report.state.as_str(), "superseded" | "expired"))
    }
}
