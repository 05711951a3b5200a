//! The program with a clock that a test sets: this test binary itself, as a process that can be signalled and killed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use contentmonster::clock::Clock;
use contentmonster::daemon::{self, Mode, Surroundings};
use contentmonster::monitor::All;
use contentmonster::settings::Settings;
use contentmonster::transport::SshEnvironment;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const SETTINGS: &str = "CONTENTMONSTER_TEST_SETTINGS";
const CLOCK: &str = "CONTENTMONSTER_TEST_CLOCK";
/// How long a stop may take, as in the program itself.
const LONGEST_STOP: Duration = Duration::from_secs(8);

/// A clock in a file: how many seconds it is ahead of the computer's.
pub(crate) struct SetClock(PathBuf);

impl SetClock {
    pub(crate) fn new(file: PathBuf) -> Self {
        let clock = Self(file);
        clock.set(0);
        clock
    }

    /// Sets the clock; one that is read meanwhile shows the time of before or the new one.
    pub(crate) fn set(&self, seconds_ahead: i64) {
        let new = self.0.with_extension("new");
        fs::write(&new, seconds_ahead.to_string()).unwrap();
        fs::rename(new, &self.0).unwrap();
    }

    /// Sets it a few minutes, days or years ahead or back.
    pub(crate) fn jump(&self, dice: &mut fastrand::Rng) {
        let most: i64 = [300, 100_000, 100_000_000][dice.usize(..3)];
        self.set(dice.i64(-most..=most));
    }

    /// The words of a command that runs the daemon with this clock.
    pub(crate) fn program(&self, settings: &Path) -> Vec<OsString> {
        let mut words = vec![OsString::from("env")];
        for (name, value) in [(SETTINGS, settings), (CLOCK, self.0.as_path())] {
            let mut word = OsString::from(format!("{name}="));
            word.push(value);
            words.push(word);
        }
        words.push(std::env::current_exe().unwrap().into_os_string());
        let test = "fleet::clocked::runs_as_the_program_where_another_test_asks_for_it";
        words.extend(["--ignored", "--exact", "--nocapture", test].map(OsString::from));
        words
    }
}

fn shown(file: &Path) -> SystemTime {
    let ahead: i64 = fs::read_to_string(file).unwrap().parse().unwrap();
    let (now, span) = (SystemTime::now(), Duration::from_secs(ahead.unsigned_abs()));
    if ahead < 0 { now - span } else { now + span }
}

async fn run(settings: PathBuf, clock: PathBuf) {
    let (mut term, mut hup) = (signal(SignalKind::terminate()).unwrap(), signal(SignalKind::hangup()).unwrap());
    let read = Settings::load(&settings).unwrap();
    let _log = contentmonster::logging::start(Some(&read.monster.logging), None).unwrap();
    let (sender, reloads) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let surroundings = Surroundings {
        monitor: Arc::new(All(Vec::new())),
        ssh: SshEnvironment::from_process("contentmonster".into()),
        clock: Clock::from_fn(move || shown(&clock)),
        log: Default::default(),
        allow_deletes: false,
        stop: stop.clone(),
    };
    let hear = async {
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = hup.recv() => { let _ = sender.send(Settings::load(&settings)).await; }
            }
        }
        stop.cancel();
        tokio::time::sleep(LONGEST_STOP).await;
    };
    tokio::select! {
        ended = daemon::run(read, Mode::Forever(reloads), surroundings) => drop(ended.unwrap()),
        () = hear => {}
    }
}

#[test]
#[ignore = "other tests start it as a process, in place of the program"]
fn runs_as_the_program_where_another_test_asks_for_it() {
    let (Some(settings), Some(clock)) = (std::env::var_os(SETTINGS), std::env::var_os(CLOCK)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(settings.into(), clock.into()));
    runtime.shutdown_background();
}
