//! What a connected daemon takes for new files: from the moment they are in its directory until all of them are in
//! `processed/`, verified and flushed. No peer stays connected.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Result;
use crate::case::Case;
use crate::figures::median;
use crate::freight::{Freight, PROCESSED, at};
use crate::ours::{Ours, write_settings};
use crate::report::{Section, figure};
use crate::rounds::{Bench, Stage, alone};
use crate::watch::{Running, tail};

const HEADER: &[&str] = &["program", "median s", "rounds s", "sent ÷ size", "received ÷ size"];

/// Between two rounds: what one leaves to do is done before the next.
const PAUSE: Duration = Duration::from_secs(3);

/// The case's own files are sent first, to connect. Each round then sends as many new ones.
pub(crate) fn measure(bench: &Bench, case: &Case) -> Result<Section> {
    alone(bench, case, HEADER, one_run)
}

fn one_run(bench: &Bench, case: &Case, stage: &Stage, ours: &Ours) -> Result<Vec<String>> {
    let limit = bench.limit(Duration::from_secs(300));
    let places = stage.fresh(1)?;
    // Sources are moved as soon as they are delivered, so that no wait of the shore is in the figures.
    let settings = write_settings(&stage.task(&places), &[("SettleTime", "10ms")], &bench.set)?;
    let running = Running::start(ours.command(&settings, false), &places.log)?;
    let poll = Duration::from_millis(2);
    bench
        .stop
        .wait_until("the first files in processed/", poll, limit, || stage.freight.is_processed() || !running.runs())?;
    let (location, destination) = (stage.freight.directory(), &places.destinations[0]);
    let (mut seconds, mut per_byte) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        bench.stop.sleep(PAUSE)?;
        let staged = places.work.join(format!("round-{round}"));
        let new = Freight::make_named(&staged, &format!("round-{round}-"), case.files, case.size, &bench.stop)?;
        let before = link_bytes(ours, &settings)?;
        let began = Instant::now();
        for path in new.paths() {
            let name = path.file_name().unwrap_or_default();
            fs::rename(&path, location.join(name)).map_err(at(&path))?;
        }
        let processed = location.join(PROCESSED[0]);
        let all: Vec<_> = new.paths().map(|path| processed.join(path.file_name().unwrap_or_default())).collect();
        bench.stop.wait_until("the files in processed/", poll, limit, || {
            all.iter().all(|path| path.exists()) || !running.runs()
        })?;
        seconds.push(began.elapsed().as_secs_f64());
        new.compare(destination, &bench.stop)?.map_err(|wrong| format!("{wrong}: {}", tail(&places.log, 3)))?;
        let after = link_bytes(ours, &settings)?;
        per_byte.push([0, 1].map(|way| (after[way] - before[way]) / new.bytes as f64));
        for path in &all {
            fs::remove_file(path).map_err(at(path))?;
        }
    }
    running.terminate();
    stage.clear()?;
    let rounds: Vec<_> = seconds.iter().map(|seconds| figure(*seconds)).collect();
    let share = |way: usize| median(per_byte.iter().map(|bytes| bytes[way]).collect()).unwrap_or(0.0);
    let median = median(seconds).map(figure).unwrap_or_default();
    Ok(vec![median, rounds.join(" "), format!("{:.3}", share(0)), format!("{:.3}", share(1))])
}

/// Returns how many bytes the running program has sent, received and sent again on the link to its vessel.
pub(crate) fn link_bytes(ours: &Ours, settings: &Path) -> Result<[f64; 3]> {
    let told = ours.command(settings, false).args(["status", "--json"]).output().map_err(|e| e.to_string())?;
    let told: Value = serde_json::from_slice(&told.stdout).map_err(|e| format!("status --json: {e}"))?;
    let bytes = &told["vessels"][0]["link_bytes"];
    Ok(["sent", "received", "resent"].map(|way| bytes[way].as_f64().unwrap_or(0.0)))
}
