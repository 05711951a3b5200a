//! Two shores under traffic, of which one is killed, stopped and woken, or ended, again and again, and the database with
//! them. A watcher looks at the vessels throughout: nothing is lost, mixed, published old over new, deleted or retired early.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{VESSELS, WORK, fleet, plan, put_chart, work_of};
use crate::fleet::Fleet;
use crate::fleet::content::content;
use crate::fleet::daemon::Daemon;
use crate::fleet::names_in;
use crate::fleet::postgres::Place;
use crate::fleet::wait::wait_until;

/// Number of charts, and of those that are deleted now and then.
const CHARTS: u64 = 12;
const DELETED: u64 = 3;

/// The bytes of one version of a file: its number, then bytes and a length that follow from it.
fn version(number: u64) -> Vec<u8> {
    let length = if number.is_multiple_of(7) { 2_500_000 } else { 100 + number * 37 % 5000 };
    let length = usize::try_from(length).expect("it is small");
    [format!("{number:012}\n").into_bytes(), content(number, length)].concat()
}

/// The number of a version, if the bytes are exactly one.
fn number_of(bytes: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(bytes.get(..12)?).ok()?.parse().ok()?;
    (version(number) == bytes).then_some(number)
}

/// What the traffic has written so far.
#[derive(Default)]
struct Written {
    /// The newest version of each chart; `None`: it was deleted.
    charts: BTreeMap<u64, Option<u64>>,
    files: Vec<(String, u64)>,
    next: u64,
}

fn write(fleet: &Fleet, written: &Mutex<Written>, random: &mut fastrand::Rng) {
    let mut written = written.lock().unwrap();
    written.next += 1;
    let number = written.next;
    match random.u8(0..10) {
        0..3 => {
            let name = format!("file {number}");
            fleet.put(&name, &version(number));
            written.files.push((name, number));
        }
        3 => {
            let chart = random.u64(0..DELETED);
            if written.charts.get(&chart).copied().flatten().is_some() {
                // Before the file goes, so that the watcher knows of it.
                written.charts.insert(chart, None);
                std::fs::remove_file(fleet.path(format!("shore/charts/{chart}"))).unwrap();
            }
        }
        _ => {
            let chart = random.u64(0..CHARTS);
            put_chart(fleet, &chart.to_string(), &version(number));
            written.charts.insert(chart, Some(number));
        }
    }
}

/// Looks at the vessels until `over`: what they hold is whole, never older than before, and never missing.
fn watch(charts: &[(&str, PathBuf)], files: &[PathBuf], processed: &Path, over: &AtomicBool) -> u64 {
    let mut newest: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    let mut looks = 0;
    while !over.load(Ordering::Relaxed) {
        for (vessel, at) in charts {
            for chart in 0..CHARTS {
                let before = newest.get(&(vessel, chart)).copied();
                match std::fs::read(at.join(chart.to_string())) {
                    Ok(bytes) => {
                        let number = number_of(&bytes);
                        let number = number.unwrap_or_else(|| panic!("{vessel} holds a mixed chart {chart}"));
                        assert!(before.is_none_or(|it| it <= number), "{vessel}: {number} replaced {before:?}");
                        newest.insert((vessel, chart), number);
                    }
                    Err(_) => assert!(chart < DELETED || before.is_none(), "{vessel} lost chart {chart}"),
                }
            }
        }
        for retired in names_in(processed) {
            let name = PathBuf::from(retired);
            if !name.to_string_lossy().starts_with("file") {
                continue;
            }
            for held in files {
                assert!(held.join(&name).exists(), "{name:?} was retired before {held:?} had it");
            }
        }
        looks += 1;
        std::thread::sleep(Duration::from_millis(30));
    }
    looks
}

struct Shore {
    name: &'static str,
    daemon: Daemon,
}

impl Shore {
    fn start(fleet: &Fleet, name: &'static str) -> Self {
        Self { name, daemon: fleet.run_shore(name) }
    }

    fn start_again(&mut self, fleet: &Fleet) {
        self.daemon = fleet.run_shore(self.name);
    }
}

/// One mishap; returns what it was, and for a takeover how long it took.
fn mishap(
    fleet: &Fleet,
    place: &Place,
    shores: &mut [Shore; 2],
    random: &mut fastrand::Rng,
) -> (&'static str, Option<Duration>) {
    let at = random.usize(0..2);
    let other = shores[1 - at].name;
    let taken_over = || {
        let began = Instant::now();
        wait_until("the other shore to take over", || work_of(place, other, "") == WORK);
        Some(began.elapsed())
    };
    match random.u8(0..8) {
        0..4 => {
            shores[at].daemon.send(Signal::KILL);
            // Sometimes it is back before its lease is over.
            let took = if random.bool() { taken_over() } else { None };
            shores[at].start_again(fleet);
            ("kill", took)
        }
        4..6 => {
            shores[at].daemon.send(Signal::STOP);
            std::thread::sleep(Duration::from_millis(random.u64(1000..9000)));
            shores[at].daemon.send(Signal::CONT);
            std::thread::sleep(Duration::from_secs(2));
            if !shores[at].daemon.runs() {
                shores[at].start_again(fleet);
            }
            ("stop", None)
        }
        6 => {
            shores[at].daemon.send(Signal::TERM);
            let took = taken_over();
            wait_until("the shore to end", || !shores[at].daemon.runs());
            shores[at].start_again(fleet);
            ("end", took)
        }
        _ => {
            place.server.kill9();
            std::thread::sleep(Duration::from_millis(random.u64(0..3000)));
            place.server.run();
            std::thread::sleep(Duration::from_secs(7));
            for shore in shores {
                if !shore.daemon.runs() {
                    shore.start_again(fleet);
                }
            }
            ("database", None)
        }
    }
}

#[test]
fn shores_that_are_killed_stopped_and_ended_lose_and_mix_nothing() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let mishaps = number("CONTENTMONSTER_SHORES_KILLS").unwrap_or(3);
    let seed = number("CONTENTMONSTER_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{mishaps} mishaps with CONTENTMONSTER_SEED={seed}");
    let place = Place::alone();
    let Some(fleet) = fleet(plan().monster("RateLimit", "20 MiB/s"), &place) else { return };
    let mut random = fastrand::Rng::with_seed(seed);
    let (written, over) = (Mutex::new(Written::default()), AtomicBool::new(false));
    let mut shores = ["one", "two"].map(|name| Shore::start(&fleet, name));
    let paths = |below: &str| VESSELS.map(|vessel| (vessel, fleet.vessel(vessel).path(below)));
    let (charts, files) = (paths("charts"), paths("in").map(|(_, path)| path));
    let processed = fleet.path("shore/in/processed");
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&charts, &files, &processed, &over));
        // A failed assertion must end the other threads.
        let driving = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut took: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            for _ in 0..mishaps {
                let until = Instant::now() + Duration::from_millis(random.u64(1000..4000));
                while Instant::now() < until {
                    write(&fleet, &written, &mut random);
                    std::thread::sleep(Duration::from_millis(random.u64(5..60)));
                }
                let (what, after) = mishap(&fleet, &place, &mut shores, &mut random);
                *counts.entry(what).or_default() += 1;
                took.entry(what).or_default().extend(after);
                assert!(!watching.is_finished(), "the watcher has seen something");
            }
            for (what, took) in &mut took {
                took.sort();
                println!("{what}: {} times, taken over after {took:?}", counts[what]);
            }
            let written = written.lock().unwrap();
            for (name, number) in &written.files {
                fleet.wait_until_retired(name);
                VESSELS.iter().for_each(|vessel| fleet.assert_equal(vessel, name, &version(*number)));
            }
            for (chart, number) in &written.charts {
                for (vessel, at) in &charts {
                    let held = || std::fs::read(at.join(chart.to_string())).ok().and_then(|bytes| number_of(&bytes));
                    wait_until(&format!("chart {chart} on {vessel} to be {number:?}"), || held() == *number);
                }
            }
            println!("{} files, {} charts, {} writes", written.files.len(), written.charts.len(), written.next);
        }));
        over.store(true, Ordering::Relaxed);
        println!("the watcher looked {} times", watching.join().unwrap());
        if let Err(panic) = driving {
            std::panic::resume_unwind(panic);
        }
    });
    for shore in shores {
        shore.daemon.terminate();
    }
}
