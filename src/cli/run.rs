//! The daemon, and `--once`.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::signals::{self, Signals};
use super::simulate::simulate;
use super::{Exit, bars, load, runtime, say, say_error, sizes, ssh_environment};
use crate::clock::Clock;
use crate::daemon::{self, Mode, Report, Surroundings};
use crate::logging::{self, Log};
use crate::settings::{Settings, SettingsError};

/// Settings, or their errors.
type Read = Result<Settings, SettingsError>;

/// Limit of open files: a target on this host opens its files in this process, hundreds at a time.
const OPEN_FILES: u64 = 16 << 10;

/// Raises this process's limit of open files, as far as the system allows.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        // If the system refuses, the current limit has to suffice.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
}

/// Runs until it is stopped, or with `once` until there is nothing more to do. `allow_deletes` confirms that missing
/// source files were deleted on purpose.
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
    // First of all: an uncaught signal would end the program without a message.
    let signals = match Signals::catch(&runtime, once) {
        Ok(signals) => signals,
        Err(e) => {
            say_error(format_args!("cannot install signal handlers: {e}"));
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
    let (sender, reloads) = mpsc::channel(1);
    let mode = if once { Mode::Once } else { Mode::Forever(reloads) };
    if !once {
        let (directories, vessels) = (settings.directories.len(), settings.vessels.len());
        let (release, file) = (env!("CARGO_PKG_VERSION"), settings.file.display());
        tracing::info!(settings = %file, directories, vessels, "Starting contentmonster {release}");
    }
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
            drop(mode);
            daemon::simulate_on(settings, || surroundings.clone()).await.map(|()| None)
        } else {
            daemon::run(settings, mode, surroundings).await.map(Some)
        }
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = work => Some(outcome),
            () = signals.ends.second(stop.clone()) => None,
            () = overdue(stop) => (!once).then_some(Ok(None)),
            () = read_anew(signals.hangup, file, &log, sender) => None,
        }
    });
    // Threads that hash or copy a large file check for cancellation only now and then, and may be interrupted safely.
    runtime.shutdown_background();
    match outcome {
        None => Exit::Interrupted,
        Some(Err(fault)) => {
            say_error(format_args!("contentmonster: {fault}"));
            Exit::Broken
        }
        Some(Ok(Some(report))) if once => summarise(&report),
        Some(Ok(_)) => {
            tracing::info!("Stopped");
            Exit::Good
        }
    }
}

/// Returns when stopping takes so long that a task must hang. Unfinished work is left as after a crash, and the next
/// start resumes it.
async fn overdue(stop: CancellationToken) {
    const LONGEST_STOP: Duration = Duration::from_secs(8);
    stop.cancelled().await;
    tokio::time::sleep(LONGEST_STOP).await;
    tracing::error!("Tasks did not end within {LONGEST_STOP:?} after the stop; exiting without waiting for them");
}

/// Reopens the log file and reloads the settings on each SIGHUP; never returns. Without a receiver (in a simulation),
/// the settings stay as they were at the start.
async fn read_anew(mut hangup: Option<Signal>, file: &Path, log: &Log, reloads: mpsc::Sender<Read>) {
    loop {
        signals::next(&mut hangup).await;
        log.reopen();
        // `send` waits while a reload is in progress, so the settings read last are applied last.
        if reloads.send(Settings::load(file)).await.is_err() {
            tracing::info!("Settings not reloaded: with `Simulate = yes`, changes take effect after a restart");
        }
    }
}

fn summarise(report: &Report) -> Exit {
    for backlog in &report.backlog {
        say(format_args!(
            "{}: {} delivered in total, {} waiting ({}), {} of them parked",
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
        say(format_args!("not everything is delivered; the next run continues with the waiting files"));
        Exit::Undelivered
    }
}
