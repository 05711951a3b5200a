//! How soon a small file that is closed on the shore is on the vessel under its own name.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::case::Case;
use crate::figures::{median, quantile};
use crate::freight::at;
use crate::ours::{Ours, write_settings};
use crate::report::Section;
use crate::rounds::{Bench, Stage, alone};
use crate::watch::Running;

const HEADER: &[&str] = &["program", "median ms", "95 % within ms", "most ms"];

const FILES: usize = 50;
/// Between two files: what one leaves to do shall be done before the next.
const PAUSE: Duration = Duration::from_millis(300);

pub(crate) fn measure(bench: &Bench, case: &Case) -> Result<Section> {
    alone(bench, case, HEADER, one_run)
}

fn one_run(bench: &Bench, case: &Case, stage: &Stage, ours: &Ours) -> Result<Vec<String>> {
    let limit = bench.limit(Duration::from_secs(60));
    let places = stage.fresh(1)?;
    let settings = write_settings(&stage.task(&places), &[], &bench.set)?;
    let running = Running::start(ours.command(&settings, false), &places.log)?;
    // The case's own file warms the connection.
    bench.stop.wait_until("the first file in processed/", Duration::from_millis(50), limit, || {
        stage.freight.is_processed() || !running.runs()
    })?;
    let bytes = vec![0x5a; usize::try_from(case.size).unwrap_or(1024)];
    let mut times = Vec::new();
    for number in 0..FILES {
        bench.stop.sleep(PAUSE)?;
        let name = format!("latency-{number}");
        let source = stage.freight.directory().join(&name);
        fs::write(&source, &bytes).map_err(at(&source))?;
        let closed = Instant::now();
        times.push(seen_after(&places.destinations[0].join(&name), closed, limit, bench)? * 1000.0);
    }
    running.terminate();
    let figures = [median(times.clone()), quantile(times.clone(), 0.95), quantile(times, 1.0)];
    stage.clear()?;
    Ok(figures.into_iter().flatten().map(|ms| format!("{ms:.0}")).collect())
}

/// Seconds until the path is there.
fn seen_after(path: &Path, closed: Instant, limit: Duration, bench: &Bench) -> Result<f64> {
    let mut seen = closed;
    bench.stop.wait_until(&format!("{}", path.display()), Duration::from_micros(500), limit, || {
        seen = Instant::now();
        path.exists()
    })?;
    Ok((seen - closed).as_secs_f64())
}
