//! The daemon, and `--once`.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use super::simulate::simulate;
use super::{Exit, bars, load, runtime, say, say_error, sizes, ssh_environment};
use crate::clock::Clock;
use crate::daemon::{self, Mode, Report, Surroundings};
use crate::logging::{self, Log};

/// Files that may be open at once: those of a target on this host are our own, hundreds at a time.
const OPEN_FILES: u64 = 16 << 10;

/// Has the system let this process open many files, as far as it may.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        // Where it refuses, what there is has to do.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
}

/// Runs until it is stopped, or with `once` until there is nothing more to do. `allow_deletes`
/// is a person's word that what is gone is meant to be gone.
pub(super) fn run(file: &Path, once: bool, allow_deletes: bool) -> Exit {
    let settings = match load(file) {
        Ok(settings) if settings.monster.simulate && once => return simulate(file, allow_deletes),
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    allow_many_files();
    // Before anything that takes time: a signal that nobody catches yet would end the program without a word.
    let signals = match Signals::catch(&runtime) {
        Ok(signals) => signals,
        Err(e) => {
            say_error(format_args!("can't catch signals: {e}"));
            return Exit::Broken;
        }
    };
    let screen = if once { bars::screen() } else { None };
    let log = match logging::start(Some(&settings.monster.logging), screen.clone()) {
        Ok(log) => log,
        Err(why) => {
            say_error(format_args!("{}: {why}", file.display()));
            return Exit::Settings;
        }
    };
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let mode = if once { Mode::Once } else { Mode::Forever };
    let stop = CancellationToken::new();
    let surroundings = Surroundings {
        monitor: bars::monitor(screen.as_ref(), &settings.vessels),
        ssh: ssh_environment(&settings),
        clock: Clock::system(),
        allow_deletes,
        stop: stop.clone(),
    };
    let simulated = settings.monster.simulate;
    let work = async {
        if simulated {
            daemon::simulate_on(settings, || surroundings.clone()).await.map(|()| None)
        } else {
            daemon::run(settings, mode, surroundings).await.map(Some)
        }
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = work => Some(outcome),
            () = signals.second(stop) => None,
            () = reopened_when_asked(&log) => None,
        }
    });
    // Threads that hash or copy a large file look up only now and then; nothing they do needs an end.
    runtime.shutdown_background();
    match outcome {
        None => Exit::Interrupted,
        Some(Err(fault)) => {
            say_error(format_args!("contentmonster: {fault}"));
            Exit::Broken
        }
        Some(Ok(Some(report))) if once => summarise(&report),
        Some(Ok(_)) => {
            tracing::info!("stopped");
            Exit::Good
        }
    }
}

/// Opens the log file anew whenever SIGHUP asks for it, for ever. Without one, SIGHUP ends the program as a terminal that
/// is closed expects it to.
async fn reopened_when_asked(log: &Log) {
    if !log.is_file() {
        return std::future::pending().await;
    }
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return std::future::pending().await };
    while hangup.recv().await.is_some() {
        log.reopen();
        tracing::info!("log file opened anew");
    }
}

fn summarise(report: &Report) -> Exit {
    for backlog in &report.backlog {
        say(format_args!(
            "{}: {} delivered in all, {} waiting ({}), {} of them parked",
            backlog.vessel,
            backlog.acknowledged,
            backlog.waiting,
            sizes::bytes(backlog.waiting_bytes),
            backlog.parked,
        ));
    }
    for parked in &report.parked {
        say(format_args!("parked for {}: {}/{}: {}", parked.vessel, parked.directory, parked.path, parked.reason));
    }
    for (directory, trouble) in &report.troubles {
        say(format_args!("directory {directory}: {trouble}"));
    }
    if report.is_all_delivered() {
        say(format_args!("everything is delivered"));
        Exit::Good
    } else {
        say(format_args!("not everything is delivered; what is waiting goes on with the next run"));
        Exit::Undelivered
    }
}
