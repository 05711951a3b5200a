//! The live state that the workflows report: connections, transfers, rates, errors. It is kept in memory only.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Histogram;
use super::meter::{Meter, RecentRate};
use crate::clock::Clock;
use crate::fault::Cause;
use crate::monitor::{Event, Monitor};
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{Version, VersionId, VersionKind};

/// Maximum number of kept errors.
const ERRORS: usize = 20;

/// The current state of all vessels, updated by the workflows' events.
pub struct Live {
    clock: Clock,
    started: i64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    vessels: HashMap<VesselName, LiveVessel>,
    errors: VecDeque<LiveError>,
}

/// An error that a workflow reported. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub(super) struct LiveError {
    pub(super) at: i64,
    pub(super) vessel: Option<VesselName>,
    pub(super) file: Option<String>,
    pub(super) cause: Cause,
    pub(super) reason: String,
}

/// The current state of a vessel. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub(super) struct LiveVessel {
    pub(super) link: LiveLink,
    pub(super) transfers: HashMap<VersionId, LiveTransfer>,
    pub(super) meter: Meter,
    /// The recent rate of each way.
    recent: HashMap<Option<String>, RecentRate>,
    pub(super) sent: u64,
    pub(super) saved: u64,
    pub(super) errors: BTreeMap<Cause, u64>,
    pub(super) took: Histogram,
    pub(super) done: Done,
    /// The errors since data was last sent: the time of the first and the reason of the latest. If a vessel's
    /// connections succeed and then fail again at once, the vessel counts as away since the first of these errors.
    trouble: Option<(i64, String)>,
}

/// The numbers of deliveries that a vessel acknowledged since the program started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Number of files.
    pub files: u64,
    /// Total size of the files in bytes.
    pub bytes: u64,
    /// Number of directories and links.
    pub others: u64,
    /// Number of deleted paths.
    pub deletions: u64,
}

impl Done {
    fn count(&mut self, kind: VersionKind, bytes: u64) {
        match kind {
            VersionKind::File => (self.files, self.bytes) = (self.files + 1, self.bytes + bytes),
            VersionKind::Directory | VersionKind::Link => self.others += 1,
            VersionKind::Gone => self.deletions += 1,
            VersionKind::Skipped => {}
        }
    }
}

/// The state of a vessel's connection.
#[derive(Clone, Debug, Default)]
pub(super) enum LiveLink {
    #[default]
    Connecting,
    Connected {
        since: i64,
        /// The way in use, and why it was chosen; `None` if the vessel has only one.
        way: Option<(String, String)>,
    },
    Closed {
        since: i64,
    },
    Away {
        since: i64,
        reason: String,
        next_try: Option<i64>,
    },
}

impl LiveLink {
    /// Returns the way in use, and why it was chosen; `None` if the vessel has only one, or is not connected.
    pub(super) fn way(&self) -> Option<(&str, &str)> {
        match self {
            Self::Connected { way: Some((way, why)), .. } => Some((way, why)),
            Self::Connected { way: None, .. } | Self::Connecting | Self::Closed { .. } | Self::Away { .. } => None,
        }
    }
}

/// A delivery in progress.
#[derive(Clone, Debug)]
pub(super) struct LiveTransfer {
    pub(super) directory: DirectoryName,
    pub(super) path: RelPath,
    pub(super) bytes: u64,
    pub(super) taken: u64,
    pub(super) since: i64,
}

impl Live {
    /// Creates an empty state of a program that starts now.
    pub fn new(clock: Clock) -> Self {
        Self { started: clock.now_ms(), clock, state: Mutex::default() }
    }

    /// Returns when the program started, in milliseconds since 1970.
    pub(super) fn started(&self) -> i64 {
        self.started
    }

    /// Removes a vessel that is no longer served.
    pub fn forget(&self, name: &VesselName) {
        let mut state = self.state();
        state.vessels.remove(name);
        state.errors.retain(|error| error.vessel.as_ref() != Some(name));
    }

    /// Resets the connection state of a vessel whose tasks are restarted.
    pub fn connecting(&self, name: &VesselName) {
        self.state().on(name, |vessel| {
            vessel.transfers.clear();
            (vessel.link, vessel.trouble) = (LiveLink::Connecting, None);
        });
    }

    /// Returns whether a vessel can't be served for now.
    pub fn is_away(&self, name: &VesselName) -> bool {
        self.state().vessels.get(name).is_some_and(|vessel| matches!(vessel.link, LiveLink::Away { .. }))
    }

    /// Returns the numbers of deliveries that a vessel acknowledged since the program started.
    pub fn done(&self, name: &VesselName) -> Done {
        self.state().vessels.get(name).map(|vessel| vessel.done).unwrap_or_default()
    }

    /// Returns the current state of a vessel.
    pub(super) fn vessel(&self, name: &VesselName) -> LiveVessel {
        self.state().vessels.get(name).cloned().unwrap_or_default()
    }

    /// Returns the number of whole seconds since the program started, by which the meters count.
    pub(super) fn second(&self) -> u64 {
        u64::try_from(self.clock.now_ms().saturating_sub(self.started) / 1000).unwrap_or(0)
    }

    /// Returns the latest errors, newest first.
    pub(super) fn errors(&self) -> Vec<LiveError> {
        self.state().errors.iter().rev().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for LiveVessel {
    fn default() -> Self {
        Self {
            link: LiveLink::default(),
            transfers: HashMap::new(),
            meter: Meter::default(),
            recent: HashMap::new(),
            sent: 0,
            saved: 0,
            errors: BTreeMap::new(),
            took: Histogram::new(),
            done: Done::default(),
            trouble: None,
        }
    }
}

impl LiveVessel {
    /// Returns when the recent rate of a way was measured, in milliseconds since 1970, and the rate in bytes per
    /// second. See [`RecentRate`].
    pub(super) fn recent_rate(&self, way: Option<&str>) -> Option<(i64, u64)> {
        let recent = self.recent.iter().find(|(name, _)| name.as_deref() == way).map(|(_, recent)| recent)?;
        (recent.rate >= 1.0).then_some((recent.at, recent.rate as u64))
    }

    fn connected(&mut self, now: i64, way: Option<(&str, &str)>) {
        self.transfers.clear();
        let way = way.map(|(way, why)| (way.to_owned(), why.to_owned()));
        self.link = LiveLink::Connected { since: now, way };
    }

    fn closed(&mut self, now: i64) {
        self.transfers.clear();
        (self.link, self.trouble) = (LiveLink::Closed { since: now }, None);
    }

    fn away(&mut self, now: i64, reason: &str, again_in: Option<Duration>) {
        self.transfers.clear();
        let since = self.trouble.take().map_or(now, |(since, _)| since);
        self.trouble = Some((since, reason.to_owned()));
        let next_try = again_in.map(|wait| now + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 2));
        self.link = LiveLink::Away { since, reason: reason.to_owned(), next_try };
    }

    fn started(&mut self, now: i64, version: &Version) {
        let transfer = LiveTransfer {
            directory: version.directory.clone(),
            path: version.path.clone(),
            bytes: version.stamp.size,
            taken: 0,
            since: now,
        };
        self.transfers.insert(version.id, transfer);
    }

    fn taken(&mut self, (now, second): (i64, u64), version: VersionId, bytes: u64, found: bool) {
        // A damaged chunk is sent again, so the sum of the sent bytes may exceed the file's size.
        if let Some(transfer) = self.transfers.get_mut(&version) {
            transfer.taken = transfer.taken.saturating_add(bytes).min(transfer.bytes);
        }
        if !found {
            self.trouble = None;
            self.sent += bytes;
            self.meter.add(second, bytes);
            let is_more_to_send = self.transfers.get(&version).is_some_and(|transfer| transfer.taken < transfer.bytes);
            let way = self.link.way().map(|(way, _)| way.to_owned());
            self.recent.entry(way).or_default().add((now, second), bytes, is_more_to_send);
        }
    }
}

impl State {
    fn on(&mut self, vessel: &VesselName, act: impl FnOnce(&mut LiveVessel)) {
        // `entry` would clone the name for every block of data that is sent.
        match self.vessels.get_mut(vessel) {
            Some(known) => act(known),
            None => act(self.vessels.entry(vessel.clone()).or_default()),
        }
    }

    fn remember(&mut self, error: LiveError) {
        if let Some(vessel) = &error.vessel {
            self.on(vessel, |vessel| *vessel.errors.entry(error.cause).or_default() += 1);
        }
        // A repeated error stays one entry, with the time of its latest occurrence.
        let same = |known: &LiveError| (&known.vessel, &known.file) == (&error.vessel, &error.file);
        self.errors.retain(|known| !(same(known) && known.cause == error.cause));
        if self.errors.len() >= ERRORS {
            self.errors.pop_front();
        }
        self.errors.push_back(error);
    }
}

impl Monitor for Live {
    fn notice(&self, event: &Event<'_>) {
        let (now, second) = (self.clock.now_ms(), self.second());
        let mut state = self.state();
        match event {
            Event::Connected { vessel, way } => state.on(vessel, |vessel| vessel.connected(now, *way)),
            Event::Closed { vessel } => state.on(vessel, |vessel| vessel.closed(now)),
            Event::Away { vessel, reason, cause, again_in } => {
                state.on(vessel, |vessel| vessel.away(now, reason, *again_in));
                let vessel = Some((*vessel).clone());
                state.remember(LiveError { at: now, vessel, file: None, cause: *cause, reason: (*reason).to_owned() });
            }
            Event::Started { vessel, version } => state.on(vessel, |vessel| vessel.started(now, version)),
            Event::Taken { vessel, version, bytes, found } => {
                state.on(vessel, |vessel| vessel.taken((now, second), *version, *bytes, *found));
            }
            Event::Saved { vessel, bytes } => state.on(vessel, |vessel| vessel.saved += bytes),
            Event::Ended { vessel, version } => state.on(vessel, |vessel| drop(vessel.transfers.remove(version))),
            Event::Delivered { vessel, kind, bytes, took, .. } => state.on(vessel, |vessel| {
                vessel.took.count(*took);
                kind.iter().for_each(|kind| vessel.done.count(*kind, *bytes));
            }),
            Event::PutOff { vessel, directory, path, reason, cause, .. } => {
                let (vessel, file) = (Some((*vessel).clone()), Some(format!("{directory}/{path}")));
                state.remember(LiveError { at: now, vessel, file, cause: *cause, reason: (*reason).to_owned() });
            }
            Event::DirectoryAway { directory, reason } => {
                let (file, reason) = (Some(directory.to_string()), (*reason).to_owned());
                state.remember(LiveError { at: now, vessel: None, file, cause: Cause::Source, reason });
            }
            Event::Owed { .. } | Event::Retired { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::records::{Entry, FileStamp, VersionKind};

    struct Stage {
        seconds: Arc<AtomicU64>,
        live: Live,
        vessel: VesselName,
    }

    fn stage() -> Stage {
        let seconds = Arc::new(AtomicU64::new(0));
        let hands = seconds.clone();
        let clock = Clock::from_fn(move || UNIX_EPOCH + Duration::from_secs(hands.load(Ordering::Relaxed)));
        Stage { seconds, live: Live::new(clock), vessel: VesselName::new("tern") }
    }

    fn version(size: u64) -> Version {
        let entry = Entry {
            path: RelPath::new("a").unwrap(),
            stamp: FileStamp { size, mtime: 0, mtime_nanos: 0, inode: 1 },
            kind: VersionKind::File,
            mode: 0o644,
            owner: None,
            target: Vec::new(),
            digest: None,
            chunk_size: 100,
        };
        Version { id: VersionId(7), directory: DirectoryName::new("docs"), entry }
    }

    impl Stage {
        fn away(&self, reason: &str) {
            let again_in = Some(Duration::from_secs(5));
            self.live.notice(&Event::Away { vessel: &self.vessel, reason, cause: Cause::Space, again_in });
        }

        fn connected(&self) {
            self.live.notice(&Event::Connected { vessel: &self.vessel, way: None });
        }

        fn taken(&self, bytes: u64, found: bool) {
            self.live.notice(&Event::Taken { vessel: &self.vessel, version: VersionId(7), bytes, found });
        }

        fn now(&self) -> LiveVessel {
            self.live.vessel(&self.vessel)
        }

        fn forward(&self, seconds: u64) {
            self.seconds.fetch_add(seconds, Ordering::Relaxed);
        }

        fn away_since(&self) -> Option<i64> {
            match self.now().link {
                LiveLink::Away { since, .. } => Some(since),
                _ => None,
            }
        }
    }

    #[test]
    fn what_fails_again_and_again_right_after_connecting_has_been_away_all_the_time() {
        let stage = stage();
        stage.away("full");
        stage.forward(5);
        stage.connected();
        assert_eq!(stage.away_since(), None);
        stage.away("full");
        assert_eq!(stage.away_since(), Some(0));
        stage.connected();
        stage.taken(1, false);
        stage.away("full");
        assert_eq!(stage.away_since(), Some(5000));
        assert_eq!((stage.now().errors[&Cause::Space], stage.live.errors().len()), (3, 1));
    }

    #[test]
    fn a_transfer_counts_what_was_found_but_its_rate_does_not() {
        let stage = stage();
        stage.connected();
        stage.live.notice(&Event::Started { vessel: &stage.vessel, version: &version(100) });
        stage.taken(40, true);
        stage.taken(50, false);
        stage.forward(1);
        let now = stage.now();
        assert_eq!((now.transfers[&VersionId(7)].taken, now.sent, now.meter.rate(stage.live.second())), (90, 50, 50));
        stage.taken(50, false);
        assert_eq!(stage.now().transfers[&VersionId(7)].taken, 100);
        stage.live.notice(&Event::Ended { vessel: &stage.vessel, version: VersionId(7) });
        assert!(stage.now().transfers.is_empty());
    }
}
