//! A long queue: how soon the first file is there, and whether the last ones come as fast as the first.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Result;
use crate::case::Case;
use crate::freight::visible;
use crate::ours::{Ours, write_settings};
use crate::report::{Section, figure};
use crate::rounds::{Bench, Stage, alone};
use crate::watch::{Running, tail};

const HEADER: &[&str] = &[
    "program",
    "first delivery s",
    "all delivered s",
    "first quarter /s",
    "last quarter /s",
    "ended s",
    "CPU s",
    "peak MiB",
];

/// How often destinations are counted: listing 300,000 names takes a part of a core, too.
const COUNT: Duration = Duration::from_secs(2);

pub(crate) fn measure(bench: &Bench, case: &Case) -> Result<Section> {
    alone(bench, case, HEADER, one_run)
}

fn one_run(bench: &Bench, case: &Case, stage: &Stage, ours: &Ours) -> Result<Vec<String>> {
    let limit = bench.limit(Duration::from_secs(1800));
    let places = stage.fresh(case.vessels)?;
    let settings = write_settings(&stage.task(&places), &[], &bench.set)?;
    let running = Running::start(ours.command(&settings, true), &places.log)?;
    let all = case.files * case.vessels;
    let mut watched = Watched { running: &running, destinations: &places.destinations, peak: 0, counts: Vec::new() };
    // Destinations are all but empty until the first is there: looking often costs nothing yet.
    bench.stop.wait_until("the first delivery", Duration::from_millis(5), limit, || watched.look(1))?;
    let first = running.started().elapsed();
    let waited = bench.stop.wait_until("all deliveries", COUNT, limit, || watched.look(all));
    waited
        .map_err(|e| format!("{e}; {} of {all} had arrived", watched.counts.last().map_or(0.0, |(_, count)| *count)))?;
    let Watched { mut peak, counts, .. } = watched;
    bench.stop.wait_until("the end of the program", Duration::from_millis(20), limit, || {
        peak = peak.max(running.usage().peak);
        !running.runs()
    })?;
    let (ended, cpu) = (running.started().elapsed(), running.usage().cpu);
    drop(running);
    let right = stage.arrived(&places, &bench.stop)?;
    let right = if stage.freight.is_processed() { right } else { Err(tail(&places.log, 3)) };
    stage.clear()?;
    right?;
    let delivered = counts.last().map_or(0.0, |(at, _)| *at);
    let [quarter, three_quarters] = [0.25, 0.75].map(|share| moment(&counts, all as f64 * share));
    let rate = |from: f64, to: f64| format!("{:.0}", all as f64 / 4.0 / (to - from).max(f64::MIN_POSITIVE));
    Ok(vec![
        figure(first.as_secs_f64()),
        figure(delivered),
        rate(first.as_secs_f64(), quarter),
        rate(three_quarters, delivered),
        figure(ended.as_secs_f64()),
        figure(cpu.as_secs_f64()),
        format!("{:.0}", peak as f64 / f64::from(1 << 20)),
    ])
}

struct Watched<'a> {
    running: &'a Running,
    destinations: &'a [PathBuf],
    peak: u64,
    /// Seconds since the start, and how many files had arrived then.
    counts: Vec<(f64, f64)>,
}

impl Watched<'_> {
    /// Counts; whether there are as many as wanted, or nothing more is to come.
    fn look(&mut self, wanted: usize) -> bool {
        let ended = !self.running.runs();
        self.peak = self.peak.max(self.running.usage().peak);
        let arrived: usize = self.destinations.iter().map(|place| visible(place)).sum();
        let at = Instant::now() - self.running.started();
        self.counts.push((at.as_secs_f64(), arrived as f64));
        ended || arrived >= wanted
    }
}

/// When so many had arrived, between two counts.
fn moment(counts: &[(f64, f64)], wanted: f64) -> f64 {
    let mut before = (0.0, 0.0);
    for &(at, count) in counts {
        if count >= wanted {
            let share = (wanted - before.1) / (count - before.1).max(1.0);
            return before.0 + (at - before.0) * share;
        }
        before = (at, count);
    }
    before.0
}
