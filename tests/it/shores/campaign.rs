//! Two shores under traffic, of which one is killed, stopped and woken, cut off from the database, or ended, again and again,
//! and the database killed with them. A watcher looks at the vessels throughout.
//!
//! `CONTENTMONSTER_SHORES_KILLS=200` makes it 20 vessels, 200 kills and the other mishaps in proportion.
//! `CONTENTMONSTER_SHORES_LEASE=15s` sets `LeaseTime`, and has each kill wait for a takeover that is timed.
//! `CONTENTMONSTER_SEED` makes the same mishaps again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::mishaps::{Mishap, Shores, Size};
use super::traffic::Traffic;
use crate::fleet::Fleet;
use crate::fleet::postgres::Place;

/// The pieces of work beside the vessels: two directories, and the housekeeping.
const OTHER_WORK: usize = 3;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{variable} is {text}; expected a number")))
}

#[test]
fn shores_that_are_killed_stopped_cut_off_and_ended_lose_and_mix_nothing() {
    let kills = number("CONTENTMONSTER_SHORES_KILLS");
    let lease = number("CONTENTMONSTER_SHORES_LEASE");
    let seed = number("CONTENTMONSTER_SEED").unwrap_or_else(|| fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let size = Size {
        lease: Duration::from_secs(lease.unwrap_or(3)),
        times_each_kill: lease.is_some(),
        is_long: kills.is_some(),
    };
    let mishaps = Mishap::draw(kills, &mut random);
    println!("{} mishaps with CONTENTMONSTER_SEED={seed}", mishaps.len());

    let place = Place::alone();
    let vessels: Vec<String> = (1..=if kills.is_some() { 20 } else { 4 }).map(|at| format!("ship{at:02}")).collect();
    let plan = vessels.iter().fold(Fleet::new(), |plan, name| plan.openssh(name));
    let plan = plan.directory("charts").key("Mode", "mirror").key("Delete", "yes").key("MaxDelete", "1000");
    let plan = plan.monster("ChunkSize", "1 MiB").monster("RateLimit", "20 MiB/s").monster("Database", &place.url());
    let plan = plan.monster("LeaseTime", &format!("{}s", size.lease.as_secs()));
    let Some(fleet) = plan.start() else { return };

    let traffic = Traffic::new(&fleet, &vessels);
    let mut shores = Shores::start((&fleet, &place), &traffic, vessels.len() + OTHER_WORK, size);
    let (quiet, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let writing_random = random.fork();
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| traffic.watch(&over));
        let writing = scope.spawn(|| traffic.write_until(&quiet, writing_random));
        // A failed assertion must end the other threads.
        let driving = catch_unwind(AssertUnwindSafe(|| {
            for mishap in mishaps {
                std::thread::sleep(Duration::from_millis(random.u64(1000..4000)));
                shores.suffer(mishap, &mut random);
                assert!(!watching.is_finished(), "the watcher has seen something");
                assert!(!writing.is_finished(), "the traffic has ended");
            }
            shores.print_figures();
            quiet.store(true, Ordering::Relaxed);
            traffic.wait_until_delivered(&fleet);
        }));
        quiet.store(true, Ordering::Relaxed);
        over.store(true, Ordering::Relaxed);
        let looks = watching.join();
        if driving.is_err() || looks.is_err() {
            println!("failed with CONTENTMONSTER_SEED={seed}");
            shores.print_logs();
        }
        writing.join().unwrap();
        println!("the watcher looked {} times", looks.unwrap());
        if let Err(panic) = driving {
            std::panic::resume_unwind(panic);
        }
    });
    shores.terminate();
}
