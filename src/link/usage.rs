//! Sums of the bytes on the links by day: those counted since the program started, and those recorded in the ledger
//! before.
//!
//! A query for a sum reads the meters first, so that a budget is compared with the current number of bytes. Callers
//! take the counted bytes that are not in the ledger yet, by day, and add them to the ledger's sums.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError};
use crate::names::{LinkName, VesselName};
use crate::records::{LinkBytes, UtcDay, WayOf};
use crate::settings::{Limit, Reserve};
use crate::transport::LinkMeters;

/// How long a reading of the meters is reused.
const FRESH: Duration = Duration::from_millis(10);
/// A limit with fewer bytes left than this counts as spent, because the end of a session and a login take some
/// kilobytes.
const LEAST_ROOM: u64 = 48 << 10;
/// Maximum number of days with bytes that are kept in memory: enough for this month and, after a clock was set back,
/// for the previous one. If the clock is ahead for a while, each wrong day displaces only one right day.
const MOST_DAYS: u32 = 62;

/// The vessel or the link whose bytes are summed.
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
    /// Returns why files that may use only this part of a limit are not sent any more.
    pub fn why_spent(&self, limit: &Limit, part: Part, bytes: u64) -> String {
        let whose = match self {
            Self::Vessel(_) => "the vessel's budget".to_owned(),
            Self::Link(link) => format!("the budget of the link {link}"),
        };
        match part {
            Part::Whole => format!("{whose} of {limit} is spent ({bytes} bytes on the link)"),
            Part::BeforeReserve(reserve) => {
                let kept = reserve.priorities().either();
                format!(
                    "{whose} of {limit} is spent except for the part reserved for priority {kept} ({bytes} bytes on \
                     the link)"
                )
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
    /// The limit minus its reserve. Only files of high priority may use the reserve.
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

/// The sums of bytes by payer and day. Cheap to clone; clones share the sums.
#[derive(Clone)]
pub struct LinkUsage {
    book: Arc<Mutex<Book>>,
    ledger: Ledger,
}

struct Book {
    meters: LinkMeters,
    clock: Clock,
    /// The last readings of the meters.
    seen: HashMap<WayOf, LinkBytes>,
    read_at: Option<Instant>,
    days: HashMap<Payer, BTreeMap<UtcDay, u64>>,
    /// Whether a budget depends on the recorded link usage.
    is_limited: bool,
    /// The number of bytes that each payer with a budget may use on a day, as this program wrote it to the ledger.
    ceilings: HashMap<Payer, BTreeMap<UtcDay, u64>>,
    /// The parts of limits that count as spent because the next write did not fit, and until when (ms since 1970).
    spent: HashMap<(Payer, Limit, Part), i64>,
    unrecorded: HashMap<(UtcDay, WayOf), LinkBytes>,
}

impl LinkUsage {
    /// Loads the sums from the ledger. Must be called before any connection is opened.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub async fn load(ledger: &Ledger, meters: LinkMeters, clock: Clock) -> Result<Self, LedgerError> {
        let today = UtcDay::at(clock.now_ms());
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
        for (day, (vessel, way), bytes) in ledger.link_days(today, MOST_DAYS).await? {
            let payer = way.map_or(Payer::Vessel(vessel), |way| Payer::Link(LinkName::new(&way)));
            book.add(payer, day, bytes);
        }
        // After a crash, the ledger's sums lack the last bytes. So all bytes that the ceiling allowed count as used.
        for (payer, day, bytes) in ledger.ceilings(today, MOST_DAYS).await? {
            if let Some(payer) = Payer::of(&payer) {
                let used = book.days.entry(payer).or_default().entry(day).or_default();
                *used = bytes.max(*used);
            }
        }
        Ok(Self { book: Arc::new(Mutex::new(book)), ledger: ledger.clone() })
    }

    /// Reads again the sums that other shores change: those of the links, and those of `vessels`, which this shore now
    /// takes over. All bytes that the previous shore was allowed to send to one of `vessels` count as used.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub async fn refresh(&self, vessels: &[VesselName]) -> Result<(), LedgerError> {
        if vessels.is_empty() && !self.is_limited() {
            return Ok(());
        }
        let today = UtcDay::at(self.book().clock.now_ms());
        let (days, ceilings) =
            (self.ledger.link_days(today, MOST_DAYS).await?, self.ledger.ceilings(today, MOST_DAYS).await?);
        let mut book = self.book();
        book.read();
        let unrecorded: Vec<_> =
            book.unrecorded.iter().map(|((day, way), bytes)| (*day, way.clone(), *bytes)).collect();
        let mut sums: HashMap<(Payer, UtcDay), u64> = HashMap::new();
        let mut add = |payer: Payer, day: UtcDay, bytes: LinkBytes| {
            let sum = sums.entry((payer, day)).or_default();
            *sum = sum.saturating_add(bytes.total());
        };
        // The ledger has one row for the sum of a vessel, and one row for each of its ways.
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
        // Leaves out vessels of other shores. No sum gets smaller, so bytes that were allowed before a crash stay
        // counted.
        let wanted = |payer: &Payer| !matches!(payer, Payer::Vessel(name) if !vessels.contains(name));
        for ((payer, day), bytes) in sums.into_iter().filter(|((payer, _), _)| wanted(payer)) {
            let days = book.days.entry(payer).or_default();
            let used = days.entry(day).or_default();
            *used = bytes.max(*used);
            keep_nearest(days, today);
        }
        Ok(())
    }

    /// At a clean stop, lowers each ceiling of this program to the number of used bytes, so that the next start counts
    /// exactly this number. Removes the ceiling if the ledger's sums contain all used bytes.
    ///
    /// After a crash, all allowed bytes count as used, although the ledger's sums don't contain them; they stay counted
    /// after further stops. A ceiling that another shore has changed meanwhile is kept. If there are other shores
    /// (`is_shared`), the ceilings of links are kept, because those shores may be using them.
    ///
    /// # Errors
    /// When the ledger can't be used.
    pub async fn settle_ceilings(&self, is_shared: bool) -> Result<(), LedgerError> {
        let today = UtcDay::at(self.book().clock.now_ms());
        let mut recorded: HashMap<(Payer, UtcDay), u64> = HashMap::new();
        for (day, (vessel, way), bytes) in self.ledger.link_days(today, MOST_DAYS).await? {
            let payer = way.map_or(Payer::Vessel(vessel), |way| Payer::Link(LinkName::new(&way)));
            let sum = recorded.entry((payer, day)).or_default();
            *sum = sum.saturating_add(bytes.total());
        }
        let written: Vec<_> = self.book().ceilings.drain().collect();
        let by_day = |(payer, days): (Payer, BTreeMap<UtcDay, u64>)| {
            days.into_iter().map(move |(day, it)| (payer.clone(), day, it))
        };
        for (payer, day, ceiling) in written.into_iter().flat_map(by_day) {
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

    /// Returns the bytes of a payer in both directions, from the day `first` on.
    ///
    /// Days after today count too, because the clock may have been set back. Days more than `MOST_DAYS` after today
    /// don't count, because the clock was wrong then. But if no recent day has bytes, the clock is wrong now, and all
    /// days count.
    pub fn used(&self, payer: &Payer, first: UtcDay) -> u64 {
        let mut book = self.book();
        book.read();
        let Some(days) = book.days.get(payer) else { return 0 };
        let today = UtcDay::at(book.clock.now_ms());
        let [earlier, later] = [-1, 1].map(|way| UtcDay(today.0.saturating_add(way * i64::from(MOST_DAYS))));
        let is_right = days.range(earlier..=today).next().is_some();
        let counts = |day: &UtcDay| !is_right || *day <= later;
        days.range(first..).filter(|(day, _)| counts(day)).map(|(_, bytes)| *bytes).sum()
    }

    /// Returns whether the ceiling in the ledger already allows a payer this many more bytes today.
    pub(super) fn is_below_ceiling(&self, payer: &Payer, more: u64) -> bool {
        let mut book = self.book();
        book.read();
        let today = UtcDay::at(book.clock.now_ms());
        let used = book.days.get(payer).and_then(|days| days.get(&today)).copied().unwrap_or(0);
        let ceiling = book.ceilings.get(payer).and_then(|days| days.get(&today));
        ceiling.is_some_and(|ceiling| used.saturating_add(more) <= *ceiling)
    }

    /// Raises a payer's ceiling for today in the ledger. The new ceiling is the number of bytes used so far, plus
    /// `more` bytes that are needed now, plus `slice` bytes for the near future, so that these need no further call.
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
        let ceilings = book.ceilings.entry(payer.clone()).or_default();
        ceilings.insert(today, ceiling);
        keep_nearest(ceilings, today);
        Ok(())
    }

    /// Returns whether a part of a limit is spent in its current period. Files that may use only this part are then not
    /// sent.
    pub fn is_spent(&self, payer: &Payer, limit: &Limit, part: Part) -> bool {
        let now = self.book().clock.now_ms();
        let used = self.used(payer, limit.period.first_day(now));
        // Marks of other periods don't count, and neither do marks of limits that a reload has changed.
        let key = (payer.clone(), *limit, part);
        let marked = self.book().spent.get(&key).is_some_and(|it| *it == limit.period.ends(now));
        marked || used.saturating_add(LEAST_ROOM) > part.of(limit)
    }

    /// Notes that the next write does not fit into a part of a limit in its current period.
    pub(super) fn mark_spent(&self, payer: &Payer, limit: &Limit, part: Part) {
        let mut book = self.book();
        let until = limit.period.ends(book.clock.now_ms());
        book.spent.insert((payer.clone(), *limit, part), until);
    }

    /// Notes that a budget depends on the sums, so that they are recorded more often.
    pub fn limit(&self) {
        self.book().is_limited = true;
    }

    /// Returns whether a budget depends on the recorded link usage.
    pub fn is_limited(&self) -> bool {
        self.book().is_limited
    }

    /// Returns the counted bytes that are not in the ledger yet, and then treats them as recorded.
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

    /// Counts bytes as unrecorded again, because they could not be recorded.
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
    /// Reads the meters, and adds the new bytes to the sums of today.
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
        keep_nearest(days, day);
    }
}

/// Drops the days that are farthest from `today`, so that at most [`MOST_DAYS`] are left.
fn keep_nearest(days: &mut BTreeMap<UtcDay, u64>, today: UtcDay) {
    let distance = |day: &UtcDay| day.0.abs_diff(today.0);
    while days.len() > MOST_DAYS as usize
        && let (Some((first, _)), Some((last, _))) = (days.first_key_value(), days.last_key_value())
    {
        let farthest = if distance(first) >= distance(last) { *first } else { *last };
        days.remove(&farthest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a crash, all bytes that were allowed count as used, even after any number of clean stops.
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
            let ceilings = ledger.ceilings(UtcDay(0), 9).await.unwrap();
            assert_eq!(ceilings, [(payer.to_string(), today, 5_000_000)]);
        }
        ledger.close().await.unwrap();
    }

    /// The clock is set ahead by 5000 days, and back, twice.
    #[tokio::test]
    async fn a_clock_that_was_far_ahead_for_a_while_neither_forgets_bytes_nor_adds_to_later_budgets() {
        const DAY: i64 = 86_400_000;
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&dir.path().join("ledger"), Clock::system()).await.unwrap();
        let payer = Payer::Vessel(VesselName::new("tern"));
        let now = Clock::system().now_ms();
        let (today, ahead) = (UtcDay::at(now), UtcDay::at(now + 5000 * DAY));
        let bytes = |sent| [((VesselName::new("tern"), None), LinkBytes { sent, ..LinkBytes::default() })];
        for day in 0..70 {
            ledger.add_link_bytes(UtcDay(today.0 - day), &bytes(100)).await.unwrap();
        }
        let time = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let set = |ms: i64| time.store(ms.cast_unsigned(), std::sync::atomic::Ordering::Relaxed);
        let clock = Clock::from_fn({
            let time = time.clone();
            move || std::time::UNIX_EPOCH + Duration::from_millis(time.load(std::sync::atomic::Ordering::Relaxed))
        });
        set(now);
        let usage = LinkUsage::load(&ledger, LinkMeters::default(), clock.clone()).await.unwrap();
        for _start in 0..2 {
            set(now + 5000 * DAY);
            usage.book().add(payer.clone(), ahead, bytes(7000)[0].1);
            ledger.add_link_bytes(ahead, &bytes(7000)).await.unwrap();
        }
        assert_eq!(usage.used(&payer, ahead), 14_000);
        // The usage of programs that were started before the clock was ahead, while it was ahead, and afterwards.
        let started = LinkUsage::load(&ledger, LinkMeters::default(), clock.clone()).await.unwrap();
        set(now);
        for usage in [usage, started, LinkUsage::load(&ledger, LinkMeters::default(), clock.clone()).await.unwrap()] {
            assert_eq!(usage.used(&payer, today), 100);
            assert_eq!(usage.used(&payer, UtcDay(today.0 - 30)), 3100);
            // With a clock that is far behind, like that of a host without a battery, no bytes become available a
            // second time.
            set(1000);
            assert!(usage.used(&payer, UtcDay(0)) >= 3100);
            set(now);
        }
        ledger.close().await.unwrap();
    }

    /// A shore that stops keeps the ceilings that other shores may still use: those of vessels that they serve now, and
    /// those of all links.
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
        let ceilings = ledger.ceilings(UtcDay(0), 9).await.unwrap();
        let left: Vec<_> = ceilings.into_iter().map(|(payer, _, bytes)| (payer, bytes)).collect();
        assert_eq!(left, [(vsat.to_string(), 100), (gull.to_string(), 300), (moved.to_string(), 300)]);
        ledger.close().await.unwrap();
    }
}
