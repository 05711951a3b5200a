//! Assembles the status document from the ledger and the live state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::convert::moment;
use super::cpu::CpuMeter;
use super::directory_status::directories;
use super::document::{
    Delivered, DiskStatus, Document, ErrorStatus, FORM, Held, LedgerStatus, LinkBytes, ShoreStatus, Trouble,
    VesselStatus,
};
use super::forecast::Expected;
use super::live::LiveVessel;
use super::log_lines::LogLine;
use super::place::Place;
use super::queues::{Outlook, Sending};
use super::recorded::Recorded;
use super::routes::Budgets;
use super::running::Running;
use super::trouble_times::TroubleTimes;
use super::vessel_status::{Sources, outlook};
use crate::clock::Clock;
use crate::ledger::{LedgerError, LedgerView, Work};
use crate::local::{FreeSpace, FreeSpaces};
use crate::names::{DirectoryName, VesselName};
use crate::settings::Priority;
use crate::shore::Concern;

/// How long a document is reused, so that many clients cause no more work than one.
const FRESH: Duration = Duration::from_millis(300);

/// An assembler of status documents.
pub struct Gatherer {
    place: Place,
    ledger: LedgerView,
    clock: Clock,
    free_spaces: FreeSpaces,
    running: Option<Running>,
    last: Mutex<Option<(Instant, Arc<Document>)>>,
    /// The last state read from the ledger.
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
            free_spaces: FreeSpaces::default(),
            running: None,
            last: Mutex::default(),
            recorded: Mutex::default(),
            cpu: CpuMeter::default(),
            trouble_times: TroubleTimes::default(),
        }
    }

    /// Uses the free disk space that other modules have already queried.
    #[must_use]
    pub fn with_rooms(self, free_spaces: FreeSpaces) -> Self {
        Self { free_spaces, ..self }
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

    /// Returns the status page's data about the whole fleet.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub(super) async fn fleet(&self) -> Result<Value, LedgerError> {
        Ok(super::fleet::fleet(&*self.document().await?).unwrap_or_default())
    }

    /// Returns the status page's data about one vessel: its part of the document, and its log lines. `vessel` is `null`
    /// if no vessel has this name.
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

    /// Returns how many bytes were sent to each vessel in each of the last seconds, oldest first. If `only` is given,
    /// returns the list of this vessel alone. The lists of all vessels end with the same second.
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

    /// Returns the current time in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Returns the troubles of a directory, the most important first.
    pub(super) fn troubles_of(&self, name: &DirectoryName) -> Vec<(Concern, String)> {
        let troubles = self.running.as_ref().and_then(|running| running.troubles.get(name));
        troubles.map(|troubles| troubles.borrow().all()).unwrap_or_default()
    }

    /// Returns the start times of the current incidents of directories and disks.
    pub(super) fn trouble_times(&self) -> &TroubleTimes {
        &self.trouble_times
    }

    /// Returns the ledger.
    pub(super) fn ledger(&self) -> &LedgerView {
        &self.ledger
    }

    /// Returns the settings that decide the order and the times of sending.
    pub(super) fn sending(&self) -> Arc<Sending> {
        self.place.sending.clone()
    }

    /// Returns the live state of a vessel; an idle one when the program doesn't run.
    pub(super) fn live(&self, name: &VesselName) -> LiveVessel {
        self.running.as_ref().map(|running| running.live.vessel(name)).unwrap_or_default()
    }

    /// Returns the current rate of sending to a vessel in bytes per second.
    pub(super) fn rate(&self, vessel: &LiveVessel) -> u64 {
        self.running.as_ref().map_or(0, |running| running.rate(vessel))
    }

    /// Returns the vessels that have queued deliveries: first those in the settings, in the order of the settings, then
    /// the others by name. If `only` is given, returns this vessel alone.
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

    /// Reads the ledger's part of a document. If the ledger of the running program is unavailable, returns the part
    /// that was read last, with the error.
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
        // The live state covers only this shore's vessels; the state of the other shores' vessels comes from the
        // ledger.
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
        let (place, running) = (&self.place, self.running.as_ref());
        let sources = Sources { place, running, summary, budgets: &budgets, at: now };
        let vessel = |name: &VesselName| VesselStatus {
            shore: recorded.shore_of(&Work::Vessel(name.clone())).map(str::to_owned),
            link_bytes_today: link_today.get(name).copied().map(LinkBytes::from),
            link_bytes_month: spent.vessel(name).map(LinkBytes::from),
            ways: self.place.routes.ways(name, spent, live.get(name).and_then(|live| live.link.way())),
            speed: sources.speed(name, live.get(name), cpu),
            ..sources.status(name, live.get(name), is_elsewhere(name))
        };
        Ok(Document {
            version: FORM,
            at: moment(now),
            daemon: self.running.as_ref().map(Running::daemon),
            vessels: self.place.vessels.iter().map(vessel).collect(),
            directories: directories(place, running, &live, &recorded, now),
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

    /// Returns the disks whose free space can be queried. Omits the others; other modules report their errors.
    async fn disks(&self) -> Vec<DiskStatus> {
        let Place { disks: places, has_ledger_file, min_free, .. } = &self.place;
        let mut seen = HashSet::new();
        let found = places.iter().zip(self.free_spaces.at(places).await).enumerate();
        let found = found.filter_map(|(at, (place, space))| Some((at, place, space?)));
        let found = found.filter(|(.., space)| seen.insert(space.disk));
        let status = |(at, place, space): (usize, &PathBuf, FreeSpace)| DiskStatus {
            path: place.display().to_string(),
            free_bytes: space.free,
            low: space.free < *min_free,
            holds_ledger: at == 0 && *has_ledger_file,
        };
        found.map(status).collect()
    }

    fn budgets(&self, spent: &super::routes::Spent, now: i64) -> Budgets {
        let usage = self.running.as_ref().map(|running| &running.usage);
        self.place.routes.budgets(spent, usage, now)
    }

    /// Returns, for each directory whose files may not be sent to a vessel now, the reason.
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
        let (place, running) = (&self.place, self.running.as_ref());
        let sources = Sources { place, running, summary: &summary, budgets: &budgets, at: now };
        let rate = |way: Option<&str>| sources.known_rate(name, &live, way);
        Ok(sending.levels(&outlook(name, sending, &budgets, &live, &rate, now), &summary.tallies))
    }
}
