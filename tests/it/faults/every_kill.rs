//! `kill -9` of the real program: at every request that it makes, and at any moment while it has much to do.
//!
//! Every state is entered in the ledger before its act is asked of the vessel, so a kill at a request is a kill right
//! after a state was entered; one after the vessel has acted, a kill right before the next is.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use contentmonster::embedded_vessel::{Faults, InjectedFault, Request};
use rustix::process::Signal;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::bay::{Bay, Berth, names_in};
use super::policy::{Kind, Tally};
use crate::fleet::content::content;
use crate::fleet::process::signal;
use crate::fleet::wait::DEADLINE;

/// Kills the program at the request of a number.
#[derive(Debug)]
struct Killer {
    at: usize,
    /// Whether the vessel still does what it was asked for.
    acts: bool,
    seen: AtomicUsize,
    program: AtomicU32,
}

impl Faults for Killer {
    fn decide(&self, _: Request<'_>) -> InjectedFault {
        if self.seen.fetch_add(1, Ordering::Relaxed) != self.at {
            return InjectedFault::Serve;
        }
        signal(self.program.load(Ordering::Relaxed), Signal::KILL);
        if self.acts { InjectedFault::Serve } else { InjectedFault::Stall }
    }
}

/// Waits for the program's end; gives its exit code, `None` when it was killed.
pub(super) async fn ended(mut program: Child, bay: &Bay) -> Option<i32> {
    let started = Instant::now();
    loop {
        if let Some(status) = program.try_wait().unwrap() {
            return status.code();
        }
        if started.elapsed() > DEADLINE {
            let _ = program.kill();
            let _ = program.wait();
            panic!("the program does not end:\n{}", bay.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the vessel has a shell, and its `SmallFiles`.
type Manner = (bool, &'static str);

fn files() -> Vec<(String, Vec<u8>)> {
    vec![("small".to_owned(), content(1, 3_000)), ("large".to_owned(), content(2, 300_000))]
}

/// Opens a bay whose vessel has a shell or not, and `SmallFiles` as given.
fn open((shell, small_files): Manner, policy: Arc<dyn Faults>) -> Bay {
    let keys = format!("SmallFiles = {small_files}");
    let bay = Bay::open(vec![Berth { name: "vessel", shell, policy }], &keys);
    files().iter().for_each(|(name, bytes)| bay.put(name, bytes));
    bay
}

/// One kill, and the run after it, which nobody helps.
async fn killed_at(manner: Manner, at: usize, acts: bool) -> Result<(), String> {
    let killer = Arc::new(Killer { at, acts, seen: AtomicUsize::new(0), program: AtomicU32::new(0) });
    let bay = open(manner, killer.clone());
    let first = bay.spawn(&["--once"]);
    killer.program.store(first.id(), Ordering::Relaxed);
    ended(first, &bay).await;
    let mut wrong = bay.broken_promises();
    let code = ended(bay.spawn(&["--once"]), &bay).await;
    if code != Some(0) {
        wrong.push(format!("the next run ended with {code:?}:\n{}", bay.log_tail()));
    }
    wrong.extend(bay.unfinished(&files()));
    bay.close().await;
    let told = format!("{manner:?}, killed at request {at}, which was {}served", if acts { "" } else { "not " });
    if wrong.is_empty() { Ok(()) } else { Err(format!("{told}: {wrong:?}")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_any_request_the_next_run_ends_what_it_began() {
    let (places, started, mut running) = (Arc::new(Semaphore::new(12)), Instant::now(), JoinSet::new());
    for manner in [(true, "sftp"), (true, "shell"), (false, "sftp")] {
        let tally = Arc::new(Tally::default());
        let bay = open(manner, tally.clone());
        assert_eq!(ended(bay.spawn(&["--once"]), &bay).await, Some(0), "{}", bay.log_tail());
        bay.close().await;
        for (at, acts) in (0..tally.of(Kind::CutBefore)).flat_map(|at| [(at, true), (at, false)]) {
            let places = places.clone();
            running.spawn(async move {
                let _place = places.acquire().await;
                killed_at(manner, at, acts).await
            });
        }
    }
    let outcomes = running.join_all().await;
    println!("{} kills at requests in {:.1?}", outcomes.len(), started.elapsed());
    let broken: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// `CONTENTMONSTER_KILLS=200 cargo test --test it killed_again_and_again -- --nocapture` kills so often.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_again_and_again_during_traffic_to_two_vessels_it_loses_nothing() {
    let kills: u64 = std::env::var("CONTENTMONSTER_KILLS").map_or(12, |kills| kills.parse().expect("a number"));
    let berth = |name, shell| Berth { name, shell, policy: Arc::new(Tally::default()) };
    let bay = Bay::open(vec![berth("aurora", true), berth("borealis", false)], "SmallFiles = shell");
    let (mut files, started) = (Vec::new(), Instant::now());
    for kill in 0..kills {
        for file in 0..4 {
            let seed = kill * 10 + file;
            let bytes = content(seed, fastrand::usize(..if file == 0 { 600_000 } else { 20_000 }));
            let name = format!("{kill}-{file}");
            bay.put(&name, &bytes);
            files.push((name, bytes));
        }
        let mut program = bay.spawn(&[]);
        // Whatever it is doing by then: nothing yet, anything, or nothing more.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..700))).await;
        program.kill().unwrap();
        program.wait().unwrap();
        assert_eq!(bay.broken_promises(), Vec::<String>::new(), "after kill {kill}");
    }
    let left = names_in(&bay.path("in")).len() - 1;
    assert_eq!(ended(bay.spawn(&["--once"]), &bay).await, Some(0), "{}", bay.log_tail());
    println!("{kills} kills in {:.1?}; {} files, {left} of them left for the last run", started.elapsed(), files.len());
    assert_eq!(bay.unfinished(&files), Vec::<String>::new());
    assert_eq!(names_in(&bay.path("in/processed")).len(), files.len(), "each file retires once");
    bay.close().await;
}
