//! Running processes: started in groups of their own, timed from start to end, watched for what they use, ended with
//! everything they started.

mod usage;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use crate::Result;
use crate::stop::Stop;
pub(crate) use usage::{Usage, connections_to};

/// How often memory is looked at: a peak that is shorter may be missed.
const LOOK: Duration = Duration::from_millis(20);

/// A process that was started here. Dropping it kills it and all its descendants.
pub(crate) struct Running {
    child: Child,
    started: Instant,
    ended: Receiver<Instant>,
    waiter: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a command that reads nothing and writes to a log.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut start = || {
            let out = File::options().create(true).append(true).open(log)?;
            command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
            let started = Instant::now();
            command.spawn().map(|child| (started, child))
        };
        let (started, child) = start().map_err(|e| format!("{program} can't be started: {e}"))?;
        let (sender, ended) = channel();
        let pid = pid_of(&child);
        let waiter = std::thread::spawn(move || {
            // Not reaped yet: the kernel still tells what it used.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let _ = sender.send(Instant::now());
        });
        Ok(Self { child, started, ended, waiter: Some(waiter) })
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it and its descendants use.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.pid())
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Whether it still runs.
    pub(crate) fn runs(&self) -> bool {
        self.waiter.as_ref().is_some_and(|waiter| !waiter.is_finished())
    }

    /// Asks it to end, and lets it, for some seconds.
    pub(crate) fn terminate(self) {
        let _ = kill_process(pid_of(&self.child), Signal::TERM);
        let _ = self.ended.recv_timeout(Duration::from_secs(10));
    }

    fn kill(&self) {
        let descendants = usage::descendants(self.pid());
        let _ = kill_process_group(pid_of(&self.child), Signal::KILL);
        // Those that made a group of their own.
        for pid in descendants.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    fn reap(&mut self) -> Option<ExitStatus> {
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.join();
        }
        self.child.wait().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.runs() {
            self.kill();
        }
        self.reap();
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Every process said that all went well, or what was waited for has come.
    Good,
    /// A process ended with this.
    Bad(ExitStatus),
    /// The limit came first.
    Overtime,
}

/// What a run of one or more processes at once took.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) end: End,
    /// From the start of the first to the end of the last.
    pub(crate) wall: Duration,
    /// User and system time of all of them, with what they started.
    pub(crate) cpu: Duration,
    /// The most memory that all of them held at once, in bytes, as far as it was seen.
    pub(crate) peak: u64,
    /// Bytes that the first of them got from `read` and its kin.
    pub(crate) read: u64,
}

/// When a run is over.
#[derive(Clone, Copy)]
pub(crate) enum Until<'a> {
    /// When every process has ended by itself.
    Ended,
    /// When this is so; the processes are killed then.
    So(&'a dyn Fn() -> bool),
}

/// Starts the commands at once and watches them to the end.
///
/// # Errors
/// When one can't be started, or when it is asked to stop.
pub(crate) fn run(commands: Vec<Command>, log: &Path, until: Until, limit: Duration, stop: &Stop) -> Result<Run> {
    let mut running = Vec::new();
    for command in commands {
        running.push(Running::start(command, log)?);
    }
    let started = running.first().map_or_else(Instant::now, Running::started);
    let mut result = Run { end: End::Good, wall: Duration::ZERO, cpu: Duration::ZERO, peak: 0, read: 0 };
    let mut last_end = started;
    // The processes are waited for one after the other; all are looked at meanwhile.
    for waited in 0..running.len() {
        loop {
            let usages: Vec<_> = running.iter().map(Running::usage).collect();
            result.peak = result.peak.max(usages.iter().map(|usage| usage.peak).sum());
            // Not only at the end: nobody counts for a process whose parent ends without waiting for it.
            result.cpu = result.cpu.max(usages.iter().map(|usage| usage.cpu).sum());
            stop.check()?;
            if started.elapsed() > limit {
                return Ok(Run { end: End::Overtime, wall: limit, ..result });
            }
            match until {
                Until::So(is_so) if is_so() => {
                    return Ok(Run { wall: started.elapsed(), read: running[waited].usage().read, ..result });
                }
                _ => {}
            }
            match running[waited].ended.recv_timeout(LOOK) {
                Ok(ended) => break last_end = last_end.max(ended),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }
    result.wall = last_end - started;
    result.cpu = result.cpu.max(running.iter().map(|process| process.usage().cpu).sum());
    result.read = running.first().map_or(0, |process| process.usage().read);
    for mut process in running {
        match process.reap() {
            Some(status) if !status.success() => result.end = End::Bad(status),
            _ => {}
        }
    }
    Ok(result)
}

/// The last lines of a log, for what has gone wrong.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join(" / ")
}
