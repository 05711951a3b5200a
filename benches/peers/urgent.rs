//! How soon small urgent files are there while a large file of another directory fills the link.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::case::Case;
use crate::connected::link_bytes;
use crate::figures::{median, quantile};
use crate::freight::{Freight, at};
use crate::ours::{Ours, write_settings};
use crate::report::{Section, figure};
use crate::rounds::{Bench, Stage, alone};
use crate::watch::Running;

const HEADER: &[&str] =
    &["program", "median s", "99 % within s", "most s", "sent Mbit/s", "resent %", "large file, bytes sent ÷ there"];

/// The size of each large file, in bytes, and their number: together far more than any link here carries in the time.
const LARGE: u64 = 1 << 30;
const LARGE_FILES: usize = 10;
const FILES: usize = 200;
/// Between two urgent files.
const PAUSE: Duration = Duration::from_secs(5);
/// The large file is under way, at full speed, before the first one.
const BEFORE: Duration = Duration::from_secs(20);

pub(crate) fn measure(bench: &Bench, case: &Case) -> Result<Section> {
    alone(bench, case, HEADER, one_run)
}

fn one_run(bench: &Bench, case: &Case, stage: &Stage, ours: &Ours) -> Result<Vec<String>> {
    let limit = bench.limit(Duration::from_secs(120));
    let places = stage.fresh(2)?;
    let (location, destination, large_to) =
        (stage.freight.directory(), &places.destinations[0], &places.destinations[1]);
    let large_from = places.work.join("large");
    let large = Freight::make(&large_from, 1, LARGE, &bench.stop)?;
    // Names of one file, because only the first one is read before the end.
    for (first, number) in large.paths().flat_map(|first| (1..LARGE_FILES).map(move |number| (first.clone(), number))) {
        let name = large_from.join(format!("large-{number}"));
        fs::hard_link(&first, &name).map_err(at(&name))?;
    }
    let mut set = bench.set.clone();
    set.push(("RemoteLocation.large".to_owned(), large_to.display().to_string()));
    let mut task = stage.task(&places);
    task.destinations = &places.destinations[..1];
    let settings = write_settings(&task, &[("Priority", "urgent")], &set)?;
    let mut file = fs::File::options().append(true).open(&settings).map_err(at(&settings))?;
    let section = format!("\n[Directory large]\nLocation = {}\nPriority = bulk\n", large_from.display());
    file.write_all(section.as_bytes()).map_err(at(&settings))?;
    let running = Running::start(ours.command(&settings, false), &places.log)?;
    bench.stop.wait_until("the first file in processed/", Duration::from_millis(50), limit, || {
        stage.freight.is_processed() || !running.runs()
    })?;
    bench.stop.sleep(BEFORE)?;
    // The parts of the large file are in TempDir until they are joined.
    let parts = places.work.join("temp-0");
    let there = || (bytes_in(large_to) + bytes_in(&parts)) as f64;
    let (before, before_there, began) = (link_bytes(ours, &settings)?, there(), Instant::now());
    let (mut times, bytes) = (Vec::new(), vec![0x5a; usize::try_from(case.size).unwrap_or(1024)]);
    for number in 0..FILES {
        let next = began + PAUSE * u32::try_from(number).unwrap_or(u32::MAX);
        bench.stop.sleep(next.saturating_duration_since(Instant::now()))?;
        let name = format!("urgent-{number}");
        let source = location.join(&name);
        fs::write(&source, &bytes).map_err(at(&source))?;
        let closed = Instant::now();
        let path = destination.join(&name);
        bench.stop.wait_until(&name, Duration::from_millis(5), limit, || path.exists())?;
        times.push(closed.elapsed().as_secs_f64());
    }
    let (after, took) = (link_bytes(ours, &settings)?, began.elapsed().as_secs_f64());
    let (sent, resent, brought) = (after[0] - before[0], after[2] - before[2], there() - before_there);
    running.terminate();
    drop(large);
    stage.clear()?;
    let times = [median(times.clone()), quantile(times.clone(), 0.99), quantile(times, 1.0)];
    let mut figures: Vec<_> = times.into_iter().flatten().map(figure).collect();
    figures.push(figure(sent * 8.0 / 1e6 / took));
    figures.push(figure(resent * 100.0 / sent.max(1.0)));
    figures.push(format!("{:.3}", sent / brought.max(1.0)));
    Ok(figures)
}

/// Returns the sizes of all files in a directory.
fn bytes_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
