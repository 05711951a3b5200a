//! A random run by a seed: files come, change and go, vessels fail in every way, the program is stopped and killed, its clock
//! jumps, its settings give sections other names and files other places.
//!
//! The seed is printed. `CONTENTMONSTER_SEED=n cargo test --test it faults::at_random -- --nocapture` makes the same
//! choices again, and `CONTENTMONSTER_SECONDS=600` goes on for so long.

use std::collections::BTreeMap;
use std::fs;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::bay::{Bay, Berth, PLACES};
use super::every_kill::ended;
use super::policy::Gale;
use crate::fleet::content::content;
use crate::fleet::process::{catches, signal};

/// One request of so many fails.
const ONE_IN: usize = 60;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

/// The shore's side of the run.
struct Shore<'a> {
    bay: &'a Bay,
    dice: fastrand::Rng,
    /// What each path held last; `None`: it was taken away.
    files: BTreeMap<String, Option<Vec<u8>>>,
    program: Option<Child>,
    /// Whether sections get other names and files other places.
    settings_change: bool,
    made: u64,
    restarts: u64,
    jumps: u64,
    changes: u64,
}

impl<'a> Shore<'a> {
    fn new(bay: &'a Bay, seed: u64, settings_change: bool) -> Self {
        let (dice, files) = (fastrand::Rng::with_seed(seed), BTreeMap::new());
        Self { bay, dice, files, program: None, settings_change, made: 0, restarts: 0, jumps: 0, changes: 0 }
    }

    /// What is wrong once nothing is left to do.
    fn left_undone(&self, wrongs: Wrongs) -> Vec<String> {
        // One that was taken away may have been delivered before, or not: nothing is promised but that it is no mixture.
        let there = self.files.iter().filter_map(|(name, bytes)| Some((name.clone(), bytes.clone()?)));
        wrongs(self.bay, &there.collect::<Vec<_>>())
    }

    async fn act(&mut self) {
        match self.dice.u8(..20) {
            0..10 => self.put(),
            10..13 => self.rewrite(),
            13 => self.take_away(),
            14 => self.end(Signal::KILL).await,
            15 => self.end(Signal::TERM).await,
            16 => {
                self.bay.clock().jump(&mut self.dice);
                self.jumps += 1;
            }
            17 if self.settings_change => self.change_settings().await,
            _ => {}
        }
        if self.program.is_none() {
            self.program = Some(self.bay.spawn_clocked());
            self.restarts += 1;
        }
        let ended = self.program.as_mut().and_then(|program| program.try_wait().unwrap());
        assert!(ended.is_none(), "the program has ended: {ended:?}\n{}", self.bay.log_tail());
    }

    /// A section gets another name, or the files of one another place; the program hears of it by a reload or a restart.
    async fn change_settings(&mut self) {
        let (what, name) = (self.dice.u8(..3), format!("name {}", self.dice.u32(..)));
        let (vessel, place) = (self.dice.usize(..3), PLACES[self.dice.usize(..PLACES.len())]);
        self.bay.change_settings(|sections| match what {
            0 => sections.directory = name,
            1 => sections.vessels[vessel].0 = name,
            _ => sections.vessels[vessel].1 = place,
        });
        self.changes += 1;
        match (self.dice.u8(..3), self.program.as_ref().map(Child::id)) {
            (0, Some(pid)) => {
                while !catches(pid, Signal::HUP) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                signal(pid, Signal::HUP);
            }
            (1, _) => self.end(Signal::TERM).await,
            _ => self.end(Signal::KILL).await,
        }
    }

    fn content(&mut self) -> Vec<u8> {
        self.made += 1;
        let most = if self.dice.u8(..8) == 0 { 500_000 } else { 8_000 };
        // Never the same twice, nor empty: then a name's bytes tell which version it is.
        content(self.dice.u64(..), self.dice.usize(16..most))
    }

    /// A new file, or another in the place of one.
    fn put(&mut self) {
        let (name, bytes) = (format!("file {}", self.dice.u8(..40)), self.content());
        self.bay.put(&name, &bytes);
        self.files.insert(name, Some(bytes));
    }

    /// Writes into a file that may be on its way, if it is still there.
    fn rewrite(&mut self) {
        let (name, bytes) = (format!("file {}", self.dice.u8(..40)), self.content());
        if !self.bay.source(&name).exists() {
            return;
        }
        self.bay.note(&bytes);
        // Where it retires between the look and the writing, this is a new file, which is as good.
        fs::write(self.bay.source(&name), &bytes).unwrap();
        self.files.insert(name, Some(bytes));
    }

    fn take_away(&mut self) {
        let name = format!("file {}", self.dice.u8(..40));
        if fs::remove_file(self.bay.source(&name)).is_ok() {
            self.files.insert(name, None);
        }
    }

    async fn end(&mut self, how: Signal) {
        let Some(program) = self.program.take() else { return };
        signal(program.id(), how);
        // One that has hardly started doesn't listen yet, and is ended by either.
        let code = ended(program, self.bay).await;
        assert!(code.is_none_or(|code| how == Signal::TERM && code == 0), "{code:?}\n{}", self.bay.log_tail());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_by_chance_nothing_is_lost_and_nothing_mixed() {
    run(false, Bay::unfinished).await;
}

/// What was begun for a section that has another name by now stays on the vessel, under a name of ours: nobody knows whether
/// it will be called so again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_sections_are_called_and_wherever_files_go_nothing_is_lost_and_nothing_mixed() {
    run(true, Bay::undelivered).await;
}

/// What is wrong when certain files, and no others, should have been delivered.
type Wrongs = fn(&Bay, &[(String, Vec<u8>)]) -> Vec<String>;

async fn run(settings_change: bool, wrongs: Wrongs) {
    let seed = from_environment("CONTENTMONSTER_SEED", fastrand::u64(..1_000_000));
    let seconds = from_environment("CONTENTMONSTER_SECONDS", 12);
    println!("CONTENTMONSTER_SEED={seed} CONTENTMONSTER_SECONDS={seconds}");
    let gales: Vec<_> = (0..3).map(|vessel| Arc::new(Gale::new(seed + vessel, ONE_IN))).collect();
    let berth = |(name, shell, vessel): (&'static str, bool, usize)| {
        let policy = gales[vessel].clone();
        Berth { name, shell, policy }
    };
    let berths = [("aurora", true, 0), ("borealis", false, 1), ("corona", true, 2)];
    // Every other seed, the vessels with a shell receive small files through its loop.
    let small_files = if seed.is_multiple_of(2) { "shell" } else { "sftp" };
    let keys = format!("Timeout = 1s\nConnections = 2\nSmallFiles = {small_files}");
    let bay = Bay::open(berths.into_iter().map(berth).collect(), &keys);
    let mut shore = Shore::new(&bay, seed, settings_change);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(seconds) {
        shore.act().await;
        let pause = shore.dice.u64(10..120);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        assert_eq!(bay.broken_promises(), Vec::<String>::new(), "seed {seed}\n{}", bay.log_tail());
    }
    gales.iter().for_each(|gale| gale.end());
    shore.end(Signal::KILL).await;
    // It may take a run to hear of what the last storm left.
    let mut wrong = Vec::new();
    for _ in 0..3 {
        ended(bay.spawn(&["--once"]), &bay).await;
        wrong = shore.left_undone(wrongs);
        if wrong.is_empty() {
            break;
        }
    }
    let failures: usize = gales.iter().map(|gale| gale.failures.load(Ordering::Relaxed)).sum();
    println!(
        "{} versions of {} files, {failures} failures on the vessels, {} starts of the program, {} jumps of its clock, \
         {} changes of its settings in {:.1?}",
        shore.made,
        shore.files.len(),
        shore.restarts,
        shore.jumps,
        shore.changes,
        started.elapsed()
    );
    assert!(wrong.is_empty(), "seed {seed}: {wrong:?}\n{}", bay.log_tail());
    bay.close().await;
}
