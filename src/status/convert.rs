//! Converts records of the ledger to the parts of the document.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::document::{
    Amount, Delivered, DirectoryPause, LinkBytes, Oldest, PutOff, Reload, ServedStatus, ShoreStatus, Trouble,
};
use crate::ledger::{ShoreSeen, Work};

impl Reload {
    /// Creates the result of a reload of the settings; `at` is milliseconds since 1970.
    pub fn new(at: i64, problems: Vec<String>, needs_restart: Vec<String>) -> Self {
        Self { at: moment(at), problems, needs_restart }
    }
}

impl Amount {
    pub(super) fn add(&mut self, files: u64, bytes: u64) {
        self.files += files;
        self.bytes += bytes;
    }
}

impl From<crate::records::LinkBytes> for LinkBytes {
    fn from(bytes: crate::records::LinkBytes) -> Self {
        let crate::records::LinkBytes { sent, received, resent } = bytes;
        Self { sent, received, resent }
    }
}

impl From<&crate::ledger::Oldest> for Oldest {
    fn from(oldest: &crate::ledger::Oldest) -> Self {
        let (directory, path) = (oldest.directory.to_string(), oldest.path.to_string());
        Self { directory, path, since: moment(oldest.admitted_at) }
    }
}

impl From<&crate::ledger::Postponed> for PutOff {
    fn from(postponed: &crate::ledger::Postponed) -> Self {
        Self {
            directory: postponed.directory.to_string(),
            path: postponed.path.to_string(),
            reason: postponed.reason.clone(),
            next_try: moment(postponed.due_at),
        }
    }
}

impl From<&crate::ledger::PausedDirectory> for DirectoryPause {
    fn from(paused: &crate::ledger::PausedDirectory) -> Self {
        let crate::ledger::PausedDirectory { since, pause, .. } = paused;
        Self { since: moment(*since), until: pause.until.map(moment), note: pause.note.clone() }
    }
}

impl From<crate::ledger::Trouble> for Trouble {
    fn from(trouble: crate::ledger::Trouble) -> Self {
        Self {
            vessel: trouble.vessel.to_string(),
            directory: trouble.directory.to_string(),
            path: trouble.path.to_string(),
            reason: trouble.reason,
            next_try: moment(trouble.due_at),
            delivery: trouble.delivery.0,
        }
    }
}

impl From<crate::ledger::Receipt> for Delivered {
    fn from(receipt: crate::ledger::Receipt) -> Self {
        Self {
            vessel: receipt.vessel.to_string(),
            directory: receipt.directory.to_string(),
            path: receipt.path.to_string(),
            bytes: receipt.size,
            at: moment(receipt.acknowledged_at),
            verified: receipt.verified,
        }
    }
}

/// Converts milliseconds since 1970. A time beyond the calendar, such as the due time of a delivery that waits
/// indefinitely, becomes [`Timestamp::MAX`].
pub(super) fn moment(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

/// Returns the start of today in local time, in milliseconds since 1970.
pub(super) fn midnight(now: i64) -> i64 {
    let today = moment(now).to_zoned(TimeZone::system()).start_of_day();
    today.map_or(now, |midnight| midnight.timestamp().as_millisecond())
}

impl From<&ShoreSeen> for ShoreStatus {
    fn from(shore: &ShoreSeen) -> Self {
        let mut status = Self {
            name: shore.name.clone(),
            holder: shore.holder.clone(),
            since: moment(shore.since),
            lease_ms: shore.left,
            latency_us: shore.latency,
            drained: shore.is_drained,
            vessels: Vec::new(),
            directories: Vec::new(),
            housekeeping: false,
        };
        for (work, since) in &shore.work {
            let served = |name: &str| ServedStatus { name: name.to_owned(), since: moment(*since) };
            match work {
                Work::Vessel(name) => status.vessels.push(served(name.as_str())),
                Work::Directory(name) => status.directories.push(served(name.as_str())),
                Work::Housekeeping => status.housekeeping = true,
            }
        }
        status
    }
}
