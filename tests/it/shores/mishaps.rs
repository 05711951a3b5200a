//! The mishaps of two shores: how many of each kind, what each does, what must and must not follow, and how long takeovers
//! and hand-overs took.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::database_path::DatabasePath;
use super::traffic::Traffic;
use super::work_of;
use crate::fleet::Fleet;
use crate::fleet::daemon::Daemon;
use crate::fleet::postgres::Place;
use crate::fleet::wait::wait_until;

/// A shore takes over from others only once it has been connected for so long, or for `LeaseTime`.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mishap {
    /// A shore is killed; it may be back before its lease is over.
    Kill,
    /// A shore is stopped for a while.
    Stop,
    /// The database is killed, and started again.
    Database,
    /// The network between one shore and the database drops everything for a while.
    Cut,
    /// A shore is asked to end.
    End,
}

impl Mishap {
    const ALL: [Self; 5] = [Self::Kill, Self::Stop, Self::Database, Self::Cut, Self::End];

    /// Three of different kinds; or these kills, and the others in proportion to them: 200 : 50 : 20 : 20 : 20.
    pub(super) fn draw(kills: Option<u64>, random: &mut fastrand::Rng) -> Vec<Self> {
        let Some(kills) = kills else {
            let mut mishaps = Self::ALL.to_vec();
            random.shuffle(&mut mishaps);
            mishaps.truncate(3);
            return mishaps;
        };
        let times = |mishap: &Self| match mishap {
            Self::Kill => kills,
            Self::Stop => kills.div_ceil(4),
            Self::Database | Self::Cut | Self::End => kills.div_ceil(10),
        };
        let times = Self::ALL.iter().flat_map(|mishap| (0..times(mishap)).map(|_| *mishap));
        let mut mishaps: Vec<Self> = times.collect();
        random.shuffle(&mut mishaps);
        mishaps
    }
}

/// One of the shores.
struct Shore {
    name: &'static str,
    path: DatabasePath,
    url: String,
    daemon: Daemon,
    /// Since when it has surely been connected without an outage.
    steady_since: Option<Instant>,
    /// The token of the lease of its process before this one.
    former_token: String,
    /// What its earlier processes logged.
    logs: Vec<Vec<String>>,
}

/// How the campaign was asked for.
pub(super) struct Size {
    pub(super) lease: Duration,
    /// Whether each kill waits for the takeover, by a shore that has been connected for long enough.
    pub(super) times_each_kill: bool,
    /// Whether stops and cuts last as long as the requirement says.
    pub(super) is_long: bool,
}

/// Two shores, and what happened to them.
pub(super) struct Shores<'a> {
    fleet: &'a Fleet,
    place: &'a Place,
    traffic: &'a Traffic,
    /// The pieces of work of the fleet.
    work: usize,
    size: Size,
    shores: [Shore; 2],
    counts: BTreeMap<Mishap, u64>,
    /// How long takeovers and hand-overs took.
    took: BTreeMap<(Mishap, &'static str), Vec<Duration>>,
    began: Instant,
}

impl<'a> Shores<'a> {
    pub(super) fn start((fleet, place): (&'a Fleet, &'a Place), traffic: &'a Traffic, work: usize, size: Size) -> Self {
        let shores = ["one", "two"].map(|name| {
            let path = DatabasePath::start(place.socket());
            let url = place.url_at(path.port());
            let daemon = fleet.run_shore_with(name, &url);
            Shore { name, path, url, daemon, steady_since: None, former_token: String::new(), logs: Vec::new() }
        });
        let (counts, took) = (BTreeMap::new(), BTreeMap::new());
        Self { fleet, place, traffic, work, size, shores, counts, took, began: Instant::now() }
    }

    fn start_again(&mut self, at: usize) -> Daemon {
        let Self { fleet, place, shores, .. } = self;
        let shore = &mut shores[at];
        shore.former_token =
            place.psql(&format!("SELECT token FROM contentmonster.lease WHERE name = 'shore {}'", shore.name));
        shore.logs.push(shore.daemon.log());
        shore.steady_since = None;
        std::mem::replace(&mut shore.daemon, fleet.run_shore_with(shore.name, &shore.url))
    }

    /// The token of a shore's lease, if it has been renewed just now.
    fn renewed(place: &Place, name: &str, lease: Duration) -> Option<String> {
        if place.psql("SELECT to_regclass('contentmonster.lease') IS NOT NULL") == "f" {
            return None;
        }
        let third = (lease / 3).as_secs_f64();
        let token = place.psql(&format!(
            "SELECT token FROM contentmonster.lease WHERE name = 'shore {name}' AND cardinality(serves) > 0
             AND until > clock_timestamp() + interval '{third} s'"
        ));
        (!token.is_empty()).then_some(token)
    }

    /// Whether a shore has joined the others, and renews its lease.
    fn renews(&self, at: usize) -> bool {
        let shore = &self.shores[at];
        Self::renewed(self.place, shore.name, self.size.lease).is_some_and(|token| token != shore.former_token)
    }

    /// Waits until a shore is connected, and remembers since when.
    fn wait_until_connected(&mut self, at: usize) {
        let name = self.shores[at].name;
        wait_until(&format!("shore {name} to renew its lease"), || {
            self.assert_runs(at);
            self.renews(at)
        });
        self.shores[at].steady_since.get_or_insert_with(Instant::now);
    }

    fn steady_in(&self, at: usize) -> Option<Duration> {
        let since = self.shores[at].steady_since?;
        let needed = self.size.lease.max(GRACE) + Duration::from_secs(2);
        Some(needed.saturating_sub(since.elapsed()))
    }

    fn work_of(&self, at: usize) -> usize {
        work_of(self.place, self.shores[at].name, "")
    }

    fn assert_runs(&mut self, at: usize) {
        let shore = &mut self.shores[at];
        if !shore.daemon.runs() {
            panic!("shore {} has ended, although nothing happened to it", shore.name);
        }
    }

    /// Notes how long a takeover or hand-over took.
    fn record(&mut self, mishap: Mishap, what: &'static str, took: Duration) {
        println!("  {what} after {took:.1?}");
        self.took.entry((mishap, what)).or_default().push(took);
    }

    /// One mishap of a random shore, and what must follow.
    pub(super) fn suffer(&mut self, mishap: Mishap, random: &mut fastrand::Rng) {
        let (at, waits, is_timed) = (random.usize(0..2), random.bool(), random.u8(0..4) == 0);
        let pause = self.pause(mishap, random);
        *self.counts.entry(mishap).or_default() += 1;
        for at in 0..2 {
            if self.shores[at].steady_since.is_none() && self.renews(at) {
                self.shores[at].steady_since = Some(Instant::now());
            }
        }
        let whom = if mishap == Mishap::Database { "" } else { self.shores[at].name };
        println!("{:.1?} after the start: {mishap:?} {whom}", self.began.elapsed());
        match mishap {
            Mishap::Kill => self.kill(at, waits || self.size.times_each_kill, is_timed || self.size.times_each_kill),
            Mishap::Stop => self.stop(at, pause),
            Mishap::Database => self.kill_database(pause),
            Mishap::Cut => self.cut(at, pause),
            Mishap::End => self.end(at),
        }
    }

    /// How long a mishap lasts.
    fn pause(&self, mishap: Mishap, random: &mut fastrand::Rng) -> Duration {
        let (short, long) = (random.f64(), random.u8(0..5) == 0);
        let (least, most) = match mishap {
            Mishap::Stop if self.size.is_long && long => (10.0, 60.0),
            Mishap::Stop if self.size.is_long => (5.0, 10.0),
            Mishap::Stop => (1.0, 9.0),
            Mishap::Cut if self.size.is_long => (30.0, 30.0),
            Mishap::Cut => (4.0, 7.0),
            // Now and then longer than the lease.
            _ if long => (0.0, self.size.lease.as_secs_f64() + 3.0),
            _ => (0.0, 3.0),
        };
        Duration::from_secs_f64(least + short * (most - least))
    }

    fn kill(&mut self, at: usize, waits: bool, is_timed: bool) {
        let other = 1 - at;
        if is_timed && waits {
            self.wait_until_connected(other);
            std::thread::sleep(self.steady_in(other).expect("it is connected"));
            wait_until("both shores to have work", || self.work_of(at) > 0 && self.work_of(other) > 0);
        }
        let loses = self.work_of(other) < self.work;
        let is_steady = self.steady_in(other) == Some(Duration::ZERO);
        self.shores[at].daemon.send(Signal::KILL);
        let killed = Instant::now();
        if waits {
            wait_until("the other shore to take over", || self.work_of(other) == self.work);
            let took = killed.elapsed();
            if loses {
                self.record(Mishap::Kill, if is_steady { "taken over" } else { "taken over by a newcomer" }, took);
                let most = self.size.lease + Duration::from_secs(5);
                assert!(!is_steady || took <= most, "it took {took:?}");
            }
        }
        self.start_again(at);
    }

    fn stop(&mut self, at: usize, pause: Duration) {
        self.shores[at].daemon.send(Signal::STOP);
        self.wait_for_takeover(Mishap::Stop, at, pause);
        self.shores[at].daemon.send(Signal::CONT);
        self.follow_return(at);
    }

    fn cut(&mut self, at: usize, pause: Duration) {
        self.shores[at].path.silence(true);
        self.wait_for_takeover(Mishap::Cut, at, pause);
        // It can't know of a takeover yet.
        self.assert_runs(at);
        self.shores[at].path.silence(false);
        self.follow_return(at);
    }

    /// Waits for the end of a mishap of one shore, and whether the other one takes over meanwhile. Without a takeover,
    /// no step that needs the lease is done after its time.
    fn wait_for_takeover(&mut self, mishap: Mishap, at: usize, pause: Duration) {
        let (began, other, name) = (Instant::now(), 1 - at, self.shores[at].name);
        // What the shore sent before may be under way.
        std::thread::sleep(Duration::from_millis(50));
        let is_steady = self.steady_in(other) == Some(Duration::ZERO);
        let query = format!(
            "SELECT l.name FROM contentmonster.lease l JOIN contentmonster.lease s ON s.token = l.shore
             WHERE s.name = 'shore {name}'"
        );
        let held = self.place.psql(&query);
        let vessels: Vec<String> =
            held.lines().filter_map(|work| work.strip_prefix("vessel ")).map(str::to_owned).collect();
        let retires = held.lines().any(|work| work == "directory in");
        let (mut frozen, mut looks) = (None, 0);
        let mut is_taken = held.is_empty();
        while began.elapsed() < pause {
            let lease_is_over = began.elapsed() > self.size.lease;
            let published = (lease_is_over && !is_taken).then(|| self.traffic.published(&vessels, retires));
            // The leases are read after the files: if none was taken over, this shore itself has changed the files.
            if !is_taken && self.place.psql(&query).lines().count() < held.lines().count() {
                is_taken = true;
                let what = if is_steady { "taken over" } else { "taken over by a newcomer" };
                self.record(mishap, what, began.elapsed());
            }
            if let Some(published) = published.filter(|_| !is_taken) {
                let before = frozen.get_or_insert_with(|| published.clone());
                let changed: Vec<_> = before.symmetric_difference(&published).collect();
                assert!(changed.is_empty(), "shore {name} published or retired without a lease: {changed:?}");
                looks += 1;
            }
            self.assert_runs(other);
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(frozen) = frozen {
            println!("  {} published and retired files did not change without a lease ({looks} looks)", frozen.len());
        }
    }

    /// After a stop or a cut, a shore goes on, or ends because it was replaced.
    fn follow_return(&mut self, at: usize) {
        let other = 1 - at;
        wait_until("the shore to go on or to end", || !self.shores[at].daemon.runs() || self.renews(at));
        self.assert_runs(other);
        if self.shores[at].daemon.runs() {
            self.shores[at].steady_since = Some(Instant::now());
            return;
        }
        let ended = self.start_again(at).ended();
        assert_eq!(ended.code, Some(4), "{ended:?}");
        ended.must_say(&["has taken over"]);
        println!("  it was replaced");
    }

    fn kill_database(&mut self, pause: Duration) {
        self.place.server.kill9();
        std::thread::sleep(pause);
        self.place.server.run();
        for at in 0..2 {
            self.shores[at].steady_since = None;
            self.wait_until_connected(at);
        }
    }

    fn end(&mut self, at: usize) {
        let other = 1 - at;
        self.wait_until_connected(at);
        self.wait_until_connected(other);
        wait_until("both shores to have work", || self.work_of(at) > 0 && self.work_of(other) > 0);
        self.shores[at].daemon.send(Signal::TERM);
        let asked = Instant::now();
        wait_until("the other shore to have all work", || self.work_of(other) == self.work);
        self.record(Mishap::End, "handed over", asked.elapsed());
        wait_until("the shore to end", || !self.shores[at].daemon.runs());
        let ended = self.start_again(at).ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }

    /// Prints how often what happened, and how long it took.
    pub(super) fn print_figures(&mut self) {
        for (mishap, count) in &self.counts {
            println!("{mishap:?}: {count} times");
            for ((_, what), took) in self.took.iter_mut().filter(|((of, _), _)| of == mishap) {
                took.sort();
                let bar = if *mishap == Mishap::End { Duration::from_secs(1) } else { self.size.lease * 4 / 3 };
                let (least, median, most) = (took[0], took[took.len() / 2], took[took.len() - 1]);
                let within = took.iter().filter(|took| **took <= bar).count();
                println!(
                    "  {what}: {} times, after {least:.1?} to {most:.1?}, median {median:.1?}, {within} within {bar:.1?}: \
                     {took:.1?}",
                    took.len()
                );
            }
        }
    }

    /// Prints what the last processes of each shore before the current ones have logged.
    pub(super) fn print_logs(&self) {
        for Shore { name, logs, .. } in &self.shores {
            for log in &logs[logs.len().saturating_sub(3)..] {
                println!("--- log of an earlier process of shore {name}\n{}", log.join("\n"));
            }
        }
    }

    pub(super) fn terminate(self) {
        for shore in self.shores {
            shore.daemon.terminate();
        }
    }
}
