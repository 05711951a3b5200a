//! `--simulate`: prints what would be done, and does nothing.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Exit, load, runtime, say, say_error, say_json, ssh_environment};
use crate::clock::Clock;
use crate::daemon::{self, Surroundings};
use crate::logging;
use crate::monitor::Silent;

/// Prints what would be done now, and does nothing.
pub(super) fn simulate(file: &Path, allow_deletes: bool, json: bool) -> Exit {
    let settings = match load(file) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let _ = logging::start(None, None);
    let surroundings = Surroundings {
        monitor: Arc::new(Silent),
        ssh: ssh_environment(&settings),
        clock: Clock::system(),
        log: Default::default(),
        allow_deletes,
        stop: CancellationToken::new(),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    match runtime.block_on(daemon::simulate(settings, surroundings)) {
        Ok(intentions) => {
            if json {
                let lines: Vec<String> = intentions.iter().map(ToString::to_string).collect();
                let document = serde_json::json!({ "intentions": intentions.iter().zip(&lines).map(|(one, text)| one.json(text)).collect::<Vec<_>>() });
                say_json(&format!("{document:#}"));
                return Exit::Good;
            }
            intentions.iter().for_each(|intention| say(format_args!("{intention}")));
            if intentions.is_empty() {
                say(format_args!("nothing to do"));
            }
            Exit::Good
        }
        Err(fault) => {
            say_error(format_args!("contentmonster: {fault}"));
            Exit::Broken
        }
    }
}
