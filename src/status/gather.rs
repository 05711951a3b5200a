//! Assembles the status document from the ledger and the live state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::{Mutex, watch};

use super::document::{
    Amount, Daemon, Delivered, DirectoryStatus, DiskStatus, Document, ErrorStatus, FORM, LedgerStatus, Link, LinkBytes,
    LinkState, Oldest, PutOff, Reload, Transfer, Trouble, VesselStatus,
};
use super::live::{Live, LiveLink, LiveTransfer, LiveVessel};
use super::queues::{Sending, opens};
use super::routes::Routes;
use crate::clock::Clock;
use crate::ledger::{LedgerError, LedgerView, Summary};
use crate::local::{Room, Rooms};
use crate::names::{DirectoryName, VesselName};
use crate::records::UtcDay;
use crate::settings::Settings;
use crate::shore::Troubles;
use crate::transport::LinkMeters;

/// Maximum lengths of the lists `parked`, `deliveries` and `transfers` in the document.
const PARKED: u32 = 50;
const DELIVERIES: u32 = 20;
const TRANSFERS: usize = 10;
/// Time in milliseconds for which a measured rate of a path is shown.
const A_DAY: i64 = 24 * 60 * 60 * 1000;
/// How long a document is reused, so that many clients cost no more than one.
const FRESH: Duration = Duration::from_millis(300);

/// The names and paths that a document covers.
#[derive(Clone, Debug)]
pub struct Place {
    /// The vessels, in the order of the settings.
    pub vessels: Vec<VesselName>,
    /// The groups of each vessel.
    pub groups: HashMap<VesselName, Vec<String>>,
    /// The directories, in the order of the settings.
    pub directories: Vec<DirectoryName>,
    /// The path of the ledger's file.
    pub database: PathBuf,
    /// A path on the ledger's disk, then one on the disk of each directory.
    pub disks: Vec<PathBuf>,
    /// `MinFree`, in bytes.
    pub min_free: u64,
    /// Priorities, schedules and rate limits.
    pub(super) sending: Arc<Sending>,
    /// The ways to vessels that have several, or a link, and their budgets.
    pub routes: Routes,
}

impl Place {
    /// Takes the names and paths from the settings.
    pub fn of(settings: &Settings) -> Self {
        Self {
            vessels: settings.vessels.iter().map(|vessel| vessel.name.clone()).collect(),
            groups: settings.vessels.iter().map(|vessel| (vessel.name.clone(), vessel.groups.clone())).collect(),
            directories: settings.directories.iter().map(|directory| directory.name.clone()).collect(),
            database: settings.monster.database.clone(),
            disks: disks(settings),
            min_free: settings.monster.min_free,
            sending: Arc::new(Sending::of(settings)),
            routes: Routes::of(settings),
        }
    }
}

fn disks(settings: &Settings) -> Vec<PathBuf> {
    let ledger = settings.monster.database.parent().map(Path::to_owned);
    ledger.into_iter().chain(settings.directories.iter().map(|directory| directory.location.clone())).collect()
}

/// The running program's contribution to a document.
struct Running {
    live: Arc<Live>,
    meters: LinkMeters,
    taken_in: Vec<watch::Receiver<bool>>,
    troubles: HashMap<DirectoryName, watch::Receiver<Troubles>>,
    reload: Option<Reload>,
}

impl Running {
    fn trouble(&self, name: &DirectoryName) -> Option<String> {
        let troubles = self.troubles.get(name)?.borrow();
        (!troubles.is_empty()).then(|| troubles.to_string())
    }
}

/// An assembler of status documents.
pub struct Gatherer {
    place: Place,
    ledger: LedgerView,
    clock: Clock,
    rooms: Rooms,
    running: Option<Running>,
    last: Mutex<Option<(Instant, Arc<Document>)>>,
}

impl Gatherer {
    /// Creates a gatherer for commands without a running program: its documents come from the ledger alone.
    pub fn idle(place: Place, ledger: LedgerView, clock: Clock) -> Self {
        Self { place, ledger, clock, rooms: Rooms::default(), running: None, last: Mutex::new(None) }
    }

    /// Uses the free space that other modules have already queried.
    #[must_use]
    pub fn with_rooms(self, rooms: Rooms) -> Self {
        Self { rooms, ..self }
    }

    /// Adds the state of the running program. `meters` count the bytes on the link, `taken_in` holds for each directory whether all files present at the
    /// start are in the ledger, `troubles` why a directory can't be used, `reload` the result of the last reload of the
    /// settings.
    pub fn running(
        self,
        live: Arc<Live>,
        meters: LinkMeters,
        taken_in: Vec<watch::Receiver<bool>>,
        troubles: HashMap<DirectoryName, watch::Receiver<Troubles>>,
        reload: Option<Reload>,
    ) -> Self {
        Self { running: Some(Running { live, meters, taken_in, troubles, reload }), ..self }
    }

    /// Returns the last document if it is younger than [`FRESH`], otherwise a new one.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub async fn document(&self) -> Result<Arc<Document>, LedgerError> {
        let mut last = self.last.lock().await;
        if let Some((at, document)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(document.clone());
        }
        let document = Arc::new(self.gather().await?);
        *last = Some((Instant::now(), document.clone()));
        Ok(document)
    }

    /// Drops the last document, so that the next one shows the effects of an order.
    pub async fn refresh(&self) {
        *self.last.lock().await = None;
    }

    /// Returns the bytes sent to each vessel in each of the last seconds, oldest first. The lists of all vessels end
    /// with the same second.
    pub fn throughput(&self) -> BTreeMap<String, Vec<u64>> {
        let Some(running) = &self.running else { return BTreeMap::new() };
        let now = running.live.second();
        let history = |name: &VesselName| (name.to_string(), running.live.vessel(name).meter.history(now));
        self.place.vessels.iter().map(history).collect()
    }

    /// Returns the time of day in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Returns the ledger.
    pub(super) fn ledger(&self) -> &LedgerView {
        &self.ledger
    }

    /// Returns the live state of a vessel; an idle one when the program doesn't run.
    pub(super) fn live(&self, name: &VesselName) -> LiveVessel {
        self.running.as_ref().map(|running| running.live.vessel(name)).unwrap_or_default()
    }

    /// Returns the current rate of sending to a vessel in bytes per second.
    pub(super) fn rate(&self, vessel: &LiveVessel) -> u64 {
        self.running.as_ref().map_or(0, |running| vessel.meter.rate(running.live.second()))
    }

    /// Returns the vessels that have a queue, or `only` this one: those of the settings in their order, then others.
    pub(super) async fn vessels_with_queue(&self, only: Option<&str>) -> Result<Vec<VesselName>, LedgerError> {
        if let Some(only) = only {
            return Ok(vec![VesselName::new(only)]);
        }
        let summary = self.ledger.summary(0).await?;
        let waiting: HashSet<&VesselName> =
            summary.tallies.iter().filter(|tally| tally.waiting > 0).map(|tally| &tally.vessel).collect();
        let configured = self.place.vessels.iter().filter(|name| waiting.contains(name));
        let mut others: Vec<&VesselName> =
            waiting.iter().copied().filter(|name| !self.place.vessels.contains(name)).collect();
        others.sort();
        Ok(configured.chain(others).cloned().collect())
    }

    async fn gather(&self) -> Result<Document, LedgerError> {
        let now = self.clock.now_ms();
        let summary = self.ledger.summary(midnight(now)).await?;
        let (parked, receipts) = (self.ledger.troubles(PARKED).await?, self.ledger.last_receipts(DELIVERIES).await?);
        let today = UtcDay::at(now);
        let link_today: HashMap<_, _> = self.ledger.link_bytes(today..=today).await?.into_iter().collect();
        let live: HashMap<&VesselName, LiveVessel> = match &self.running {
            Some(running) => self.place.vessels.iter().map(|name| (name, running.live.vessel(name))).collect(),
            None => HashMap::new(),
        };
        let spent = self.place.routes.spent(&self.ledger, now).await?;
        let vessel = |name| VesselStatus {
            link_bytes_today: link_today.get(name).copied().map(LinkBytes::from),
            link_bytes_month: spent.vessel(name).map(LinkBytes::from),
            ways: self.place.routes.ways(name, &spent, live.get(name).and_then(|live| live.link.way())),
            ..self.vessel(name, live.get(name), &summary, now)
        };
        Ok(Document {
            version: FORM,
            at: moment(now),
            daemon: self.running.as_ref().map(Running::daemon),
            vessels: self.place.vessels.iter().map(vessel).collect(),
            directories: self.directories(&live, &summary),
            parked: parked.into_iter().map(Trouble::from).collect(),
            deliveries: receipts.into_iter().map(Delivered::from).collect(),
            errors: self.running.as_ref().map(Running::errors).unwrap_or_default(),
            budgets: self.place.routes.budgets(&spent, now),
            ledger: LedgerStatus {
                file: self.place.database.display().to_string(),
                bytes: summary.ledger_bytes,
                free_bytes: summary.ledger_free_bytes,
            },
            disks: self.disks().await,
        })
    }

    /// Returns the disks whose free space can be queried. Others are omitted; their errors are reported elsewhere.
    async fn disks(&self) -> Vec<DiskStatus> {
        let (places, min_free) = (&self.place.disks, self.place.min_free);
        let mut seen = HashSet::new();
        let found = places.iter().zip(self.rooms.at(places).await);
        let found = found.filter_map(|(place, room)| Some((place, room?))).filter(|(_, room)| seen.insert(room.disk));
        let status = |(place, room): (&PathBuf, Room)| DiskStatus {
            path: place.display().to_string(),
            free_bytes: room.free,
            low: room.free < min_free,
        };
        found.map(status).collect()
    }

    fn vessel(&self, name: &VesselName, live: Option<&LiveVessel>, summary: &Summary, at: i64) -> VesselStatus {
        let (idle, sending) = (LiveVessel::default(), &self.place.sending);
        let now = live.unwrap_or(&idle);
        let mut status = VesselStatus {
            name: name.to_string(),
            link: link(name, live, summary, self.clock.now_ms()),
            backlog: Amount::default(),
            parked: 0,
            expired: 0,
            opens: sending.vessel(name).and_then(|vessel| opens(&[&vessel.schedule], at)),
            queues: sending.queues(name, &summary.tallies, at),
            carries: None,
            put_off: 0,
            retried_first: summary.postponed.iter().find(|one| one.vessel == *name).map(PutOff::from),
            groups: self.place.groups.get(name).cloned().unwrap_or_default(),
            oldest: summary.oldest.iter().find(|oldest| oldest.vessel == *name).map(Oldest::from),
            in_flight: now.transfers.len() as u64,
            in_flight_bytes: now.transfers.values().map(|transfer| transfer.taken).sum(),
            transfers: transfers(now),
            rate: self.running.as_ref().map_or(0, |running| now.meter.rate(running.live.second())),
            eta_seconds: None,
            acknowledged: Amount::default(),
            last_acknowledged: None,
            sent_bytes: now.sent,
            saved_bytes: now.saved,
            link_bytes: self.running.as_ref().and_then(|running| running.meters.sum(name)).map(LinkBytes::from),
            link_bytes_today: None,
            link_bytes_month: None,
            ways: Vec::new(),
            errors: now.errors.iter().map(|(cause, count)| (cause.as_str().to_owned(), *count)).collect(),
            took: now.took.clone(),
        };
        if status.link.state == LinkState::Closed {
            status.link.next_try = status.opens;
        }
        let mut last = None;
        for tally in summary.tallies.iter().filter(|tally| tally.vessel == *name) {
            status.backlog.add(tally.waiting, tally.waiting_bytes);
            status.acknowledged.add(tally.acknowledged, tally.acknowledged_bytes);
            status.parked += tally.parked;
            status.expired += tally.expired;
            status.put_off += tally.postponed;
            last = last.max(tally.acknowledged_at);
        }
        status.last_acknowledged = last.map(moment);
        let left = status.backlog.bytes.saturating_sub(status.in_flight_bytes);
        let path = summary.notes.iter().find(|note| note.vessel == *name).and_then(|note| note.path);
        let measured = path.filter(|(measured, _)| (0..A_DAY).contains(&(at - measured))).map(|(_, rate)| rate);
        let carries = Some(status.rate).filter(|rate| *rate > 0).or(measured);
        status.carries = carries.into_iter().chain(sending.rate_limit(name, at)).min();
        status.eta_seconds = (status.rate > 0 && left > 0).then(|| left.div_ceil(status.rate));
        status
    }

    fn directories(&self, live: &HashMap<&VesselName, LiveVessel>, summary: &Summary) -> Vec<DirectoryStatus> {
        let configured = self.place.directories.iter().map(|name| (name, true));
        let others =
            summary.directories.iter().filter(|tally| tally.waiting > 0).map(|tally| (&tally.directory, false));
        let others = others.filter(|(name, _)| !self.place.directories.contains(name));
        let status = |(name, configured): (&DirectoryName, bool)| {
            let tally = summary.directories.iter().find(|tally| tally.directory == *name);
            let amount = |files, bytes| Amount { files, bytes };
            let under_way = live.values().flat_map(|vessel| vessel.transfers.values());
            DirectoryStatus {
                name: name.to_string(),
                configured,
                waiting: tally.map(|tally| amount(tally.waiting, tally.waiting_bytes)).unwrap_or_default(),
                in_flight: under_way.filter(|transfer| transfer.directory == *name).count() as u64,
                parked: summary.tallies.iter().filter(|tally| tally.directory == *name).map(|tally| tally.parked).sum(),
                expired: summary
                    .tallies
                    .iter()
                    .filter(|tally| tally.directory == *name)
                    .map(|tally| tally.expired)
                    .sum(),
                retired_today: tally.map(|tally| amount(tally.retired, tally.retired_bytes)).unwrap_or_default(),
                trouble: self.running.as_ref().and_then(|running| running.trouble(name)),
            }
        };
        configured.chain(others).map(status).collect()
    }
}

impl Running {
    fn daemon(&self) -> Daemon {
        Daemon {
            release: crate::VERSION.to_owned(),
            started: moment(self.live.started()),
            ready: self.taken_in.iter().all(|taken_in| *taken_in.borrow()),
            reload: self.reload.clone(),
        }
    }

    fn errors(&self) -> Vec<ErrorStatus> {
        let status = |error: super::live::LiveError| ErrorStatus {
            at: moment(error.at),
            vessel: error.vessel.map(|vessel| vessel.to_string()),
            file: error.file,
            kind: error.cause.as_str().to_owned(),
            reason: error.reason,
        };
        self.live.errors().into_iter().map(status).collect()
    }
}

/// Returns the connection state of a vessel. Only the ledger knows whether a vessel is paused; the other states come
/// from the running program.
fn link(name: &VesselName, live: Option<&LiveVessel>, summary: &Summary, now: i64) -> Link {
    let note = summary.notes.iter().find(|note| note.vessel == *name);
    let is_over = |until: Option<i64>| until.is_some_and(|until| until <= now);
    if let Some((paused_at, note)) =
        note.and_then(|note| Some((note.paused_at?, note))).filter(|(_, note)| !is_over(note.paused_until))
    {
        let (since, until) = (Some(moment(paused_at)), note.paused_until.map(moment));
        return Link { state: LinkState::Paused, since, reason: note.pause_note.clone(), next_try: until };
    }
    let (state, since, reason, next_try) = match live.map(|live| &live.link) {
        None => {
            let away = note.and_then(|note| note.away.clone());
            let (since, reason) = away.unzip();
            (LinkState::Off, since, reason, None)
        }
        Some(LiveLink::Connecting) => (LinkState::Connecting, None, None, None),
        Some(LiveLink::Connected { since, .. }) => (LinkState::Connected, Some(*since), None, None),
        Some(LiveLink::Closed { since }) => (LinkState::Closed, Some(*since), None, None),
        Some(LiveLink::Away { since, reason, next_try }) => {
            (LinkState::Away, Some(*since), Some(reason.clone()), *next_try)
        }
    };
    Link { state, since: since.map(moment), reason, next_try: next_try.map(moment) }
}

fn transfers(vessel: &LiveVessel) -> Vec<Transfer> {
    let mut largest: Vec<&LiveTransfer> = vessel.transfers.values().collect();
    largest.sort_by(|a, b| (b.bytes, &a.path).cmp(&(a.bytes, &b.path)));
    let shown = |transfer: &LiveTransfer| Transfer {
        directory: transfer.directory.to_string(),
        path: transfer.path.to_string(),
        bytes: transfer.bytes,
        taken: transfer.taken,
        since: moment(transfer.since),
    };
    largest.into_iter().take(TRANSFERS).map(shown).collect()
}

impl Reload {
    /// Creates the result of a reload of the settings; `at` is milliseconds since 1970.
    pub fn new(at: i64, problems: Vec<String>, needs_restart: Vec<String>) -> Self {
        Self { at: moment(at), problems, needs_restart }
    }
}

impl Amount {
    fn add(&mut self, files: u64, bytes: u64) {
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

/// Converts milliseconds since 1970. A time beyond the calendar, such as that of a delivery that waits without end,
/// becomes [`Timestamp::MAX`].
pub(super) fn moment(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

/// Returns the start of today in local time, in milliseconds since 1970.
fn midnight(now: i64) -> i64 {
    let today = moment(now).to_zoned(TimeZone::system()).start_of_day();
    today.map_or(now, |midnight| midnight.timestamp().as_millisecond())
}
