//! The part of the status document about the directories.

use std::collections::HashMap;

use super::document::{Amount, DirectoryPause, DirectoryStatus};
use super::live::LiveVessel;
use super::place::Place;
use super::recorded::Recorded;
use super::running::Running;
use crate::ledger::Work;
use crate::names::{DirectoryName, VesselName};

/// Returns the status of the directories in the settings, and of other directories with waiting files.
pub(super) fn directories(
    place: &Place,
    running: Option<&Running>,
    live: &HashMap<&VesselName, LiveVessel>,
    recorded: &Recorded,
    now: i64,
) -> Vec<DirectoryStatus> {
    let summary = &recorded.summary;
    let pause = |name: &DirectoryName| {
        let paused = summary.paused_directories.iter().find(|paused| paused.directory == *name)?;
        let is_over = paused.pause.until.is_some_and(|until| until <= now);
        (!is_over).then(|| DirectoryPause::from(paused))
    };
    let configured = place.directories.iter().map(|name| (name, true));
    let others = summary.directories.iter().filter(|tally| tally.waiting > 0).map(|tally| (&tally.directory, false));
    let others = others.filter(|(name, _)| !place.directories.contains(name));
    let status = |(name, configured): (&DirectoryName, bool)| {
        let tally = summary.directories.iter().find(|tally| tally.directory == *name);
        let amount = |files, bytes| Amount { files, bytes };
        let under_way = live.values().flat_map(|vessel| vessel.transfers.values());
        DirectoryStatus {
            name: name.to_string(),
            configured,
            shore: recorded.shore_of(&Work::Directory(name.clone())).map(str::to_owned),
            waiting: tally.map(|tally| amount(tally.waiting, tally.waiting_bytes)).unwrap_or_default(),
            in_flight: under_way.filter(|transfer| transfer.directory == *name).count() as u64,
            parked: summary.tallies.iter().filter(|tally| tally.directory == *name).map(|tally| tally.parked).sum(),
            expired: summary.tallies.iter().filter(|tally| tally.directory == *name).map(|tally| tally.expired).sum(),
            retired_today: tally.map(|tally| amount(tally.retired, tally.retired_bytes)).unwrap_or_default(),
            trouble: running.and_then(|running| running.trouble(name)),
            pause: pause(name),
        }
    };
    configured.chain(others).map(status).collect()
}
