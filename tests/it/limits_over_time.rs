//! Expiry, windows and budgets over everything that happens to a shore in a year: kills, restarts, reloads, a clock that is
//! set forward and back, midnights, ends of months, and both changes of the time. The links are counted by the proxies in
//! front of the vessels, and the windows by a calendar of the test's own.
//!
//! No budget is exceeded, nothing is sent outside of a window but what is exempt, the ledger's sums are what the links
//! carried, every file waits for a reason or has an end, and when the limits open again, everything arrives that has not
//! expired.
//!
//! The seed is printed. `CONTENTMONSTER_SEED=n` makes the same choices again, and `CHURN_SECONDS=300` goes on for so long.

mod account;
mod calendar;
mod looks;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use contentmonster::names::VesselName;
use contentmonster::records::UtcDay;
use jiff::Timestamp;
use serde_json::Value;

use self::account::{Account, LINKS};
use self::calendar::{FILMS, NIGHTS, later};
use self::settings::{EXPIRE, Terms, Waters};
use crate::fleet::clocked::SetClock;
use crate::fleet::content::content;
use crate::fleet::daemon::Daemon;
use crate::fleet::namespace::Mounts;
use crate::fleet::wait::{DEADLINE, wait_until};
use crate::fleet::web::page_of;
use crate::fleet::{Fleet, names_in};

/// Bytes per second of each link.
const RATE: u64 = 700_000;
/// The most bytes that wait, beyond which no more files are put.
const BACKLOG: u64 = 8_000_000;
/// How long nothing may move while a file waits without a reason.
const STILL: Duration = Duration::from_secs(20);
/// What may be missing from a budget's counted bytes: those between two looks at two places.
const MEANWHILE: u64 = 20_000;
/// What a kill costs of a budget: a two-hundredth of it or 64 KiB, and what was on its way.
const COST_OF_A_KILL: u64 = 700_000;
/// What the proxies may not have seen: headers, which are most of a login, and what a cut connection had in its buffers.
const UNSEEN: u64 = 400_000;
/// A budget counts as spent when the next write does not fit beside what is left for the connection.
const SPENT: u64 = 420_000;

const VESSELS: [&str; 3] = ["tern", "gull", "skua"];

/// The directories, and the vessels that take them.
const DIRECTORIES: [(&str, &[&str]); 4] =
    [("in", &["tern", "gull"]), ("news", &["tern", "gull"]), ("storms", &VESSELS), ("films", &["skua"])];

/// A file that was put.
struct Put {
    directory: &'static str,
    name: String,
    bytes: Vec<u8>,
}

impl Put {
    fn vessels(&self) -> &'static [&'static str] {
        DIRECTORIES.iter().find(|(name, _)| *name == self.directory).expect("it has a directory").1
    }
}

/// A delivery: the vessel, the directory and the file.
type Key = (String, String, String);

fn key(of: &Value, file: &str) -> Key {
    let word = |name: &str| of[name].as_str().unwrap().to_owned();
    (word("vessel"), word("directory"), word(file))
}

struct Run<'a> {
    waters: &'a Waters,
    fleet: &'a Fleet,
    account: &'a Account<'a>,
    mounts: &'a Daemon,
    runtime: tokio::runtime::Runtime,
    clock: SetClock,
    daemon: Option<(Daemon, String)>,
    dice: fastrand::Rng,
    terms: Terms,
    files: Vec<Put>,
    /// What was told to have expired, which can't be taken back.
    expired: BTreeSet<Key>,
    was_killed: bool,
    counts: BTreeMap<&'static str, u32>,
    logs: Vec<String>,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.account.end();
        if std::thread::panicking() {
            self.logs.iter().for_each(|line| println!("{line}"));
        }
    }
}

impl Run<'_> {
    fn say(&self, what: &str) {
        println!("{} {what}", self.account.now());
    }

    fn count(&mut self, what: &'static str) {
        self.say(what);
        *self.counts.entry(what).or_default() += 1;
    }

    fn assert_nothing_wrong(&self) {
        let wrong = self.account.wrong();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    // ---- what happens ----

    fn act(&mut self) {
        match self.dice.u8(..32) {
            0..14 => self.put(),
            14 | 15 => self.stop(true),
            16 => self.stop(false),
            17 => self.reload(false),
            18 | 19 => self.reload(true),
            20 => self.jump("clock forward by hours", 3600..10 * 3600),
            21 => self.jump("clock forward by days", 86_400..4 * 86_400),
            22 => self.jump("clock back by minutes", -3000..-60),
            23 => self.jump("clock back by hours", -9 * 3600..-3600),
            24..27 => self.jump_near(),
            27 => {
                let link = self.dice.usize(..LINKS.len());
                self.waters.proxies()[link].cut();
                self.count("links cut");
            }
            28 | 29 => self.look(),
            _ => std::thread::sleep(Duration::from_millis(self.dice.u64(200..1500))),
        }
        if self.daemon.is_none() && self.dice.u8(..3) > 0 {
            self.start();
        }
        std::thread::sleep(Duration::from_millis(self.dice.u64(..200)));
        self.assert_nothing_wrong();
    }

    fn start(&mut self) {
        self.account.start();
        let daemon = self.fleet.run_clocked(self.mounts, &self.clock);
        let page = page_of(&daemon);
        self.daemon = Some((daemon, page));
        self.count("starts");
        if std::mem::take(&mut self.was_killed) {
            self.look_at_budgets();
        }
    }

    fn stop(&mut self, by_kill: bool) {
        let Some((daemon, _)) = self.daemon.take() else { return };
        self.logs.extend(daemon.log());
        if by_kill {
            self.account.kill(|| daemon.kill9());
            self.was_killed = true;
            self.count("kills");
        } else {
            daemon.terminate();
            self.count("clean stops");
        }
    }

    fn reload(&mut self, changed: bool) {
        if changed {
            self.terms.change(&mut self.dice);
            self.write_settings();
        }
        let Some((daemon, _)) = &self.daemon else { return };
        let reloads = || daemon.log().iter().filter(|line| line.contains("Settings reloaded")).count();
        let before = reloads();
        daemon.reload();
        wait_until("the settings to be reloaded", || reloads() > before);
        self.count(if changed { "reloads of changed settings" } else { "reloads of unchanged settings" });
        if changed {
            self.look_at_budgets();
        }
    }

    fn write_settings(&self) {
        self.account.follow(&self.terms.limits(), &FILMS[self.terms.films]);
        self.fleet.write_settings(&self.terms.fill(&self.waters.text));
    }

    fn jump(&mut self, what: &'static str, seconds: std::ops::Range<i64>) {
        let seconds = self.dice.i64(seconds);
        self.account.set(later(self.account.now(), seconds));
        self.count(what);
    }

    /// Sets the clock right before something happens, so that it happens while the program runs.
    fn jump_near(&mut self) {
        let now = self.account.now();
        let windows = [&NIGHTS, &FILMS[self.terms.films]];
        let is_open = calendar::are_open(&windows, now);
        let (what, to) = match self.dice.u8(..7) {
            0 | 1 => ("clock to a window's opening or closing", calendar::next(&windows, now, !is_open)),
            2 => ("clock to a midnight", calendar::next_day(now)),
            3 => ("clock to a month's end", calendar::next_month(now)),
            4 if self.counts.get("clock to a change of the time").is_none_or(|count| *count < 6) => {
                ("clock to a change of the time", calendar::next_time_change(now))
            }
            _ => ("clock into a window", later(calendar::next(&windows, now, true), 60)),
        };
        self.account.set(later(to, -self.dice.i64(1..4)).max(later(now, 1)));
        self.count(what);
    }

    fn put(&mut self) {
        let waiting: u64 = self.files.iter().rev().take(80).filter(|put| !self.is_there(put)).map(cost).sum();
        if waiting > BACKLOG {
            return;
        }
        for _ in 0..self.dice.usize(1..6) {
            let directory = DIRECTORIES[self.dice.usize(..DIRECTORIES.len())].0;
            let size = match directory {
                "storms" => self.dice.usize(..80_000),
                // Small files in progress are completed when a window closes; these are stopped.
                "films" => self.dice.usize(300_000..1_500_000),
                _ => self.dice.usize(..250_000),
            };
            let put =
                Put { directory, name: format!("{:04}", self.files.len()), bytes: content(self.dice.u64(..), size) };
            if directory == "storms" {
                let there = self.files.iter().filter(|put| put.directory == "storms" && self.is_on("skua", put));
                self.account.exempt(cost(&put), there.map(cost).sum());
            }
            let place = self.fleet.path("shore").join(directory).join(&put.name);
            self.fleet.put_at(&place, &put.bytes, 0o644, SystemTime::now());
            self.files.push(put);
            *self.counts.entry("files").or_default() += 1;
        }
    }

    fn is_on(&self, vessel: &str, put: &Put) -> bool {
        self.fleet.vessel(vessel).path(put.directory).join(&put.name).exists()
    }

    fn is_there(&self, put: &Put) -> bool {
        put.vessels().iter().all(|vessel| self.is_on(vessel, put))
    }

    // ---- the end ----

    /// Sets the clock to each time at which the program says that files continue, until none is left.
    fn open_all(&mut self) {
        if self.daemon.is_none() {
            self.start();
        }
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let queue = self.wait_until_explained();
            let continues = queue.iter().filter_map(|one| one["held"]["until"].as_str()?.parse::<Timestamp>().ok());
            let now = self.account.now();
            if let Some(next) = continues.filter(|next| *next > now).min() {
                self.account.set(later(next, 1));
                self.count("limits opened");
                let is_held = |one: &Value| one["held"]["until"].as_str() == Some(&next.to_string());
                wait_until("what was held back to go on", || !self.queue().iter().any(is_held));
            } else if queue.is_empty() && self.look_at_files() == 0 {
                return;
            }
            let total = self.account.total();
            if total > before + 1000 {
                (before, since) = (total, Instant::now());
            }
            assert!(since.elapsed() < DEADLINE, "no limit holds anything back, but nothing goes on: {queue:#?}");
            self.assert_nothing_wrong();
        }
    }

    /// Each file is whole on each vessel that did not let it expire, and its source is where it belongs.
    fn assert_ends(&mut self) {
        for put in &self.files {
            let has_expired =
                |vessel: &&&str| self.expired.contains(&((**vessel).into(), put.directory.into(), put.name.clone()));
            for vessel in put.vessels().iter().filter(|vessel| !has_expired(vessel)) {
                let there = fs::read(self.fleet.vessel(vessel).path(put.directory).join(&put.name));
                assert!(there.is_ok_and(|there| there == put.bytes), "{}/{} on {vessel}", put.directory, put.name);
            }
            let nobody_got_it = put.vessels().iter().all(|vessel| has_expired(&vessel));
            let at = self.fleet.path("shore").join(put.directory);
            let moved = at.join(if nobody_got_it { "expired" } else { "processed" }).join(&put.name);
            wait_until(&format!("{moved:?}"), || !at.join(&put.name).exists() && moved.exists());
            assert!(fs::read(&moved).unwrap() == put.bytes, "{moved:?}");
            let other = at.join(if nobody_got_it { "processed" } else { "expired" }).join(&put.name);
            assert!(!other.exists(), "{other:?}");
        }
        for (directory, _) in DIRECTORIES {
            let left = names_in(&self.fleet.path("shore").join(directory));
            let left: Vec<_> = left.iter().filter(|name| *name != "processed" && *name != "expired").collect();
            assert!(left.is_empty(), "{directory}: {left:?}");
        }
        VESSELS.iter().for_each(|vessel| self.fleet.wait_until_tidy(vessel));
    }

    /// The numbers of the status are those of the receipts, and each expiry has its time and its words.
    fn assert_told(&mut self) {
        let receipts = self.fleet.call(&["receipts", "--json"], "").stdout;
        let receipts = receipts.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let has_expired = |one: &Value| one["verified"].as_str().unwrap().starts_with("expired");
        let (expired, delivered): (Vec<Value>, Vec<Value>) = receipts.partition(has_expired);
        for vessel in VESSELS {
            let of_vessel = |all: &[Value]| all.iter().filter(|one| one["vessel"] == vessel).count() as u64;
            let expected = [of_vessel(&delivered), of_vessel(&expired), 0];
            // The status document follows the ledger after a moment.
            wait_until(&format!("the status to say {expected:?} of {vessel}"), || {
                let status = self.json("/api/status").expect("it runs");
                let shown = status["vessels"].as_array().unwrap().iter().find(|one| one["name"] == vessel).unwrap();
                let told = [&shown["acknowledged"]["files"], &shown["expired"], &shown["backlog"]["files"]];
                told.iter().zip(expected).all(|(told, expected)| told.as_u64() == Some(expected))
            });
        }
        let shortest = EXPIRE.iter().map(|(_, seconds)| *seconds).min().expect("there are two");
        for one in expired.iter().take(12) {
            let file = format!("news/{}", one["file"].as_str().unwrap());
            let why = self.fleet.call(&["why", &file, "--json"], "");
            let why: Value = serde_json::from_str(&why.stdout).unwrap();
            let version = &why["versions"][0];
            let of_vessel = |it: &&Value| it["vessel"] == one["vessel"];
            let told = version["deliveries"].as_array().unwrap().iter().find(of_vessel).unwrap();
            let words = told["now"].as_str().unwrap();
            assert!(words.starts_with("expired at") && words.contains("not sent any more"), "{why}");
            let time = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
            let age = time(&one["delivered"]).duration_since(time(&version["taken_in"])).as_secs();
            assert!(age >= shortest, "{file} expired {age} s after it was detected");
        }
        self.counts.insert("deliveries", u32::try_from(delivered.len()).unwrap());
        self.counts.insert("expired", u32::try_from(expired.len()).unwrap());
    }

    /// For each day, the ledger's sums are what the links carried.
    fn assert_sums(&self) {
        let (mut of_all, mut of_links) = ([0; 3], [0; 3]);
        for (day, carried, blur, lost) in self.account.days() {
            let day_only = || UtcDay(day)..=UtcDay(day);
            let of_vessels = self.ledger(async |ledger| ledger.link_bytes(day_only()).await);
            let of_ways = self.ledger(async |ledger| ledger.way_bytes(day_only()).await);
            for vessel in VESSELS {
                let mine = || (0..LINKS.len()).filter(|link| LINKS[*link].0 == vessel);
                let sum = |counts: [u64; LINKS.len()]| mine().map(|link| counts[link]).sum::<u64>();
                let name = VesselName::new(vessel);
                let counted = of_vessels.iter().filter(|(of, _)| *of == name).map(|(_, bytes)| bytes.total()).sum();
                check(&format!("{vessel} on day {day}"), counted, sum(carried), sum(blur), sum(lost));
                add(&mut of_all, [counted, sum(carried), sum(lost)]);
            }
            for (link, (vessel, way)) in LINKS.into_iter().enumerate() {
                let Some(way) = way else { continue };
                let is_mine =
                    |of: &(VesselName, Option<String>)| of.0.as_str() == vessel && of.1.as_deref() == Some(way);
                let counted = of_ways.iter().filter(|(of, _)| is_mine(of)).map(|(_, bytes)| bytes.total()).sum();
                check(&format!("{vessel} over {way} on day {day}"), counted, carried[link], blur[link], lost[link]);
                add(&mut of_links, [counted, carried[link], lost[link]]);
            }
        }
        for (what, [counted, carried, lost]) in [("vessels", of_all), ("links", of_links)] {
            println!("{what}: the ledger has {counted} bytes, the links carried {carried}, kills may have lost {lost}");
        }
    }
}

/// Compares the ledger's sum of a day with what a link carried.
fn check(what: &str, counted: u64, carried: u64, blur: u64, lost: u64) {
    assert!(
        counted + blur + lost + MEANWHILE >= carried,
        "{what}: counted {counted}, carried {carried}, {blur}, {lost}"
    );
    let most = carried + carried / 10 + blur + lost + UNSEEN;
    assert!(counted <= most, "{what}: counted {counted}, carried {carried}, {blur}, {lost}");
}

fn add(sums: &mut [u64; 3], more: [u64; 3]) {
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// What a file costs on the link.
fn cost(put: &Put) -> u64 {
    put.bytes.len() as u64 + 5000
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

#[test]
fn limits_hold_and_every_file_has_a_reason_whatever_happens_to_the_program_and_the_clock() {
    let seed = from_environment("CONTENTMONSTER_SEED", fastrand::u64(..1_000_000));
    let long = Duration::from_secs(from_environment("CHURN_SECONDS", 12));
    println!("CONTENTMONSTER_SEED={seed}");
    let Some(waters) = Waters::start() else { return };
    waters.proxies().iter().for_each(|proxy| proxy.limit(RATE));
    let (fleet, mounts) = (&waters.fleet, waters.fleet.keep_mounts(&Mounts::default()));
    let clock = || SetClock::new(fleet.path("clock"));
    let account = Account::new(waters.proxies(), clock());
    std::thread::scope(|scope| {
        scope.spawn(|| account.keep());
        let mut run = Run {
            waters: &waters,
            fleet,
            account: &account,
            mounts: &mounts,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            clock: clock(),
            daemon: None,
            dice: fastrand::Rng::with_seed(seed),
            terms: Terms::default(),
            files: Vec::new(),
            expired: BTreeSet::new(),
            was_killed: false,
            counts: BTreeMap::new(),
            logs: Vec::new(),
        };
        run.write_settings();
        run.start();
        let begun = Instant::now();
        let mut events = 0;
        while begun.elapsed() < long {
            run.act();
            events += 1;
        }
        run.open_all();
        run.assert_ends();
        run.assert_told();
        run.look_at_budgets();
        run.stop(false);
        run.assert_nothing_wrong();
        run.assert_sums();
        println!("seed {seed}: {events} events in {long:?}, {:?}, {:?}", run.counts, account.figures());
    });
}
