//! What the daemon needs while nothing happens.

use std::time::{Duration, Instant};

use crate::Result;
use crate::case::Case;
use crate::ours::{Ours, write_settings};
use crate::report::{Section, figure};
use crate::rounds::{Bench, Stage, alone};
use crate::watch::{Running, connections_to, tail};

const HEADER: &[&str] = &["program", "resident MiB", "peak MiB", "CPU %", "connections"];

/// How long it is watched.
const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn measure(bench: &Bench, case: &Case) -> Result<Section> {
    alone(bench, case, HEADER, one_run)
}

fn one_run(bench: &Bench, case: &Case, stage: &Stage, ours: &Ours) -> Result<Vec<String>> {
    let limit = bench.limit(Duration::from_secs(300));
    let places = stage.fresh(case.vessels)?;
    let settings = write_settings(&stage.task(&places), &[], &bench.set)?;
    let running = Running::start(ours.command(&settings, false), &places.log)?;
    // A file that has come to every vessel proves every connection, and that it is one that was used.
    bench.stop.wait_until("a file on every vessel, and in processed/", Duration::from_millis(50), limit, || {
        stage.freight.is_processed() || !running.runs()
    })?;
    if let Err(wrong) = stage.arrived(&places, &bench.stop)? {
        return Err(format!("{wrong}: {}", tail(&places.log, 3)));
    }
    bench.stop.sleep(Duration::from_secs(5))?;
    let (began, before) = (Instant::now(), running.usage());
    bench.stop.sleep(MINUTE)?;
    let (after, took) = (running.usage(), began.elapsed());
    if !running.runs() {
        return Err(format!("it has ended: {}", tail(&places.log, 3)));
    }
    let connections = connections_to(running.pid(), stage.vessel.port);
    running.terminate();
    stage.clear()?;
    let mebibytes = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let share = after.cpu.saturating_sub(before.cpu).as_secs_f64() / took.as_secs_f64();
    Ok(vec![mebibytes(after.resident), mebibytes(after.peak), figure(share * 100.0), connections.to_string()])
}
