//! The bytes on the links by day, as counted since the program started and as recorded before.
//!
//! Whoever asks for a sum has the meters read first, so that a budget is compared with the bytes of this moment. What was
//! counted and is not in the ledger yet is handed out for recording, day by day, so that the ledger's sums are the same.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError};
use crate::names::{LinkName, VesselName};
use crate::records::{LinkBytes, UtcDay, WayOf};
use crate::settings::{Limit, Period, Reserve};
use crate::transport::LinkMeters;

/// How long a reading of the meters is used again.
const FRESH: Duration = Duration::from_millis(10);
/// A limit with less room than this counts as spent: the end of a session and a login take some kilobytes.
const LEAST_ROOM: u64 = 48 << 10;
/// Number of days that are kept here: those of this month, and of the last one after a clock was set back.
const KEPT: i64 = 62;

/// Whose bytes are summed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payer {
    /// A vessel, over all its ways.
    Vessel(VesselName),
    /// A link, for all vessels.
    Link(LinkName),
}

impl Payer {
    /// Reads a payer from its text in the ledger.
    fn of(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(' ')?;
        match kind {
            "vessel" => Some(Self::Vessel(VesselName::new(name))),
            "link" => Some(Self::Link(LinkName::new(name))),
            _ => None,
        }
    }
}

impl Payer {
    /// Returns why nothing more is sent that may use only this part of a limit.
    pub fn why_spent(&self, limit: &Limit, part: Part, bytes: u64) -> String {
        let whose = match self {
            Self::Vessel(_) => "the vessel's budget".to_owned(),
            Self::Link(link) => format!("the budget of the link {link}"),
        };
        match part {
            Part::Whole => format!("{whose} of {limit} is spent ({bytes} bytes on the link)"),
            Part::BeforeReserve(reserve) => {
                let kept = reserve.priorities().either();
                format!("{whose} of {limit} is used up to its reserve for {kept} ({bytes} bytes on the link)")
            }
        }
    }
}

impl fmt::Display for Payer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vessel(name) => write!(f, "vessel {name}"),
            Self::Link(name) => write!(f, "link {name}"),
        }
    }
}

/// A part of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The whole limit.
    Whole,
    /// The limit without its reserve, which only files of high priority may use.
    BeforeReserve(Reserve),
}

impl Part {
    /// Returns the bytes of the part.
    pub fn of(self, limit: &Limit) -> u64 {
        match self {
            Self::Whole => limit.bytes,
            Self::BeforeReserve(reserve) => reserve.leaves(limit),
        }
    }
}

/// The sums. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct LinkUsage {
    book: Arc<Mutex<Book>>,
    ledger: Ledger,
}

struct Book {
    meters: LinkMeters,
    clock: Clock,
    /// What the meters showed last.
    seen: HashMap<WayOf, LinkBytes>,
    read_at: Option<Instant>,
    days: HashMap<Payer, BTreeMap<UtcDay, u64>>,
    /// Whether a budget depends on the sums.
    is_limited: bool,
    /// Up to where each payer with a budget may go on a day, as this program wrote it into the ledger.
    ceilings: HashMap<(Payer, UtcDay), u64>,
    /// Until when (milliseconds since 1970) nothing more is sent, because the next write did not fit.
    spent: HashMap<(Payer, Period, Part), i64>,
    unrecorded: HashMap<(UtcDay, WayOf), LinkBytes>,
}

impl LinkUsage {
    /// Begins with the sums in the ledger. To be called before any connection is made.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub async fn load(ledger: &Ledger, meters: LinkMeters, clock: Clock) -> Result<Self, LedgerError> {
        let first = UtcDay(UtcDay::at(clock.now_ms()).0.saturating_sub(KEPT));
        let mut book = Book {
            meters,
            clock,
            seen: HashMap::new(),
            read_at: None,
            days: HashMap::new(),
            is_limited: false,
            ceilings: HashMap::new(),
            spent: HashMap::new(),
            unrecorded: HashMap::new(),
        };
        for (day, (vessel, way), bytes) in ledger.link_days(first).await? {
            let payer = way.map_or(Payer::Vessel(vessel), |way| Payer::Link(LinkName::new(&way)));
            book.add(payer, day, bytes);
        }
        // After a crash, the last bytes were not recorded. All that were allowed count as used.
        for (payer, day, bytes) in ledger.ceilings(first).await? {
            if let Some(payer) = Payer::of(&payer) {
                let used = book.days.entry(payer).or_default().entry(day).or_default();
                *used = bytes.max(*used);
            }
        }
        Ok(Self { book: Arc::new(Mutex::new(book)), ledger: ledger.clone() })
    }

    /// Reads the sums again that other shores change: those of the links, and of a vessel that this shore serves from now on.
    /// All that the shore before it was allowed to send to the vessel counts as used.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub async fn refresh(&self, vessel: Option<&VesselName>) -> Result<(), LedgerError> {
        if vessel.is_none() && !self.is_limited() {
            return Ok(());
        }
        let first = UtcDay(UtcDay::at(self.book().clock.now_ms()).0.saturating_sub(KEPT));
        let (days, ceilings) = (self.ledger.link_days(first).await?, self.ledger.ceilings(first).await?);
        let mut book = self.book();
        book.read();
        let unrecorded: Vec<_> =
            book.unrecorded.iter().map(|((day, way), bytes)| (*day, way.clone(), *bytes)).collect();
        let mut sums: HashMap<(Payer, UtcDay), u64> = HashMap::new();
        let mut add = |payer: Payer, day: UtcDay, bytes: LinkBytes| {
            let sum = sums.entry((payer, day)).or_default();
            *sum = sum.saturating_add(bytes.total());
        };
        // The ledger has a row for a vessel's sum, and one for each way.
        for (day, (name, way), bytes) in days {
            match way {
                Some(way) => add(Payer::Link(LinkName::new(&way)), day, bytes),
                None => add(Payer::Vessel(name), day, bytes),
            }
        }
        for (day, (name, way), bytes) in unrecorded {
            add(Payer::Vessel(name), day, bytes);
            if let Some(way) = way {
                add(Payer::Link(LinkName::new(&way)), day, bytes);
            }
        }
        for (payer, day, bytes) in ceilings {
            if let Some(payer @ Payer::Vessel(_)) = Payer::of(&payer) {
                let sum = sums.entry((payer, day)).or_default();
                *sum = bytes.max(*sum);
            }
        }
        // What a crash may have cost stays counted.
        let wanted = |payer: &Payer| !matches!(payer, Payer::Vessel(name) if Some(name) != vessel);
        for ((payer, day), bytes) in sums.into_iter().filter(|((payer, _), _)| wanted(payer)) {
            let used = book.days.entry(payer).or_default().entry(day).or_default();
            *used = bytes.max(*used);
        }
        Ok(())
    }

    /// Lowers the ceilings that this program wrote to what its payers used, so that the next start counts no more and no less.
    /// For a clean stop.
    ///
    /// After a crash, all bytes that were allowed count as used, though the sums of the ledger don't have them. They stay
    /// counted over further stops. A ceiling that another shore wrote since is its own. Where there are other shores
    /// (`is_shared`), those of links are left, because these shores may be using them.
    ///
    /// # Errors
    /// When the ledger can't be used.
    pub async fn settle_ceilings(&self, is_shared: bool) -> Result<(), LedgerError> {
        let first = UtcDay(UtcDay::at(self.book().clock.now_ms()).0.saturating_sub(KEPT));
        let mut recorded: HashMap<(Payer, UtcDay), u64> = HashMap::new();
        for (day, (vessel, way), bytes) in self.ledger.link_days(first).await? {
            let payer = way.map_or(Payer::Vessel(vessel), |way| Payer::Link(LinkName::new(&way)));
            let sum = recorded.entry((payer, day)).or_default();
            *sum = sum.saturating_add(bytes.total());
        }
        let written: Vec<_> = self.book().ceilings.drain().collect();
        for ((payer, day), ceiling) in written {
            if is_shared && matches!(payer, Payer::Link(_)) {
                continue;
            }
            let used = self.book().days.get(&payer).and_then(|days| days.get(&day)).copied().unwrap_or(0);
            let text = payer.to_string();
            let known = recorded.get(&(payer, day)).copied().unwrap_or(0);
            self.ledger.lower_ceiling(&text, day, ceiling, (used > known).then_some(used)).await?;
        }
        Ok(())
    }

    /// Returns the bytes of both directions from a day on.
    pub fn used(&self, payer: &Payer, first: UtcDay) -> u64 {
        let mut book = self.book();
        book.read();
        book.days.get(payer).map_or(0, |days| days.range(first..).map(|(_, bytes)| *bytes).sum())
    }

    /// Returns whether a payer may use this many more bytes today, as far as the ledger knows already.
    pub(super) fn is_below_ceiling(&self, payer: &Payer, more: u64) -> bool {
        let mut book = self.book();
        book.read();
        let today = UtcDay::at(book.clock.now_ms());
        let used = book.days.get(payer).and_then(|days| days.get(&today)).copied().unwrap_or(0);
        let ceiling = book.ceilings.get(&(payer.clone(), today));
        ceiling.is_some_and(|ceiling| used.saturating_add(more) <= *ceiling)
    }

    /// Has the ledger know that a payer may use this many more bytes today, and `slice` more.
    ///
    /// # Errors
    /// When the ledger can't be used.
    pub(super) async fn raise_ceiling(&self, payer: &Payer, more: u64, slice: u64) -> Result<(), LedgerError> {
        let (today, ceiling) = {
            let book = self.book();
            let today = UtcDay::at(book.clock.now_ms());
            let used = book.days.get(payer).and_then(|days| days.get(&today)).copied().unwrap_or(0);
            (today, used.saturating_add(more).saturating_add(slice))
        };
        self.ledger.raise_ceiling(&payer.to_string(), today, ceiling).await?;
        let mut book = self.book();
        book.ceilings.retain(|(_, day), _| day.0 > today.0.saturating_sub(KEPT));
        book.ceilings.insert((payer.clone(), today), ceiling);
        Ok(())
    }

    /// Returns whether so much of a part of a limit is used in its current period that nothing more is sent that may use
    /// only this part.
    pub fn is_spent(&self, payer: &Payer, limit: &Limit, part: Part) -> bool {
        let now = self.book().clock.now_ms();
        let used = self.used(payer, limit.period.first_day(now));
        // A mark of another period has ended, or the clock was set.
        let key = (payer.clone(), limit.period, part);
        let marked = self.book().spent.get(&key).is_some_and(|it| *it == limit.period.ends(now));
        marked || used.saturating_add(LEAST_ROOM) > part.of(limit)
    }

    /// Notes that the next write does not fit into a part of a limit in its current period.
    pub(super) fn mark_spent(&self, payer: &Payer, limit: &Limit, part: Part) {
        let mut book = self.book();
        let until = limit.period.ends(book.clock.now_ms());
        book.spent.insert((payer.clone(), limit.period, part), until);
    }

    /// Notes that a budget depends on the sums, so that they are recorded more often.
    pub fn limit(&self) {
        self.book().is_limited = true;
    }

    /// Returns whether a budget depends on the sums.
    pub fn is_limited(&self) -> bool {
        self.book().is_limited
    }

    /// Hands out what is not in the ledger yet.
    pub fn take_unrecorded(&self) -> HashMap<UtcDay, Vec<(WayOf, LinkBytes)>> {
        let mut book = self.book();
        book.read_at = None;
        book.read();
        let mut days: HashMap<UtcDay, Vec<(WayOf, LinkBytes)>> = HashMap::new();
        for ((day, way), bytes) in std::mem::take(&mut book.unrecorded) {
            days.entry(day).or_default().push((way, bytes));
        }
        days
    }

    /// Returns how many bytes are not in the ledger yet.
    pub fn unrecorded(&self) -> u64 {
        let mut book = self.book();
        book.read();
        book.unrecorded.values().map(LinkBytes::total).sum()
    }

    /// Takes back what could not be recorded.
    pub fn put_back(&self, day: UtcDay, ways: Vec<(WayOf, LinkBytes)>) {
        let mut book = self.book();
        for (way, bytes) in ways {
            let unrecorded = book.unrecorded.entry((day, way)).or_default();
            *unrecorded = unrecorded.and(bytes);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Reads the meters, and adds what is new to the sums of today.
    fn read(&mut self) {
        if self.read_at.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        self.read_at = Some(Instant::now());
        let today = UtcDay::at(self.clock.now_ms());
        for (way, now) in self.meters.all() {
            let new = now.since(self.seen.get(&way).copied().unwrap_or_default());
            if new.total() == 0 {
                continue;
            }
            self.seen.insert(way.clone(), now);
            self.add(Payer::Vessel(way.0.clone()), today, new);
            if let Some(link) = &way.1 {
                self.add(Payer::Link(LinkName::new(link)), today, new);
            }
            let unrecorded = self.unrecorded.entry((today, way)).or_default();
            *unrecorded = unrecorded.and(new);
        }
    }

    fn add(&mut self, payer: Payer, day: UtcDay, bytes: LinkBytes) {
        let days = self.days.entry(payer).or_default();
        let sum = days.entry(day).or_default();
        *sum = sum.saturating_add(bytes.total());
        days.retain(|earlier, _| earlier.0 > day.0.saturating_sub(KEPT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a crash, all bytes that were allowed count as used, also after any number of clean stops.
    #[tokio::test]
    async fn what_a_crash_may_have_cost_stays_counted_over_clean_stops() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&dir.path().join("ledger"), Clock::system()).await.unwrap();
        let (payer, today) = (Payer::Vessel(VesselName::new("tern")), UtcDay::at(Clock::system().now_ms()));
        ledger.raise_ceiling(&payer.to_string(), today, 5_000_000).await.unwrap();
        for _stop in 0..2 {
            let usage = LinkUsage::load(&ledger, LinkMeters::default(), Clock::system()).await.unwrap();
            assert_eq!(usage.used(&payer, today), 5_000_000);
            usage.raise_ceiling(&payer, 300_000, 200_000).await.unwrap();
            usage.settle_ceilings(false).await.unwrap();
            let ceilings = ledger.ceilings(UtcDay(0)).await.unwrap();
            assert_eq!(ceilings, [(payer.to_string(), today, 5_000_000)]);
        }
        ledger.close().await.unwrap();
    }

    /// A shore that ends leaves what other shores may still use: their vessels, and the links of all.
    #[tokio::test]
    async fn a_clean_stop_leaves_the_ceilings_of_other_shores() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&dir.path().join("ledger"), Clock::system()).await.unwrap();
        let [tern, gull, moved] = ["tern", "gull", "moved"].map(|name| Payer::Vessel(VesselName::new(name)));
        let vsat = Payer::Link(LinkName::new("vsat"));
        let shore = async || LinkUsage::load(&ledger, LinkMeters::default(), Clock::system()).await.unwrap();
        let (one, other) = (shore().await, shore().await);
        for payer in [&tern, &moved, &vsat] {
            one.raise_ceiling(payer, 100, 0).await.unwrap();
        }
        for payer in [&gull, &moved] {
            other.raise_ceiling(payer, 300, 0).await.unwrap();
        }
        one.settle_ceilings(true).await.unwrap();
        let ceilings = ledger.ceilings(UtcDay(0)).await.unwrap();
        let left: Vec<_> = ceilings.into_iter().map(|(payer, _, bytes)| (payer, bytes)).collect();
        assert_eq!(left, [(vsat.to_string(), 100), (gull.to_string(), 300), (moved.to_string(), 300)]);
        ledger.close().await.unwrap();
    }
}
