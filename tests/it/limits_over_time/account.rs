//! What the links carried on each day of the clock that the test sets, as the proxies in front of the vessels count it, and
//! what the program may have counted differently: a byte that passed within a moment of midnight may belong to either day.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::calendar::{self, FILMS, NIGHTS, Windows};
use crate::fleet::clocked::SetClock;
use crate::fleet::proxy::Proxy;

/// The links, by number, with the vessel and the way that each belongs to.
pub(super) const LINKS: [(&str, Option<&str>); 4] =
    [("tern", Some("vsat")), ("gull", Some("lte")), ("gull", Some("vsat")), ("skua", None)];
/// The link of the vessel with the windows.
const SKUA: usize = 3;

/// How long before a change of the day bytes may be counted for the day after it, and how long after it bytes arrive that
/// were counted before: the program reads its meters at each write and every 0.5 s, and the proxies have buffers.
const BEFORE: Duration = Duration::from_millis(700);
const AFTER: Duration = Duration::from_millis(600);
/// How long before a kill bytes may have passed that were not recorded: longer than the half second of the program, because
/// this machine is busy.
const UNRECORDED: Duration = Duration::from_millis(1500);
/// How long a closed window is no reason to complain yet: the clock is followed within a second, and what was begun
/// is completed or stops after its current write.
const GRACE: Duration = Duration::from_millis(2500);
/// What a login and its session cost at most, beside files.
const LOGIN: u64 = 40_000;

/// Bytes on each link.
type Counts = [u64; LINKS.len()];

/// A budget, and whose bytes it limits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Limit {
    /// As in the status: `vessel` or `link`, and the name.
    pub(super) of: &'static str,
    pub(super) name: &'static str,
    pub(super) links: &'static [usize],
    pub(super) is_monthly: bool,
    pub(super) bytes: u64,
}

impl Limit {
    fn first_day(&self, at: Timestamp) -> i64 {
        if self.is_monthly { calendar::first_of_month(at) } else { calendar::day(at) }
    }

    fn last_day(&self, at: Timestamp) -> i64 {
        if self.is_monthly { calendar::day(calendar::next_month(at)) - 1 } else { calendar::day(at) }
    }

    /// When the period after that of a time begins.
    pub(super) fn ends(&self, at: Timestamp) -> Timestamp {
        if self.is_monthly { calendar::next_month(at) } else { calendar::next_day(at) }
    }
}

/// The most that may go in the current period of a limit.
struct Cap {
    limit: Limit,
    first_day: i64,
    bytes: u64,
}

/// Since when a window is closed, and what had been sent and could be exempt when the grace was over.
struct Closed {
    since: Instant,
    begun: Option<(u64, u64, u32)>,
}

/// The account of all links.
pub(super) struct Account<'a> {
    proxies: [&'a Proxy; LINKS.len()],
    book: Mutex<Book>,
    ended: AtomicBool,
}

struct Book {
    clock: SetClock,
    ahead: i64,
    seen: Counts,
    /// What each link carried, by day.
    days: BTreeMap<i64, Counts>,
    /// What may have been counted for another day, and for another month.
    blurred_days: BTreeMap<i64, Counts>,
    blurred_months: BTreeMap<i64, Counts>,
    recent: VecDeque<(Instant, Counts)>,
    /// Until when bytes may belong to either of two days.
    crossing: Option<(Instant, [Timestamp; 2])>,
    /// What a kill may have cost of the recorded sums, by day, and how many kills may have cost something.
    lost: BTreeMap<i64, Counts>,
    kills: BTreeMap<i64, u32>,
    caps: Vec<Cap>,
    windows: [&'static Windows; 2],
    closed: Option<Closed>,
    /// Bytes of files put so far that no window holds back, and those that arrived.
    exempt: u64,
    exempt_there: u64,
    starts: u32,
    last: Timestamp,
    figures: Figures,
    wrong: Vec<String>,
}

/// What happened to the clock and to the windows.
#[derive(Default, Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) time_changes_passed: u32,
    pub(super) time_changes_jumped: u32,
    pub(super) midnights: u32,
    pub(super) months: u32,
    pub(super) windows_closed: u32,
    pub(super) checks_of_budgets: u64,
}

impl<'a> Account<'a> {
    pub(super) fn new(proxies: [&'a Proxy; LINKS.len()], clock: SetClock) -> Self {
        let book = Book {
            clock,
            ahead: 0,
            seen: Counts::default(),
            days: BTreeMap::new(),
            blurred_days: BTreeMap::new(),
            blurred_months: BTreeMap::new(),
            recent: VecDeque::new(),
            crossing: None,
            lost: BTreeMap::new(),
            kills: BTreeMap::new(),
            caps: Vec::new(),
            windows: [&NIGHTS, &FILMS[0]],
            closed: None,
            exempt: 0,
            exempt_there: 0,
            starts: 0,
            last: Timestamp::now(),
            figures: Figures::default(),
            wrong: Vec::new(),
        };
        Self { proxies, book: Mutex::new(book), ended: AtomicBool::new(false) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the proxies until [`Self::end`].
    pub(super) fn keep(&self) {
        while !self.ended.load(Ordering::Relaxed) {
            drop(self.read());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    fn read(&self) -> MutexGuard<'_, Book> {
        let mut book = self.book();
        book.add(self.proxies.map(|proxy| proxy.sent() + proxy.received()));
        book
    }

    /// The time that the set clock shows.
    pub(super) fn now(&self) -> Timestamp {
        self.book().now()
    }

    /// Sets the clock. What passed before belongs to the time before.
    pub(super) fn set(&self, to: Timestamp) {
        let mut book = self.read();
        book.ahead = to.as_second() - Timestamp::now().as_second();
        let ahead = book.ahead;
        book.clock.set(ahead);
        let (before, after) = (book.last, book.now());
        if calendar::offset(before) != calendar::offset(after) {
            book.figures.time_changes_jumped += 1;
        }
        book.cross(before, after);
        book.closed = None;
    }

    /// Notes new budgets and windows. A lower budget ends what is being sent within a moment.
    pub(super) fn follow(&self, limits: &[Limit], films: &'static Windows) {
        const MEANWHILE: u64 = 2_500_000;
        let mut book = self.read();
        let now = book.now();
        let cap = |limit: &Limit| {
            let old =
                book.caps.iter().find(|cap| (cap.limit.name, cap.limit.is_monthly) == (limit.name, limit.is_monthly));
            let first_day = limit.first_day(now);
            let carried = book.carried(limit, now) + MEANWHILE;
            let still = old.filter(|old| old.first_day == first_day).map_or(0, |old| old.bytes.min(carried));
            Cap { limit: *limit, first_day, bytes: limit.bytes.max(still) }
        };
        book.caps = limits.iter().map(cap).collect();
        book.windows = [&NIGHTS, films];
        book.closed = None;
    }

    /// Has the program be killed: what it has not recorded is lost from the sums.
    pub(super) fn kill(&self, kill: impl FnOnce()) {
        let (before, unrecorded) = {
            let book = self.read();
            (book.seen, book.within(UNRECORDED))
        };
        kill();
        let mut book = self.read();
        let (today, seen) = (calendar::day(book.last), book.seen);
        let lost = book.lost.entry(today).or_default();
        for link in 0..LINKS.len() {
            // What is little is recorded only every minute.
            lost[link] += unrecorded[link] + (seen[link] - before[link]) + (64 << 10);
        }
        *book.kills.entry(today).or_default() += 1;
    }

    /// Notes that the program starts, which costs logins.
    pub(super) fn start(&self) {
        self.book().starts += 1;
    }

    /// Notes a file that no window holds back, and how many bytes of such files the vessel has.
    pub(super) fn exempt(&self, put: u64, there: u64) {
        let mut book = self.book();
        book.exempt += put;
        book.exempt_there = there;
    }

    /// What was found to be wrong so far.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.book().wrong.clone()
    }

    pub(super) fn figures(&self) -> Figures {
        self.book().figures
    }

    /// What the links of a limit carried in its current period, and how much of it may belong to another one.
    pub(super) fn carried(&self, limit: &Limit) -> (u64, u64) {
        let book = self.read();
        let now = book.now();
        (book.carried(limit, now), book.blur(limit, now))
    }

    /// How many kills there were in the current period of a limit.
    pub(super) fn kills(&self, limit: &Limit) -> u32 {
        let book = self.book();
        let now = book.now();
        book.kills.range(limit.first_day(now)..=limit.last_day(now)).map(|(_, kills)| kills).sum()
    }

    /// Whether there are bytes of days after today.
    pub(super) fn knows_the_future(&self) -> bool {
        let book = self.book();
        let today = calendar::day(book.now());
        book.days.range(today + 1..).next().is_some()
    }

    /// All bytes so far.
    pub(super) fn total(&self) -> u64 {
        self.read().seen.iter().sum()
    }

    /// For each day: what each link carried, what may belong to another day, and what kills may have cost.
    pub(super) fn days(&self) -> Vec<(i64, Counts, Counts, Counts)> {
        let book = self.read();
        let of = |map: &BTreeMap<i64, Counts>, day| map.get(&day).copied().unwrap_or_default();
        book.days
            .iter()
            .map(|(day, counts)| (*day, *counts, of(&book.blurred_days, *day), of(&book.lost, *day)))
            .collect()
    }
}

impl Book {
    fn now(&self) -> Timestamp {
        let now = Timestamp::try_from(SystemTime::now()).unwrap();
        calendar::later(now, self.ahead)
    }

    fn add(&mut self, counts: Counts) {
        let now = self.now();
        if calendar::offset(self.last) != calendar::offset(now) {
            self.figures.time_changes_passed += 1;
        }
        self.cross(self.last, now);
        let passed = std::array::from_fn(|link| counts[link] - self.seen[link]);
        self.seen = counts;
        if passed.iter().any(|passed| *passed > 0) {
            add_to(self.days.entry(calendar::day(now)).or_default(), &passed);
        }
        if let Some((until, times)) = self.crossing {
            if Instant::now() < until {
                self.blur_by(times, &passed);
            } else {
                self.crossing = None;
            }
        }
        self.recent.push_back((Instant::now(), counts));
        while self.recent.front().is_some_and(|(at, _)| at.elapsed() > UNRECORDED * 2) {
            self.recent.pop_front();
        }
        self.look_at_budgets(now);
        self.look_at_windows(now);
    }

    /// What passed within so much time.
    fn within(&self, time: Duration) -> Counts {
        let before = self.recent.iter().rev().find(|(at, _)| at.elapsed() >= time).or(self.recent.front());
        let before = before.map_or(self.seen, |(_, counts)| *counts);
        std::array::from_fn(|link| self.seen[link] - before[link])
    }

    /// Notes that the clock showed one time and now another.
    fn cross(&mut self, before: Timestamp, after: Timestamp) {
        self.last = after;
        if calendar::day(before) == calendar::day(after) {
            return;
        }
        self.figures.midnights += 1;
        if calendar::first_of_month(before) != calendar::first_of_month(after) {
            self.figures.months += 1;
        }
        let passed = self.within(BEFORE);
        self.blur_by([before, after], &passed);
        self.crossing = Some((Instant::now() + AFTER, [before, after]));
    }

    fn blur_by(&mut self, times: [Timestamp; 2], passed: &Counts) {
        let months = times.map(calendar::first_of_month);
        for time in times {
            add_to(self.blurred_days.entry(calendar::day(time)).or_default(), passed);
            if months[0] != months[1] {
                add_to(self.blurred_months.entry(calendar::first_of_month(time)).or_default(), passed);
            }
        }
    }

    fn carried(&self, limit: &Limit, at: Timestamp) -> u64 {
        let days = self.days.range(limit.first_day(at)..=limit.last_day(at));
        days.map(|(_, counts)| limit.links.iter().map(|link| counts[*link]).sum::<u64>()).sum()
    }

    fn blur(&self, limit: &Limit, at: Timestamp) -> u64 {
        let blurred = if limit.is_monthly { &self.blurred_months } else { &self.blurred_days };
        blurred.get(&limit.first_day(at)).map_or(0, |counts| limit.links.iter().map(|link| counts[*link]).sum())
    }

    /// No budget is exceeded by more than a hundredth.
    fn look_at_budgets(&mut self, now: Timestamp) {
        let mut caps = std::mem::take(&mut self.caps);
        for cap in &mut caps {
            let (carried, first_day) = (self.carried(&cap.limit, now), cap.limit.first_day(now));
            if cap.first_day != first_day {
                // A period to which the clock was set back may have had another budget.
                (cap.first_day, cap.bytes) = (first_day, cap.limit.bytes.max(carried));
            }
            let most = cap.bytes + cap.bytes / 100 + self.blur(&cap.limit, now);
            if carried > most && self.wrong.is_empty() {
                self.wrong.push(format!("{now}: {carried} bytes went for {:?}, not {most} at most", cap.limit));
            }
            self.figures.checks_of_budgets += 1;
        }
        self.caps = caps;
    }

    /// Outside its windows, the vessel gets only exempt files.
    fn look_at_windows(&mut self, now: Timestamp) {
        if calendar::are_open(&self.windows, now) {
            self.closed = None;
            return;
        }
        let (sent, exempt, starts) = (self.seen[SKUA], self.exempt, self.starts);
        let there = self.exempt_there;
        let closed = self.closed.get_or_insert_with(|| Closed { since: Instant::now(), begun: None });
        if closed.since.elapsed() < GRACE {
            return;
        }
        let (sent_before, there_before, starts_before) = *closed.begun.get_or_insert_with(|| {
            self.figures.windows_closed += 1;
            (sent, there, starts)
        });
        // A kill may have the files that are under way sent again.
        let restarts = u64::from(starts - starts_before);
        let open = exempt - there_before;
        let most = (open + open / 10) * (1 + restarts) + LOGIN * (1 + restarts) + open / 8;
        if sent - sent_before > most && self.wrong.is_empty() {
            let more = sent - sent_before;
            self.wrong.push(format!("{now}: {more} bytes went to skua outside of its windows, not {most} at most"));
        }
    }
}

fn add_to(sums: &mut Counts, counts: &Counts) {
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}
