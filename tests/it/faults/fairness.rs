//! One vessel's trouble costs the others nothing measurable.
//!
//! `cargo test --release --test it faults::fairness -- --ignored --nocapture` measures it, on a machine that has nothing
//! else to do.

use std::fs;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use contentmonster::embedded_vessel::{Faults, InjectedFault, Request};

use super::bay::{Bay, Berth, names_in};
use super::policy::Tally;
use crate::fleet::content::content;
use crate::fleet::wait::DEADLINE;

const NAMES: [&str; 10] = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "hole"];
const SMALL_FILES: u64 = 300;
const LARGE_FILES: u64 = 4;

/// Swallows everything after so many requests, and answers nothing.
#[derive(Debug)]
struct BlackHole {
    after: usize,
    seen: AtomicUsize,
}

impl Faults for BlackHole {
    fn decide(&self, _: Request<'_>) -> InjectedFault {
        let swallowed = self.seen.fetch_add(1, Ordering::Relaxed) >= self.after;
        if swallowed { InjectedFault::Stall } else { InjectedFault::Serve }
    }
}

fn peak_kib(program: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel counts it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// How long nine vessels take to have everything, and the program's peak memory, beside a tenth of some kind.
async fn nine_beside(tenth: Arc<dyn Faults>, large: usize) -> (Duration, u64) {
    let berth = |name: &&'static str| {
        let policy: Arc<dyn Faults> = if *name == "hole" { tenth.clone() } else { Arc::new(Tally::default()) };
        Berth { name, shell: true, policy }
    };
    let bay = Bay::open(NAMES.iter().map(berth).collect(), "Timeout = 2s\nConnections = 1");
    (0..SMALL_FILES).for_each(|file| bay.put(&format!("small {file}"), &content(file, 4_000)));
    (0..LARGE_FILES).for_each(|file| bay.put(&format!("large {file}"), &content(1_000 + file, large)));
    let all = (SMALL_FILES + LARGE_FILES) as usize;
    let started = Instant::now();
    let mut program = bay.spawn(&[]);
    let served = |name: &&str| {
        let names = names_in(&bay.path(name).join("in"));
        names.iter().filter(|name| !name.starts_with('.')).count() == all
    };
    while !NAMES[..9].iter().all(served) {
        assert!(started.elapsed() < DEADLINE * 2, "nine vessels are not served:\n{}", bay.log_tail());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (took, peak) = (started.elapsed(), peak_kib(&program));
    program.kill().unwrap();
    program.wait().unwrap();
    assert_eq!(bay.broken_promises(), Vec::<String>::new());
    bay.close().await;
    (took, peak)
}

fn holes() -> Vec<(&'static str, Arc<dyn Faults>)> {
    let hole = |after| Arc::new(BlackHole { after, seen: AtomicUsize::new(0) });
    vec![
        ("a tenth that is served", Arc::new(Tally::default())),
        ("a black hole from the start", hole(0)),
        ("a black hole after 30 requests", hole(30)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nine_vessels_are_served_beside_one_that_swallows_everything() {
    for (what, tenth) in holes().into_iter().skip(1) {
        let (took, peak) = nine_beside(tenth, 300_000).await;
        println!("{what}: nine vessels served in {took:.2?}, peak memory {} MiB", peak >> 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "a measurement"]
async fn nine_vessels_are_served_as_fast_beside_a_black_hole_as_without_it() {
    const ROUNDS: usize = 5;
    let mut times = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        for (case, (what, tenth)) in holes().into_iter().enumerate() {
            let (took, peak) = nine_beside(tenth, 24 << 20).await;
            println!("round {round}, {what}: {took:.2?}, peak memory {} MiB", peak >> 10);
            times[case].push(took);
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    for (case, (what, _)) in holes().iter().enumerate() {
        println!("{what}: median {:.2?}", median(&mut times[case]));
    }
}
