//! Assembles the status document from the ledger and the live state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};

use super::convert::moment;
use super::cpu::CpuMeter;
use super::document::{
    Amount, Daemon, Delivered, DirectoryPause, DirectoryStatus, DiskStatus, Document, ErrorStatus, FORM, Held,
    HookStatus, LedgerStatus, Link, LinkBytes, LinkState, Oldest, PutOff, Reload, ShoreStatus, Transfer, Trouble,
    VesselStatus,
};
use super::forecast::Expected;
use super::holds::opens;
use super::live::{Live, LiveLink, LiveTransfer, LiveVessel};
use super::log_lines::{LogLine, LogLines};
use super::place::Place;
use super::queues::{Outlook, Sending};
use super::recorded::Recorded;
use super::routes::Budgets;
use super::speed::{Known, Speed, speed};
use super::trouble_times::TroubleTimes;
use crate::clock::Clock;
use crate::ledger::{LedgerError, LedgerView, Summary, Work};
use crate::link::LinkUsage;
use crate::local::{Room, Rooms};
use crate::names::{DirectoryName, VesselName};
use crate::notifications::{HookResults, Hooks};
use crate::settings::{Priority, Way};
use crate::shore::{Concern, Troubles};
use crate::transport::LinkMeters;

/// Maximum length of the list `transfers` in the document.
const TRANSFERS: usize = 10;
/// Time in milliseconds for which a measured rate of a path is shown.
const A_DAY: i64 = 24 * 60 * 60 * 1000;
/// How long a document is reused, so that many clients cost no more than one.
const FRESH: Duration = Duration::from_millis(300);

/// The running program's contribution to a document.
pub struct Running {
    /// The state that the workflows report.
    pub live: Arc<Live>,
    /// The bytes on the link.
    pub meters: LinkMeters,
    /// The sums of the bytes on the link by day.
    pub usage: LinkUsage,
    /// For each directory, whether all files present at the start are in the ledger.
    pub taken_in: Vec<watch::Receiver<bool>>,
    /// Why a directory can't be used.
    pub troubles: HashMap<DirectoryName, watch::Receiver<Troubles>>,
    /// The result of the last reload of the settings.
    pub reload: Option<Reload>,
    /// The results of commands, webhooks and heartbeats.
    pub hooks: Hooks,
    /// The last lines of the log.
    pub log: LogLines,
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
    /// What was read from the ledger last.
    recorded: Mutex<Option<Arc<Recorded>>>,
    cpu: CpuMeter,
    trouble_times: TroubleTimes,
}

impl Gatherer {
    /// Creates a gatherer for commands without a running program: its documents come from the ledger alone.
    pub fn idle(place: Place, ledger: LedgerView, clock: Clock) -> Self {
        Self {
            place,
            ledger,
            clock,
            rooms: Rooms::default(),
            running: None,
            last: Mutex::default(),
            recorded: Mutex::default(),
            cpu: CpuMeter::default(),
            trouble_times: TroubleTimes::default(),
        }
    }

    /// Uses the free space that other modules have already queried.
    #[must_use]
    pub fn with_rooms(self, rooms: Rooms) -> Self {
        Self { rooms, ..self }
    }

    /// Adds the state of the running program.
    #[must_use]
    pub fn running(self, running: Running) -> Self {
        Self { running: Some(running), ..self }
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

    /// Returns what the page shows of the whole fleet.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub(super) async fn fleet(&self) -> Result<Value, LedgerError> {
        Ok(super::fleet::fleet(&*self.document().await?).unwrap_or_default())
    }

    /// Returns what the page shows of one vessel: all that the document has of it, and its log lines. Without `vessel`
    /// there is none of this name.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub(super) async fn vessel_in_full(&self, name: &str) -> Result<Value, LedgerError> {
        let document = self.document().await?;
        let vessel = document.vessels.iter().find(|vessel| vessel.name == name);
        let errors: Vec<_> = document.errors.iter().filter(|error| error.vessel.as_deref() == Some(name)).collect();
        let vessel = serde_json::to_value(vessel).unwrap_or_default();
        Ok(json!({
            "at": document.at.as_millisecond(), "vessel": vessel, "errors": errors, "log": self.log_of(name),
        }))
    }

    /// Drops the last document, so that the next one shows the effects of an order.
    pub async fn refresh(&self) {
        *self.last.lock().await = None;
    }

    /// Returns the bytes sent to each vessel, or to `only` this one, in each of the last seconds, oldest first. The lists
    /// of all vessels end with the same second.
    pub fn throughput(&self, only: Option<&str>) -> BTreeMap<String, Vec<u64>> {
        let Some(running) = &self.running else { return BTreeMap::new() };
        let now = running.live.second();
        let history = |name: &VesselName| (name.to_string(), running.live.vessel(name).meter.history(now));
        let wanted = self.place.vessels.iter().filter(|name| only.is_none_or(|only| only == name.as_str()));
        wanted.map(history).collect()
    }

    /// Returns the last lines of the log about a vessel, newest first.
    pub(super) fn log_of(&self, vessel: &str) -> Vec<LogLine> {
        self.running.as_ref().map(|running| running.log.of(vessel)).unwrap_or_default()
    }

    /// Returns the time of day in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Returns the troubles of a directory, the most important first.
    pub(super) fn troubles_of(&self, name: &DirectoryName) -> Vec<(Concern, String)> {
        let troubles = self.running.as_ref().and_then(|running| running.troubles.get(name));
        troubles.map(|troubles| troubles.borrow().all()).unwrap_or_default()
    }

    /// Returns since when the directories have been in trouble.
    pub(super) fn trouble_times(&self) -> &TroubleTimes {
        &self.trouble_times
    }

    /// Returns the ledger.
    pub(super) fn ledger(&self) -> &LedgerView {
        &self.ledger
    }

    /// Returns the settings that decide what is sent when.
    pub(super) fn sending(&self) -> Arc<Sending> {
        self.place.sending.clone()
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

    /// Returns the ledger's part of a document; the last known one while the ledger of the running program is away, with
    /// the reason.
    async fn recorded(&self, now: i64) -> Result<(Arc<Recorded>, Option<String>), LedgerError> {
        match Recorded::read(&self.ledger, &self.place.routes, now).await {
            Ok(recorded) => {
                let recorded = Arc::new(recorded);
                *self.recorded.lock().await = Some(recorded.clone());
                Ok((recorded, None))
            }
            Err(error @ (LedgerError::Away(_) | LedgerError::Failed(_))) if self.running.is_some() => {
                let last = self.recorded.lock().await.clone();
                Ok((last.unwrap_or_default(), Some(error.to_string())))
            }
            Err(error) => Err(error),
        }
    }

    async fn gather(&self) -> Result<Document, LedgerError> {
        let now = self.clock.now_ms();
        let (recorded, trouble) = self.recorded(now).await?;
        let Recorded { summary, parked, receipts, link_today, spent, shores } = &*recorded;
        // Of the vessels of other shores, the ledger knows the state.
        let is_elsewhere = |name: &VesselName| {
            recorded.shore_of(&Work::Vessel(name.clone())).is_some_and(|shore| shore != self.place.shore)
        };
        let here = || self.place.vessels.iter().filter(|name| !is_elsewhere(name));
        let live: HashMap<&VesselName, LiveVessel> = match &self.running {
            Some(running) => here().map(|name| (name, running.live.vessel(name))).collect(),
            None => HashMap::new(),
        };
        let budgets = self.budgets(spent, now);
        let of_ledger = |reason: &String| ErrorStatus {
            at: moment(now),
            vessel: None,
            file: None,
            kind: "ledger".to_owned(),
            reason: reason.clone(),
        };
        let mut errors: Vec<ErrorStatus> = trouble.iter().map(of_ledger).collect();
        errors.extend(self.running.as_ref().map(Running::errors).unwrap_or_default());
        let cpu = self.cpu.percent();
        let vessel = |name: &VesselName| VesselStatus {
            shore: recorded.shore_of(&Work::Vessel(name.clone())).map(str::to_owned),
            link_bytes_today: link_today.get(name).copied().map(LinkBytes::from),
            link_bytes_month: spent.vessel(name).map(LinkBytes::from),
            ways: self.place.routes.ways(name, spent, live.get(name).and_then(|live| live.link.way())),
            speed: self.speed(name, live.get(name), now, cpu),
            ..self.vessel(name, live.get(name), (summary, &budgets), is_elsewhere(name), now)
        };
        Ok(Document {
            version: FORM,
            at: moment(now),
            daemon: self.running.as_ref().map(Running::daemon),
            vessels: self.place.vessels.iter().map(vessel).collect(),
            directories: self.directories(&live, &recorded, now),
            parked: parked.iter().cloned().map(Trouble::from).collect(),
            deliveries: receipts.iter().cloned().map(Delivered::from).collect(),
            errors,
            hooks: self.running.as_ref().map(|running| running.hooks()).unwrap_or_default(),
            budgets: budgets.shown(),
            ledger: LedgerStatus {
                file: self.place.database.clone(),
                bytes: summary.ledger_bytes,
                free_bytes: summary.ledger_free_bytes,
                trouble,
            },
            disks: self.disks().await,
            shores: shores.iter().map(ShoreStatus::from).collect(),
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

    fn budgets(&self, spent: &super::routes::Spent, now: i64) -> Budgets {
        let usage = self.running.as_ref().map(|running| &running.usage);
        self.place.routes.budgets(spent, usage, now)
    }

    /// Returns why the files of each directory may not be sent to a vessel now, without those that may.
    pub(super) async fn held(&self, name: &VesselName) -> Result<HashMap<DirectoryName, Held>, LedgerError> {
        let (sending, routes, now) = (&self.place.sending, &self.place.routes, self.now_ms());
        if sending.is_plain(name) {
            return Ok(HashMap::new());
        }
        let budgets = match routes.have_budgets() {
            true => self.budgets(&routes.spent(&self.ledger, now).await?, now),
            false => Budgets::default(),
        };
        let live = self.live(name);
        let (budgets, vessel) = (&budgets, sending.vessel(name));
        let carries = live.link.way().map(|(way, _)| way);
        Ok(sending.held(&Outlook { name, vessel, budgets, carries, rate: &|_| None, live: None, now }))
    }

    /// Returns when the bytes of each priority are expected to be sent to a vessel.
    pub(super) async fn levels(&self, name: &VesselName) -> Result<Vec<(Priority, Expected)>, LedgerError> {
        let (sending, routes, now) = (&self.place.sending, &self.place.routes, self.now_ms());
        let summary = self.ledger.summary(0).await?;
        let budgets = self.budgets(&routes.spent(&self.ledger, now).await?, now);
        let live = self.live(name);
        let rate = |way: Option<&str>| self.known_rate(name, &live, &summary, way, now);
        Ok(sending.levels(&outlook(name, sending, &budgets, &live, &rate, now), &summary.tallies))
    }

    /// Returns the rate over a way to a vessel in bytes per second: now, or as last measured within 24 h. A rate limit
    /// that applies now counts.
    fn known_rate(
        &self,
        name: &VesselName,
        live: &LiveVessel,
        summary: &Summary,
        way: Option<&str>,
        at: i64,
    ) -> Option<u64> {
        let sending = &self.place.sending;
        let is_recent = |measured: i64| (0..A_DAY).contains(&(at - measured));
        let now = Some(self.rate(live)).filter(|rate| *rate > 0 && live.link.way().map(|(way, _)| way) == way);
        let earlier = live.recent_rate(way).filter(|(at, _)| is_recent(*at)).map(|(_, rate)| rate);
        let path = summary.notes.iter().find(|note| note.vessel == *name).and_then(|note| note.path);
        let path = path.filter(|(measured, _)| way.is_none() && is_recent(*measured)).map(|(_, rate)| rate);
        let measured = now.or(earlier).or(path);
        measured.into_iter().chain(sending.rate_limit(name, way, at)).min()
    }

    fn vessel(
        &self,
        name: &VesselName,
        live: Option<&LiveVessel>,
        (summary, budgets): (&Summary, &Budgets),
        is_elsewhere: bool,
        at: i64,
    ) -> VesselStatus {
        let (idle, sending) = (LiveVessel::default(), &self.place.sending);
        let now = live.unwrap_or(&idle);
        let rate = |way: Option<&str>| self.known_rate(name, now, summary, way, at);
        let (queues, unknown) = sending.queues(&outlook(name, sending, budgets, now, &rate, at), &summary.tallies);
        let mut status = VesselStatus {
            name: name.to_string(),
            link: link(name, live, summary, self.clock.now_ms()),
            shore: None,
            backlog: Amount::default(),
            parked: 0,
            expired: 0,
            opens: sending.vessel(name).and_then(|vessel| opens(&[&vessel.schedule], at)),
            queues,
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
            eta_unknown: None,
            acknowledged: Amount::default(),
            last_acknowledged: None,
            sent_bytes: now.sent,
            saved_bytes: now.saved,
            link_bytes: self.running.as_ref().and_then(|running| running.meters.sum(name)).map(LinkBytes::from),
            link_bytes_today: None,
            link_bytes_month: None,
            ways: Vec::new(),
            speed: None,
            errors: now.errors.iter().map(|(cause, count)| (cause.as_str().to_owned(), *count)).collect(),
            took: now.took.clone(),
        };
        if is_elsewhere && status.link.state == LinkState::Off {
            let is_away = status.link.reason.is_some();
            status.link.state = if is_away { LinkState::Away } else { LinkState::Elsewhere };
        }
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
        let way = now.link.way().map(|(way, _)| way);
        let first = sending.vessel(name).filter(|vessel| vessel.has_ways()).and_then(|vessel| vessel.ways.first());
        status.carries = rate(way.map(str::to_owned).or(first.map(Way::name)).as_deref());
        if left > 0 {
            let last = status.queues.iter().filter(|queue| queue.waiting.bytes > 0).map(|queue| queue.ends);
            let ends = last.reduce(|one, other| Some(one?.max(other?))).flatten();
            let unknown = match status.link.state {
                LinkState::Connected if unknown.is_none() && ends.is_none() => Some("nothing is known yet".to_owned()),
                LinkState::Connected => unknown,
                state => Some(format!("the vessel is {}", state.as_str())),
            };
            let seconds =
                ends.map(|ends| ends.as_millisecond().saturating_sub(at).max(0).cast_unsigned().div_ceil(1000));
            status.eta_seconds = seconds.filter(|_| unknown.is_none());
            status.eta_unknown = unknown;
        }
        status
    }

    /// Returns how fast a vessel is served, and what limits that.
    fn speed(&self, name: &VesselName, live: Option<&LiveVessel>, now: i64, cpu_percent: f64) -> Option<Speed> {
        let (running, live) = (self.running.as_ref()?, live?);
        Some(speed(Known {
            is_connected: matches!(live.link, LiveLink::Connected { .. }),
            is_sending: !live.transfers.is_empty(),
            way: live.link.way().map(|(way, _)| way.to_owned()),
            path: running.meters.path(name),
            rate: live.meter.rate(running.live.second()),
            rate_limit: self.place.sending.rate_limit(name, live.link.way().map(|(way, _)| way), now),
            cpu_percent,
        }))
    }

    fn directories(
        &self,
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
                shore: recorded.shore_of(&Work::Directory(name.clone())).map(str::to_owned),
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
                pause: pause(name),
            }
        };
        configured.chain(others).map(status).collect()
    }
}

/// Returns what is known about a vessel for a forecast.
fn outlook<'a>(
    name: &'a VesselName,
    sending: &'a Sending,
    budgets: &'a Budgets,
    live: &'a LiveVessel,
    rate: &'a dyn Fn(Option<&str>) -> Option<u64>,
    now: i64,
) -> Outlook<'a> {
    let carries = live.link.way().map(|(way, _)| way);
    Outlook { name, vessel: sending.vessel(name), budgets, carries, rate, live: Some(live), now }
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

    fn hooks(&self) -> Vec<HookStatus> {
        let status = |(name, results): (String, HookResults)| {
            let (since, failing) = results.failing.map(|(since, why)| (moment(since), why)).unzip();
            HookStatus { name, failures: results.failures, failing, since }
        };
        self.hooks.results().into_iter().map(status).collect()
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
