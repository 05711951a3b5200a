//! Where and when it was measured.

use std::fs;

use crate::program::Program;
use crate::vessel::said;

/// The machine, the date, and the versions of all programs, in words.
pub(crate) struct Machine {
    /// `2026-11-21`, UTC.
    pub(crate) date: String,
    pub(crate) hardware: String,
    pub(crate) versions: Vec<String>,
    /// This program's version, with the commit where there is one.
    pub(crate) ours: String,
}

impl Machine {
    pub(crate) fn look(programs: impl Iterator<Item = Program>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let model = line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let memory =
            line_of("/proc/meminfo", "MemTotal").and_then(|kib| kib.trim_end_matches(" kB").parse::<f64>().ok());
        let gibibytes = memory.unwrap_or(0.0) / f64::from(1 << 20);
        let mut versions = Vec::new();
        let mut ours = String::new();
        for program in programs {
            let version = program.version();
            match (program.is_ours(), ours.is_empty()) {
                (true, true) => ours = version,
                (true, false) => {}
                _ if version.is_empty() || versions.contains(&version) => {}
                _ => versions.push(version),
            }
        }
        let commit = ["describe", "--always", "--dirty", "--exclude=*"];
        if let Ok(commit) = said("git", &[&["-C", env!("CARGO_MANIFEST_DIR")], &commit[..]].concat()) {
            ours = format!("{ours} ({commit})");
        }
        let hardware = format!("{cores} cores, {model}, {gibibytes:.0} GiB of memory, Linux {}", kernel.trim());
        Self { date: said("date", &["-u", "+%F"]).unwrap_or_default(), hardware, versions, ours }
    }
}

/// The value of a `name : value` line.
fn line_of(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
