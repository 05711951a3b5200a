//! Measures the processor load of this program.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Minimum time over which the load is averaged.
const LEAST: Duration = Duration::from_millis(800);

/// A meter of the processor time that this program uses between two calls.
#[derive(Debug, Default)]
pub(super) struct CpuMeter(Mutex<Option<Reading>>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    used: Duration,
    percent: f64,
}

impl CpuMeter {
    /// Returns the load since the last measurement, in percent of one processor; 0 at the first call. Within [`LEAST`]
    /// after a measurement, returns the result of that measurement again.
    pub(super) fn percent(&self) -> f64 {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, used) = (Instant::now(), used());
        let Some(before) = *last else {
            *last = Some(Reading { at, used, percent: 0.0 });
            return 0.0;
        };
        let took = at - before.at;
        if took < LEAST {
            return before.percent;
        }
        let percent = used.saturating_sub(before.used).as_secs_f64() * 100.0 / took.as_secs_f64();
        *last = Some(Reading { at, used, percent });
        percent
    }
}

/// Returns the processor time that this program has used, from `/proc/self/stat` (proc(5)).
fn used() -> Duration {
    /// Length of a clock tick in milliseconds: `USER_HZ` is 100 on all platforms that Rust's Linux targets run on.
    const TICK: u64 = 10;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Skips the name of the program, in parentheses, because it may contain blanks. Fields 14 and 15 are the times in
    // user mode and in the kernel.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_program_uses_processor_time() {
        let meter = CpuMeter::default();
        assert!(meter.percent() < f64::EPSILON);
        let begun = Instant::now();
        while begun.elapsed() < LEAST + Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        assert!(meter.percent() > 1.0);
    }
}
