//! Runs the daemon, or with `--once` a single delivery of all present files.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::signals::{self, Signals};
use super::simulate::simulate;
use super::{Exit, bars, load, runtime, say, say_error, say_json, sizes, ssh_environment};
use crate::clock::Clock;
use crate::daemon::{self, Mode, Report, Surroundings};
use crate::logging::{self, Log};
use crate::records::Backlog;
use crate::settings::{Settings, SettingsError};
use crate::status::Done;
use crate::text::{self, counted};

/// The settings, or the errors in them.
type Read = Result<Settings, SettingsError>;

/// The number of open files that this process should be allowed: a vessel with `Transport = local` opens its files in
/// this process, hundreds at a time.
const OPEN_FILES: u64 = 16 << 10;

/// Raises this process's limit of open files, as far as the system allows.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        // If the system refuses, the program works with the current limit.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
}

/// Runs the daemon until it is stopped, or with `once` until each file is delivered or can't be delivered for now.
/// `allow_deletes` confirms that missing source files were deleted on purpose.
pub(super) fn run(file: &Path, once: bool, allow_deletes: bool, json: bool) -> Exit {
    let settings = match load(file) {
        Ok(settings) if settings.monster.simulate && once => return simulate(file, allow_deletes, json),
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    allow_many_files();
    // Catches signals before any step that takes long, because an uncaught signal ends the program without a message.
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
        let directories = counted(settings.directories.len() as u64, "directory");
        let vessels = counted(settings.vessels.len() as u64, "vessel");
        let (release, file) = (crate::VERSION, settings.file.display());
        tracing::info!(settings = %file, "Starting contentmonster {release} with {directories} and {vessels}");
    }
    let stop = CancellationToken::new();
    let surroundings = Surroundings {
        monitor: bars::monitor(screen.as_ref(), &settings.vessels),
        ssh: ssh_environment(&settings),
        clock: Clock::system(),
        log: log.lines.clone(),
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
    // Does not wait for threads: a thread that hashes or copies a large file rarely checks for cancellation, and may be
    // interrupted safely.
    runtime.shutdown_background();
    match outcome {
        None => Exit::Interrupted,
        Some(Err(fault)) => {
            say_error(format_args!("contentmonster: {fault}"));
            Exit::Broken
        }
        Some(Ok(Some(report))) if once && json => summarise_in_json(&report),
        Some(Ok(Some(report))) if once => summarise(&report),
        Some(Ok(_)) => {
            tracing::info!("Stopped");
            Exit::Good
        }
    }
}

/// Returns 8 s after the stop was requested: a task that still runs then is assumed to hang. Unfinished work is left as
/// after a crash, and the next start resumes it.
async fn overdue(stop: CancellationToken) {
    const LONGEST_STOP: Duration = Duration::from_secs(8);
    stop.cancelled().await;
    tokio::time::sleep(LONGEST_STOP).await;
    tracing::error!(
        "Tasks did not end within {} after the stop; exiting without waiting for them",
        text::duration(LONGEST_STOP)
    );
}

/// Reopens the log file and reloads the settings on each SIGHUP; never returns. In a simulation, the receiver of
/// `reloads` was dropped, so the settings stay as they were at the start.
async fn read_anew(mut hangup: Option<Signal>, file: &Path, log: &Log, reloads: mpsc::Sender<Read>) {
    loop {
        signals::next(&mut hangup).await;
        log.reopen();
        // `send` waits while another reload is in progress, so reloads are applied in the order in which they were
        // read.
        if reloads.send(Settings::load(file)).await.is_err() {
            tracing::info!("Settings not reloaded: with `Simulate = yes`, changes take effect after a restart");
        }
    }
}

/// Describes the deliveries to a vessel in this run: the numbers of files, directories and links, and deletions.
fn in_this_run(done: &Done) -> String {
    let mut parts = vec![format!("{} delivered ({})", counted(done.files, "file"), sizes::bytes(done.bytes))];
    if done.others > 0 {
        parts.push(format!("{} created (directories, links)", counted(done.others, "path")));
    }
    if done.deletions > 0 {
        parts.push(format!("{} deleted", counted(done.deletions, "path")));
    }
    parts.join(", ")
}

fn waiting(backlog: &Backlog) -> String {
    let Backlog { waiting, waiting_bytes, parked, .. } = backlog;
    format!("{waiting} waiting ({}), {parked} of them parked", sizes::bytes(*waiting_bytes))
}

/// Prints the same as [`summarise`], as JSON.
fn summarise_in_json(report: &Report) -> Exit {
    let mut vessels: Vec<_> = report.done.iter().collect();
    vessels.sort_by_key(|(vessel, _)| *vessel);
    let vessels: Vec<_> = vessels
        .into_iter()
        .map(|(vessel, done)| {
            let backlog = report.backlog.iter().find(|backlog| backlog.vessel == *vessel);
            let waiting = |of: fn(&Backlog) -> u64| backlog.map_or(0, of);
            json!({
                "vessel": vessel.as_str(), "files": done.files, "bytes": done.bytes, "others": done.others,
                "deletions": done.deletions, "waiting_files": waiting(|it| it.waiting),
                "waiting_bytes": waiting(|it| it.waiting_bytes), "parked": waiting(|it| it.parked),
            })
        })
        .collect();
    let parked: Vec<_> = report
        .parked
        .iter()
        .map(|one| {
            let (vessel, directory) = (one.vessel.as_str(), one.directory.as_str());
            json!({ "vessel": vessel, "directory": directory, "path": one.path.to_string(), "reason": one.reason })
        })
        .collect();
    let troubles: Vec<_> =
        report.troubles.iter().map(|(name, why)| json!({ "directory": name.as_str(), "trouble": why })).collect();
    let all = report.is_all_delivered();
    let document = json!({ "all_delivered": all, "vessels": vessels, "parked": parked, "directories": troubles });
    say_json(&format!("{document:#}"));
    if all { Exit::Good } else { Exit::Undelivered }
}

fn summarise(report: &Report) -> Exit {
    let mut vessels: Vec<_> = report.done.iter().collect();
    vessels.sort_by_key(|(vessel, _)| *vessel);
    for (vessel, done) in vessels {
        let backlog = report.backlog.iter().find(|backlog| backlog.vessel == *vessel);
        say(format_args!("{vessel}: {}; {}", in_this_run(done), backlog.map_or("0 waiting".into(), waiting)));
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
