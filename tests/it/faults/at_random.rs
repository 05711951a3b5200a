//! A random run by a seed: files come, change and go, vessels fail in every way, the program is stopped and killed.
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

use super::bay::{Bay, Berth};
use super::every_kill::ended;
use super::policy::Gale;
use crate::fleet::content::content;
use crate::fleet::process::signal;

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
    made: u64,
    restarts: u64,
}

impl Shore<'_> {
    async fn act(&mut self) {
        match self.dice.u8(..20) {
            0..10 => self.put(),
            10..13 => self.rewrite(),
            13 => self.take_away(),
            14 => self.end(Signal::KILL).await,
            15 => self.end(Signal::TERM).await,
            _ => {}
        }
        if self.program.is_none() {
            self.program = Some(self.bay.spawn(&[]));
            self.restarts += 1;
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
    let seed = from_environment("CONTENTMONSTER_SEED", fastrand::u64(..1_000_000));
    let seconds = from_environment("CONTENTMONSTER_SECONDS", 12);
    println!("CONTENTMONSTER_SEED={seed} CONTENTMONSTER_SECONDS={seconds}");
    let gales: Vec<_> = (0..3).map(|vessel| Arc::new(Gale::new(seed + vessel, ONE_IN))).collect();
    let berth = |(name, shell, vessel): (&'static str, bool, usize)| {
        let policy = gales[vessel].clone();
        Berth { name, shell, policy }
    };
    let berths = [("aurora", true, 0), ("borealis", false, 1), ("corona", true, 2)];
    let bay = Bay::open(berths.into_iter().map(berth).collect(), "Timeout = 1s\nConnections = 2");
    let dice = fastrand::Rng::with_seed(seed);
    let mut shore = Shore { bay: &bay, dice, files: BTreeMap::new(), program: None, made: 0, restarts: 0 };
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
        wrong = left_undone(&shore);
        if wrong.is_empty() {
            break;
        }
    }
    let failures: usize = gales.iter().map(|gale| gale.failures.load(Ordering::Relaxed)).sum();
    println!(
        "{} versions of {} files, {failures} failures on the vessels, {} starts of the program in {:.1?}",
        shore.made,
        shore.files.len(),
        shore.restarts,
        started.elapsed()
    );
    assert!(wrong.is_empty(), "seed {seed}: {wrong:?}\n{}", bay.log_tail());
    bay.close().await;
}

fn left_undone(shore: &Shore<'_>) -> Vec<String> {
    // One that was taken away may have been delivered before, or not: nothing is promised but that it is no mixture.
    let there = shore.files.iter().filter_map(|(name, bytes)| Some((name.clone(), bytes.clone()?)));
    shore.bay.unfinished(&there.collect::<Vec<_>>())
}
