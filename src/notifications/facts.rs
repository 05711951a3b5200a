//! Converts an event to environment variables and to JSON.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::ledger::Notice;
use crate::local::PROCESSED;
use crate::records::{EventKind, VersionKind};
use crate::settings::{KeepProcessed, Settings};

/// An event and the paths of its file.
pub(super) struct Facts<'a> {
    notice: &'a Notice,
    /// The file's path on the shore; `None` when the file no longer exists or its directory is not in the settings.
    local_path: Option<PathBuf>,
    /// The file's path on the vessel; `None` when the event concerns all vessels, or the vessel or the directory is not
    /// in the settings.
    remote_path: Option<Vec<u8>>,
}

/// An event as JSON. Fields may be added without a new version of the format.
#[derive(Serialize)]
pub(super) struct EventJson {
    id: i64,
    event: &'static str,
    time: Timestamp,
    directory: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    local_path: Option<String>,
    vessel: Option<String>,
    remote_path: Option<String>,
    kind: &'static str,
    size: u64,
    sha256: Option<String>,
    reason: Option<String>,
}

impl<'a> Facts<'a> {
    /// Collects the data of an event, with paths according to these settings.
    pub(super) fn of(notice: &'a Notice, settings: &Settings) -> Self {
        let version = &notice.version;
        let directory = settings.directories.iter().find(|directory| directory.name == version.directory);
        let local_path = directory.and_then(|directory| {
            let location = &directory.location;
            match (notice.kind, directory.keep_processed) {
                (EventKind::Retired, KeepProcessed::No) => None,
                (EventKind::Retired, _) => {
                    let name = notice.processed.as_ref().unwrap_or(&version.path);
                    Some(location.join(PROCESSED).join(name.as_path()))
                }
                _ if version.kind == VersionKind::Gone => None,
                _ => Some(location.join(version.path.as_path())),
            }
        });
        let vessel =
            notice.vessel.as_ref().and_then(|name| settings.vessels.iter().find(|vessel| vessel.name == *name));
        let remote_path = vessel
            .zip(directory)
            .map(|(vessel, directory)| vessel.destination(directory, &version.path).as_bytes().to_vec());
        Self { notice, local_path, remote_path }
    }

    /// Returns the environment variables for the command, without those that have no value for this event.
    pub(super) fn variables(&self) -> Vec<(&'static str, OsString)> {
        let version = &self.notice.version;
        let text = |text: &str| Some(OsString::from(text.replace('\0', "")));
        let all = [
            ("CONTENTMONSTER_EVENT", text(self.notice.kind.as_str())),
            ("CONTENTMONSTER_ID", text(&self.notice.id.0.to_string())),
            ("CONTENTMONSTER_TIME", text(&self.time().to_string())),
            ("CONTENTMONSTER_DIRECTORY", text(version.directory.as_str())),
            ("CONTENTMONSTER_PATH", Some(OsString::from_vec(version.path.as_bytes().to_vec()))),
            ("CONTENTMONSTER_LOCAL_PATH", self.local_path.clone().map(PathBuf::into_os_string)),
            ("CONTENTMONSTER_VESSEL", self.notice.vessel.as_ref().and_then(|vessel| text(vessel.as_str()))),
            ("CONTENTMONSTER_REMOTE_PATH", self.remote_path.clone().map(OsString::from_vec)),
            ("CONTENTMONSTER_KIND", text(version.kind.as_str())),
            ("CONTENTMONSTER_SIZE", text(&version.stamp.size.to_string())),
            ("CONTENTMONSTER_SHA256", version.digest.and_then(|digest| text(&digest.to_string()))),
            ("CONTENTMONSTER_REASON", self.notice.reason.as_deref().and_then(text)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Returns the data as JSON. JSON holds text only, so invalid UTF-8 is replaced, and `path_hex` then holds the
    /// exact path.
    pub(super) fn json(&self) -> EventJson {
        let version = &self.notice.version;
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let path = version.path.as_bytes();
        EventJson {
            id: self.notice.id.0,
            event: self.notice.kind.as_str(),
            time: self.time(),
            directory: version.directory.to_string(),
            path: lossy(path),
            path_hex: std::str::from_utf8(path)
                .is_err()
                .then(|| path.iter().map(|byte| format!("{byte:02x}")).collect()),
            local_path: self.local_path.as_ref().map(|path| lossy(path.as_os_str().as_bytes())),
            vessel: self.notice.vessel.as_ref().map(ToString::to_string),
            remote_path: self.remote_path.as_deref().map(lossy),
            kind: version.kind.as_str(),
            size: version.stamp.size,
            sha256: version.digest.map(|digest| digest.to_string()),
            reason: self.notice.reason.clone(),
        }
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_millisecond(self.notice.at).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}
